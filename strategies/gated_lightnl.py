"""LightNL under gates: whether it is inserted, with how many channels, at which spatial stride."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn

from search_space import ABSENT, PRESENT, LightNL
from search_space.lightnl import compact_channels
from search_space.mixed import MixedLightNL, mixed_contexts, mixed_product

from .gate import Threshold, nested_weights
from .gated import Gated

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
    """``‖ΔA‖² / ‖A‖²`` of each step to a larger ratio, and of each step to a finer stride; the mean over the batch.

    ``A = x_c x_scᵀ / P`` is the affinity at the largest ratio and the finest stride. Its part between the channels i to
    j has ``‖ΔA‖²_F = ⟨x_Δᵀ x_Δ, x_sΔᵀ x_sΔ⟩ / P²``: Gram matrices, `(j − i)²`, no `P × p` matrix is formed.

    Args:
        contexts: ``x_scᵀ x_s / P`` `(N, k, C)`, by stride, at the largest k.
        all_positions: ``x_cᵀ x_c / P`` `(N, k, k)` over all positions.
        channels: k of each ratio, ascending.
        strides: descending.
    """
    k = channels[-1]
    by_stride = [contexts[stride][:, :, :k] for stride in strides]
    finest = by_stride[-1]
    whole = (all_positions * finest).sum((1, 2)).mean().detach().clamp_min(torch.finfo(finest.dtype).tiny)
    wider = [(all_positions[:, i:j, i:j] * finest[:, i:j, i:j]).sum((1, 2)).mean() for i, j in pairwise(channels)]
    finer = [(all_positions * (b - a)).sum((1, 2)).mean() for a, b in pairwise(by_stride)]
    steps = [torch.stack(s) / whole if s else finest.new_zeros(0) for s in (wider, finer)]
    return steps[0], steps[1]


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
        self.weights = {}

    @classmethod
    def mutate(cls, module, name, memo, mutate_kwargs):
        """NNI's mutation hook: replaces a LightNL that has choices."""
        if isinstance(module, cls.bound_type) and module.mutables:
            return cls(dict(module.trace_kwargs))
        return None

    def branch(self, x: Tensor) -> Tensor:
        ratios = self.nested.get('ratio', [self.ratio])
        strides = self.nested.get('stride', [self.stride])
        channels = [compact_channels(x.shape[1], ratio) for ratio in ratios]
        contexts = mixed_contexts(x, ratios[-1], strides)
        k = channels[-1]
        if 1 in contexts:
            all_positions = contexts[1][:, :, :k]
        else:
            x_c = x[:, :k].flatten(2)
            all_positions = torch.bmm(x_c / x_c.shape[2], x_c.transpose(1, 2))
        steps = dict(zip(('ratio', 'stride'), affinity_steps(contexts, all_positions, channels, strides), strict=True))
        weights = {'ratio': {ratios[0]: 1.0}, 'stride': {strides[0]: 1.0}}
        for name, threshold in self.thresholds.items():
            nested = nested_weights(threshold(steps[name], running_mean=True))
            weights[name] = dict(zip(self.nested[name], nested, strict=True))
            mutable = self.mutable_arguments[name]
            self.weights[mutable.label] = torch.stack([weights[name][candidate] for candidate in mutable.values])
        return self.bn(self.conv(mixed_product(x, contexts, weights['ratio'], weights['stride'])))

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
        self.weights = {}

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
        weights = dict(zip((ABSENT, PRESENT), nested_weights(g), strict=True))
        self.weights = {self.label: torch.stack([weights[name] for name in self.names])}
        return x + g * self[PRESENT].branch(x)

    def labelled_thresholds(self) -> dict[str, Threshold]:
        return {self.label: self.threshold}
