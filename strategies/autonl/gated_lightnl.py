"""LightNL under gates: whether it is inserted, with how many channels, at which spatial stride."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search_space import ABSENT, PRESENT, LightNL
from search_space.lightnl import gpu
from search_space.lightnl.macs import compact_channels
from search_space.lightnl.products import attend, contexts
from search_space.mixed import MixedLightNL
from search_space.nni_nas import LayerChoice

from .gate import Threshold, behind_gates, nested_mask
from .gated import Gated
from .processes import mean_over_processes

__all__ = ['GatedInsertion', 'GatedLightNL', 'affinity_steps', 'nested_candidates']


def nested_candidates(name: str, candidates) -> list:
    """The candidates of LightNL's ``ratio`` or ``stride``, each containing the one before it.

    Ratios ascend. Strides descend, and each must divide the one before: only then are its positions a superset.

    Raises:
        ValueError: strides that are not nested.
    """
    if name == 'ratio':
        return sorted(candidates)
    strides = sorted(candidates, reverse=True)
    for coarse, fine in pairwise(strides):
        if coarse % fine:
            raise ValueError(
                f'LightNL strides {fine} and {coarse} are not nested: AutoNL needs {fine} to divide {coarse}'
            )
    return strides


def affinity_steps(
    contexts: dict[int, Tensor], all_positions: Tensor, channels: list[int], strides: list[int]
) -> tuple[Tensor, Tensor]:
    """``‖ΔA‖² / ‖A‖²`` of each step to a larger ratio and to a finer stride, each ``‖·‖²`` a mean over the batch, all
    processes' parts of it.

    ``A = x_c x_scᵀ / P`` is the affinity at the largest ratio and the finest stride. Its part between the channels i to
    j has ``‖ΔA‖²_F = ⟨x_Δᵀ x_Δ, x_sΔᵀ x_sΔ⟩ / P²``: Gram matrices, `(j − i)²`, no `P × p` matrix is formed.

    Args:
        contexts: ``x_scᵀ x_s / P`` `(N, k, C)`, by stride, at the largest k.
        all_positions: ``x_cᵀ x_c / P`` `(N, k, k)` over all positions.
        channels: k of each ratio, ascending.
        strides: descending.
    """
    precise = torch.promote_types(all_positions.dtype, torch.float32)  # also under mixed precision
    all_positions = all_positions.to(precise)
    by_stride = [contexts[stride][:, :, : channels[-1]].to(precise) for stride in strides]
    finest = by_stride[-1]
    product = all_positions * finest
    wider = [product[:, i:j, i:j].sum() for i, j in pairwise(channels)]
    finer = [(all_positions * (b - a)).sum() for a, b in pairwise(by_stride)]
    norms = mean_over_processes(torch.stack([product.sum(), *wider, *finer]))
    steps = norms[1:] / norms[0].detach().clamp_min(torch.finfo(precise).tiny)
    return steps[: len(wider)], steps[len(wider) :]


class GatedLightNL(Gated, MixedLightNL):
    """LightNL whose ratio and stride are nested candidates under gates (the paper's equation 9).

    The larger ratio is taken when ``‖ΔA‖² > t``, ΔA being what its extra channels add to the affinity, in units of the
    whole affinity's ‖A‖²; the finer stride likewise.
    """

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        self.nested = {
            name: nested_candidates(name, mutable.grid()) for name, mutable in self.mutable_arguments.items()
        }
        self.thresholds = nn.ModuleDict({name: Threshold(c) for name, c in self.nested.items()})
        self.ratios = self.nested.get('ratio', [self.ratio])
        self.strides = self.nested.get('stride', [self.stride])
        self.prefixes = [compact_channels(self.channels, ratio) for ratio in self.ratios]
        self.register_buffer('behind', behind_gates(self.prefixes)[..., None], persistent=False)
        self.gates = {}

    @classmethod
    def mutate(cls, module, name, memo, mutate_kwargs):
        """NNI's mutation hook: replaces a LightNL that has choices."""
        if isinstance(module, cls.bound_type) and module.mutables:
            return cls(dict(module.trace_kwargs))
        return None

    def product(self, x: Tensor) -> Tensor:
        x_c, by_stride = contexts(x, self.ratios[-1], self.strides)
        return attend(x_c, self._chosen_context(x, by_stride), x)

    def context_on_gpu(self, x: Tensor) -> Tensor:
        return self._chosen_context(x, gpu.contexts(x, self.ratios[-1], self.strides))

    def _chosen_context(self, x: Tensor, by_stride: dict[int, Tensor]) -> Tensor:
        """The context `(N, k, C)` that the gates leave of those of each stride at the largest ratio."""
        k = self.prefixes[-1]
        if 1 in by_stride:
            all_positions = by_stride[1][:, :, :k]
        else:
            x_c = x[:, :k].flatten(2)
            all_positions = torch.bmm(x_c / x_c.shape[2], x_c.transpose(1, 2))
        wider, finer = affinity_steps(by_stride, all_positions, self.prefixes, self.strides)
        chosen = by_stride[self.strides[-1]]
        if 'stride' in self.thresholds:
            gates = self._gates('stride', finer).to(chosen.dtype)
            for stride, g in zip(self.strides[-2::-1], gates.flip(0).unbind()):
                chosen = torch.lerp(by_stride[stride], chosen, g)
        if 'ratio' in self.thresholds:
            chosen = chosen * nested_mask(self._gates('ratio', wider), self.behind).to(chosen.dtype)
        return chosen

    def _gates(self, name: str, norms: Tensor) -> Tensor:
        gates = self.gates[self.mutable_arguments[name].label] = self.thresholds[name](norms, running_mean=True)
        return gates

    def labelled_thresholds(self) -> dict[str, Threshold]:
        return {self.mutable_arguments[name].label: threshold for name, threshold in self.thresholds.items()}


class GatedInsertion(Gated, LayerChoice):
    """Insertion of LightNL under a gate: ``z = x + g · BN(DWConv(y))``, ``g`` open when ``‖W_d‖² > t``,
    the norm taken per channel.

    Source: the paper's equation 8. The gate is on the branch and not on ``W_d``, whose BN would leave its shift behind:
    so ``g = 0`` is exactly ``z = x``.
    """

    def __init__(self, candidates: dict[str, nn.Module], label: str):
        super().__init__(candidates, label=label)
        self.threshold = Threshold((ABSENT, PRESENT))
        self.gates = {}

    @classmethod
    def mutate(cls, module, name, memo, mutate_kwargs):
        """NNI's mutation hook: replaces a ``LayerChoice`` between LightNL and nothing."""
        if type(module) is not LayerChoice or set(module.names) != {ABSENT, PRESENT}:
            return None
        is_insertion = isinstance(module[PRESENT], LightNL) and isinstance(module[ABSENT], nn.Identity)
        return cls(module.candidates, module.label) if is_insertion else None

    def norm(self) -> Tensor:
        """``‖W_d‖² / C`` of the depthwise kernel, `(1,)`: per channel, so one scale of thresholds fits all rows."""
        weight = self[PRESENT].conv.weight
        return weight.square().sum()[None] / len(weight)

    def forward(self, x: Tensor) -> Tensor:
        g = self.threshold(self.norm(), running_mean=False)
        self.gates = {self.label: g}
        lightnl, bn = self[PRESENT], self[PRESENT].bn
        scale, shift = bn.weight * g, bn.bias * g  # g · BN(y), and no pass over y for g
        if isinstance(lightnl, MixedLightNL):
            y = lightnl.convolved(x)
        elif gpu.takes_over(lightnl, x):
            return gpu.block(lightnl, x, scale, shift)
        else:
            y = lightnl.conv(lightnl.product(x))
        return x + functional_call(bn, {'weight': scale, 'bias': shift}, y)

    def labelled_thresholds(self) -> dict[str, Threshold]:
        return {self.label: self.threshold}
