"""A row under gates: whether it is there, its kernel, its expansion and its squeeze-excite."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_space import ABSENT, PRESENT
from search_space.lightnl.macs import squeeze_channels
from search_space.network import InvertedResidual, row_choice
from search_space.nni_nas import LayerChoice, recursive_freeze

from .gate import Threshold, behind_gates, nested_mask
from .gated import Gated

__all__ = ['GatedRow', 'inherit_weight', 'kernel_rings', 'sliced']

KEYS = ('presence', 'kernel', 'expansion', 'se')
"""The choices of a row that are gated here; LightNL's are gated within it."""


def kernel_rings(kernels: list[int]) -> Tensor:
    """Which of nested, centred kernels each place of the largest first belongs to, `(k, k)`: 0 in the smallest.

    Source: Single-Path NAS (arXiv:1904.02877), section 3.1: the ring that makes a 3×3 kernel a 5×5 one.
    """
    distance = (torch.arange(max(kernels)) - max(kernels) // 2).abs()
    distance = torch.maximum(distance[:, None], distance[None, :])
    return sum((distance > kernel // 2).long() for kernel in kernels)


def sliced(weight: Tensor, shape: torch.Size) -> Tensor:
    """What a weight of ``shape`` inherits of a larger one: the leading channels, the centre of the kernels."""
    corner = [0 if dim < 2 else (weight.shape[dim] - size) // 2 for dim, size in enumerate(shape)]
    return weight[tuple(slice(start, start + size) for start, size in zip(corner, shape))]


def inherit_weight(weight: Tensor, other: Tensor) -> int:
    """Gives ``weight`` what it has in common with ``other``, of other sizes: :func:`sliced` in both directions.

    Returns:
        How many of its elements that is.
    """
    shape = torch.Size(map(min, weight.shape, other.shape))
    sliced(weight, shape).copy_(sliced(other, shape))
    return shape.numel()


class GatedRow(Gated):
    """A row of the largest candidates, the smaller ones nested in it (the paper's section 3.2; Single-Path NAS).

    With ``c_j = g_1 · … · g_j`` of the gates of each choice::

        kernel      W ← W · c_j on the ring that kernel j adds to the one before it; gate: ‖W_ring‖² > t
        expansion   h ← h · c_j on the hidden channels that expansion j adds; gate: ‖W_depthwise‖² of those > t
        se          hidden channels of ratio j times c_j, and the identity in place of ratio 0; gate: ‖W_reduce‖² > t
        presence    z = x + g · f(x), f being the row without its residual sum; gate: ‖W_project‖² > t

    Norms are per channel: of a depthwise kernel, of a hidden channel, of an output channel. A closed gate leaves
    exactly the smaller row: channels are gated behind their BN and activation, which would turn zeros into a shift.
    What reads ``h`` is linear, the projection and the mean of squeeze-excite: there ``c_j`` multiplies, where it costs
    nothing.

    Args:
        source: the row as the model space has it.
        searched: which of :data:`KEYS` have more than one candidate.
    """

    def __init__(self, source: InvertedResidual, searched: list[str]):
        super().__init__()
        self.table, self.in_channels, self.layers = source.row, source.in_channels, source.layers
        self.mutable_of = {key: self.add_mutable(row_choice(source.name, key, self.table)) for key in searched}
        self.nested = {key: sorted(self.table.candidates(key)) for key in searched}  # 'absent' sorts before 'present'
        self.thresholds = nn.ModuleDict({key: Threshold(c) for key, c in self.nested.items()})
        self.row = self._fixed({key: max(self.table.candidates(key)) for key in KEYS})
        self.row.lightnl = source.lightnl
        for key, behind in self._behind_gates().items():
            self.register_buffer(f'{key}_behind', behind, persistent=False)
        self.gates = {}

    @classmethod
    def mutate(cls, module, name, memo, mutate_kwargs):
        """NNI's mutation hook: replaces a row that is searched in any of :data:`KEYS`."""
        source = module
        if type(module) is LayerChoice and set(module.names) == {ABSENT, PRESENT}:
            source = module[PRESENT]
        if not isinstance(source, InvertedResidual):
            return None
        searched = [key for key in KEYS if len(source.row.candidates(key)) > 1]
        return cls(source, searched) if searched else None

    def _fixed(self, chosen: dict) -> InvertedResidual:
        """The row with the chosen candidates and without LightNL, freshly initialised."""
        row = dataclasses.replace(self.table, lightnl=ABSENT, **chosen)
        return InvertedResidual(row, self.in_channels, **self.layers)

    def norms(self, key: str) -> Tensor:
        """The norm of what each candidate adds to the one before it, `(candidates - 1,)`."""
        body = self.row.body
        if key == 'presence':
            return body.project.weight.square().sum()[None] / len(body.project.weight)
        if key == 'kernel':
            places = body.depthwise.weight.square().sum((0, 1)) / len(body.depthwise.weight)
            outward = (places * self.kernel_behind).sum((1, 2))  # of each ring and all outside it
            return torch.cat([outward[:-1] - outward[1:], outward[-1:]])
        weight, sizes = self._channels(key)
        return torch.stack([weight[a:b].square().sum() / (b - a) for a, b in pairwise(sizes)])

    def _channels(self, key: str) -> tuple[Tensor, list[int]]:
        """The weight whose rows are the channels of ``key``, and how many each candidate has."""
        if key == 'expansion':
            return self.row.body.depthwise.weight, [self.in_channels * e for e in self.nested[key]]
        return self.row.body.se.reduce.weight, [squeeze_channels(self.in_channels, r) for r in self.nested[key]]

    def _behind_gates(self) -> dict[str, Tensor]:
        """Which places of the kernel, and which channels, are behind which gate; see :func:`nested_mask`."""
        found = {}
        if 'kernel' in self.nested:
            rings = kernel_rings(self.nested['kernel'])
            found['kernel'] = torch.stack([rings >= j for j in range(1, len(self.nested['kernel']))])
        for key in [key for key in ('expansion', 'se') if key in self.nested]:
            sizes = self._channels(key)[1]
            behind = behind_gates(sizes)
            if sizes[0] == 0:  # whether squeeze-excite is there is the first gate's, how wide it is the others'
                behind[0] = behind[1] if len(behind) > 1 else False
            found[key] = behind[..., None, None]
        return found

    def _masks(self) -> dict[str, Tensor]:
        """What each choice multiplies its places, channels or row by."""
        masks = {}
        for key, threshold in self.thresholds.items():
            gates = self.gates[self.mutable_of[key].label] = threshold(self.norms(key), running_mean=False)
            masks[key] = gates if key == 'presence' else nested_mask(gates, getattr(self, f'{key}_behind'))
        return masks

    def forward(self, x: Tensor) -> Tensor:
        masks, body = self._masks(), self.row.body
        h = body.expand_act(body.expand_bn(body.expand(x))) if hasattr(body, 'expand') else x
        h = body.pad(h) if hasattr(body, 'pad') else h
        conv = body.depthwise
        weight = conv.weight * masks['kernel'] if 'kernel' in masks else conv.weight
        h = functional.conv2d(h, weight, None, conv.stride, conv.padding, groups=conv.groups)
        h = body.depthwise_act(body.depthwise_bn(h))
        mean = h.mean((2, 3), keepdim=True) if hasattr(body, 'se') else None
        weight = body.project.weight
        if 'expansion' in masks:
            weight = weight * masks['expansion']
            mean = mean * masks['expansion'] if mean is not None else None
        if mean is not None:
            h = h * (self._squeeze_excite(mean, masks['se']) if 'se' in masks else body.se.scale(mean))
        z = self.row.lightnl(body.project_bn(functional.conv2d(h, weight)))
        if 'presence' in masks:
            return x + masks['presence'].to(z.dtype) * z
        return x + z if self.row.residual else z

    def _squeeze_excite(self, mean: Tensor, mask: Tensor) -> Tensor:
        """What the hidden channels are multiplied by, given their mean; both are `(N, C, 1, 1)`."""
        se = self.row.body.se
        scale = torch.sigmoid(se.expand(functional.silu(se.reduce(mean)) * mask))
        if self.nested['se'][0]:
            return scale
        g = self.gates[self.mutable_of['se'].label][0]
        return (1 - g) + g * scale

    def freeze(self, sample) -> nn.Module:
        """The row of ``sample``, with the weights that are its own here."""
        self.validate(sample)
        chosen = {key: self.table.candidates(key)[0] for key in KEYS}
        chosen |= {key: sample[mutable.label] for key, mutable in self.mutable_of.items()}
        if chosen['presence'] == ABSENT:
            return nn.Identity()
        row, own = self._fixed(chosen), self.row.state_dict()
        row.load_state_dict({name: sliced(own[name], value.shape) for name, value in row.state_dict().items()})
        row.lightnl = recursive_freeze(self.row.lightnl, sample)[0]
        return row.train(self.training)

    def labelled_thresholds(self) -> dict[str, Threshold]:
        return {self.mutable_of[key].label: threshold for key, threshold in self.thresholds.items()}
