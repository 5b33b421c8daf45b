"""A row under gates: whether it is there, its kernel, its expansion and its squeeze-excite."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.nn.pytorch.base import recursive_freeze
from torch import Tensor, nn
from torch.nn import functional

from search_space import ABSENT, PRESENT
from search_space.block_cost import squeeze_channels
from search_space.network import InvertedResidual, row_choice
from search_space.skeleton import label

from .gate import Threshold, nested_weights, reached
from .gated import Gated

__all__ = ['GatedRow', 'kernel_rings', 'sliced']

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


def _parts(c: Tensor, sizes: list[int]) -> Tensor:
    """``c_j`` for each channel that nested prefix j adds to the one before it, `(max size,)`."""
    added = [b - a for a, b in pairwise([0, *sizes])]
    return torch.cat([c_j.expand(size) for c_j, size in zip(c, added)])


class GatedRow(Gated):
    """A row of the largest candidates, the smaller ones nested in it (the paper's section 3.2; Single-Path NAS).

    With ``c_j``, see :func:`reached`, of the gates of each choice::

        kernel      W ← W · c_j on the ring that kernel j adds to the one before it; gate: ‖W_ring‖² > t
        expansion   h ← h · c_j on the hidden channels that expansion j adds; gate: ‖W_depthwise‖² of those > t
        se          hidden channels of ratio j times c_j, and the identity in place of ratio 0; gate: ‖W_reduce‖² > t
        presence    z = x + g · f(x), f being the row without its residual sum; gate: ‖W_project‖² > t

    Norms are per channel: of a depthwise kernel, of a hidden channel, of an output channel. A closed gate leaves
    exactly the smaller row: channels are gated behind their BN and activation, which would turn zeros into a shift.

    Args:
        source: the row as the model space has it.
        searched: which of :data:`KEYS` have more than one candidate.
    """

    def __init__(self, source: InvertedResidual, searched: list[str]):
        super().__init__()
        self.skeleton, self.index = source.skeleton, source.index
        table = self.skeleton.rows[self.index]
        self.mutable_of = {key: self.add_mutable(row_choice(self.index, key, table)) for key in searched}
        self.nested = {key: sorted(table.candidates(key)) for key in searched}  # 'absent' sorts before 'present'
        self.thresholds = nn.ModuleDict({key: Threshold(len(c) - 1) for key, c in self.nested.items()})
        self.row = self._fixed({key: max(table.candidates(key)) for key in KEYS})
        self.row.lightnl = source.lightnl
        self.in_channels = self.skeleton.in_channels(self.index)
        if 'kernel' in searched:
            self.register_buffer('rings', kernel_rings(self.nested['kernel']), persistent=False)
        self.weights = {}

    @classmethod
    def mutate(cls, module, name, memo, mutate_kwargs):
        """NNI's mutation hook: replaces a row that is searched in any of :data:`KEYS`."""
        source = module
        if type(module) is LayerChoice and set(module.names) == {ABSENT, PRESENT}:
            source = module[PRESENT]
        if not isinstance(source, InvertedResidual):
            return None
        table = source.skeleton.rows[source.index]
        searched = [key for key in KEYS if len(table.candidates(key)) > 1]
        return cls(source, searched) if searched else None

    def _fixed(self, chosen: dict) -> InvertedResidual:
        """The row with the chosen candidates and without LightNL, freshly initialised."""
        rows = list(self.skeleton.rows)
        rows[self.index] = dataclasses.replace(rows[self.index], lightnl=ABSENT, **chosen)
        return InvertedResidual(dataclasses.replace(self.skeleton, rows=tuple(rows)), self.index)

    def norms(self, key: str) -> Tensor:
        """The norm of what each candidate adds to the one before it, `(candidates - 1,)`."""
        body, candidates = self.row.body, self.nested[key]
        if key == 'presence':
            return body.project.weight.square().sum()[None] / len(body.project.weight)
        if key == 'kernel':
            places = body.depthwise.weight.square().sum((0, 1)) / len(body.depthwise.weight)
            return torch.stack([places[self.rings == ring].sum() for ring in range(1, len(candidates))])
        weight, sizes = self._channels(key)
        return torch.stack([weight[a:b].square().sum() / (b - a) for a, b in pairwise(sizes)])

    def _channels(self, key: str) -> tuple[Tensor, list[int]]:
        """The weight whose rows are the channels of ``key``, and how many each candidate has."""
        if key == 'expansion':
            return self.row.body.depthwise.weight, [self.in_channels * e for e in self.nested[key]]
        return self.row.body.se.reduce.weight, [squeeze_channels(self.in_channels, r) for r in self.nested[key]]

    def _reached(self) -> dict[str, Tensor]:
        c = {}
        for key, threshold in self.thresholds.items():
            gates = threshold(self.norms(key), running_mean=False)
            c[key], mutable = reached(gates), self.mutable_of[key]
            weights = dict(zip(self.nested[key], nested_weights(gates), strict=True))
            self.weights[mutable.label] = torch.stack([weights[candidate] for candidate in mutable.values])
        return c

    def forward(self, x: Tensor) -> Tensor:
        c, body = self._reached(), self.row.body
        h = body.expand_act(body.expand_bn(body.expand(x))) if hasattr(body, 'expand') else x
        conv = body.depthwise
        weight = conv.weight * c['kernel'][self.rings] if 'kernel' in c else conv.weight
        h = functional.conv2d(h, weight, None, conv.stride, conv.padding, groups=conv.groups)
        h = body.depthwise_act(body.depthwise_bn(h))
        if 'expansion' in c:
            h = h * _parts(c['expansion'], self._channels('expansion')[1])[:, None, None]
        if 'se' in c:
            h = h * self._squeeze_excite(h, c['se'])
        elif hasattr(body, 'se'):
            h = body.se(h)
        z = self.row.lightnl(body.project_bn(body.project(h)))
        if 'presence' in c:
            return x + c['presence'][1] * z
        return x + z if self.row.residual else z

    def _squeeze_excite(self, h: Tensor, c: Tensor) -> Tensor:
        """What the hidden channels are multiplied by, `(N, C, 1, 1)`."""
        se, sizes = self.row.body.se, self._channels('se')[1]
        may_be_absent = sizes[0] == 0
        if may_be_absent:  # whether squeeze-excite is there is the first gate's, how wide it is the others'
            sizes, within = sizes[1:], torch.cat([torch.ones_like(c[:1]), c[2:]])
        else:
            within = c
        squeezed = functional.silu(se.reduce(h.mean((2, 3), keepdim=True))) * _parts(within, sizes)[:, None, None]
        scale = torch.sigmoid(se.expand(squeezed))
        return (1 - c[1]) + c[1] * scale if may_be_absent else scale

    def freeze(self, sample) -> nn.Module:
        """The row of ``sample``, with the weights that are its own here."""
        self.validate(sample)
        table = self.skeleton.rows[self.index]
        chosen = {key: sample.get(label(self.index, key), table.candidates(key)[0]) for key in KEYS}
        if chosen['presence'] == ABSENT:
            return nn.Identity()
        row, own = self._fixed(chosen), self.row.state_dict()
        row.load_state_dict({name: sliced(own[name], value.shape) for name, value in row.state_dict().items()})
        row.lightnl = recursive_freeze(self.row.lightnl, sample)[0]
        return row.train(self.training)

    def labelled_thresholds(self) -> dict[str, Threshold]:
        return {self.mutable_of[key].label: threshold for key, threshold in self.thresholds.items()}

    def export(self, memo):
        """Label to the candidate that the gates choose now."""
        return {
            self.mutable_of[key].label: self.nested[key][int(threshold.is_open().int().cumprod(0).sum())]
            for key, threshold in self.thresholds.items()
        }
