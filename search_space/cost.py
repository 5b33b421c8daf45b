"""The cost of a network without building it: MACs and parameters, of a sample or of the gates of a search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .lightnl import product_macs
from .network import squeeze_channels
from .skeleton import ABSENT, PRESENT, Row, Sample, Skeleton, label

__all__ = ['Cost', 'macs', 'params']

RowCost = Callable[[Row, int, int], float]
"""Cost of a row with nothing left to choose, given its input channels and the side of its input."""


def _downsampled(size: int, stride: int) -> int:
    return math.ceil(size / stride)


def row_macs(row: Row, in_channels: int, size: int) -> int:
    """MACs of a row on a `size × size` input: its convolutions, squeeze-excite with its pooling, LightNL."""
    if row.presence == ABSENT:
        return 0
    out = _downsampled(size, row.stride)
    hidden, squeezed = in_channels * row.expansion, squeeze_channels(in_channels, row.se)
    total = in_channels * hidden * size**2 if row.expansion > 1 else 0
    total += hidden * row.kernel**2 * out**2
    if squeezed:
        total += hidden * out**2 + 2 * hidden * squeezed
    total += hidden * row.channels * out**2
    if row.lightnl == PRESENT:
        total += min(product_macs(row.channels, out, out, row.lightnl_ratio, row.lightnl_stride))
        total += 9 * row.channels * out**2
    return total


def row_params(row: Row, in_channels: int, size: int) -> int:
    """Parameters of a row: weights, biases, and BN's scale and shift."""
    if row.presence == ABSENT:
        return 0
    hidden, squeezed = in_channels * row.expansion, squeeze_channels(in_channels, row.se)
    total = (in_channels + 2) * hidden if row.expansion > 1 else 0
    total += (row.kernel**2 + 2) * hidden
    if squeezed:
        total += 2 * hidden * squeezed + squeezed + hidden
    total += (hidden + 2) * row.channels
    if row.lightnl == PRESENT:
        total += (9 + 2) * row.channels
    return total


def _outside_macs(skeleton: Skeleton, stem_out: int, head_in: int) -> int:
    """MACs of the stem, the head's convolution, the global pool and the linear layer."""
    head = (skeleton.rows[-1].channels + 1) * skeleton.head_channels * head_in**2
    return 27 * skeleton.stem_channels * stem_out**2 + head + skeleton.head_channels * skeleton.classes


def _outside_params(skeleton: Skeleton, stem_out: int, head_in: int) -> int:
    head = (skeleton.rows[-1].channels + 2) * skeleton.head_channels
    return (27 + 2) * skeleton.stem_channels + head + (skeleton.head_channels + 1) * skeleton.classes


@dataclass
class _RowTable:
    """Costs of one row: the labels of its choices, and the cost of each combination of their candidates."""

    labels: list[str]
    costs: dict[tuple, float]


@dataclass
class _RowGroup:
    """Rows with as many candidates for the same choices, as one table, so that :meth:`Cost.expected` has few steps.

    Attributes:
        labels: by choice, then by row.
        table: float64, `(rows, combinations of candidates)`, the last choice's changing fastest.
    """

    labels: list[list[str]]
    table: Tensor

    def expected(self, weights: dict[str, Tensor]) -> Tensor:
        """The cost of the group's rows together, a scalar."""
        rows = len(self.table)
        cost = self.table
        for labels in self.labels:
            axis = torch.stack([weights[name] for name in labels]).to(torch.float64)
            cost = torch.bmm(axis[:, None], cost.to(axis.device).reshape(rows, axis.shape[1], -1))
        return cost.sum()


class Cost:
    """A cost that is a sum over rows, each row's share a table over its own choices.

    Called with a sample it is that sample's cost, exactly. :meth:`expected` is the same as a differentiable function of
    weights: ``fixed + Σ_rows Σ_candidates (Π weights) · table``; where each choice has one weight of 1, as under hard
    gates, it is the cost of that sample; under probabilities, independent ones, it is the mean over samples.

    Args:
        skeleton: the space.
        row_cost: cost of a row with nothing left to choose.
        fixed: cost of what is outside the rows.
        input_size: side of the square input in pixels; the skeleton's own by default.
    """

    def __init__(self, skeleton: Skeleton, row_cost: RowCost, fixed: float, input_size: int | None = None):
        self.skeleton, self.fixed = skeleton, fixed
        self._rows: list[_RowTable] = []
        groups: dict[tuple, list[_RowTable]] = {}
        size = _downsampled(input_size or skeleton.input_size, skeleton.stem_stride)
        for index, row in enumerate(skeleton.rows):
            keys = [key for key in Row.SEARCHED if len(row.candidates(key)) > 1]
            axes = [row.candidates(key) for key in keys]
            costs = {
                values: row_cost(
                    _fixed_row(row, dict(zip(keys, values, strict=True))), skeleton.in_channels(index), size
                )
                for values in itertools.product(*axes)
            }
            self._rows.append(_RowTable([label(index, key) for key in keys], costs))
            groups.setdefault(tuple(zip(keys, map(len, axes), strict=True)), []).append(self._rows[-1])
            size = _downsampled(size, row.stride)
        self._groups = [
            _RowGroup(
                [list(labels) for labels in zip(*(row.labels for row in rows), strict=True)],
                torch.tensor([list(row.costs.values()) for row in rows], dtype=torch.float64),
            )
            for rows in groups.values()
        ]

    def __call__(self, sample: Sample) -> float:
        """The cost of ``sample``, whose values are candidates (see :meth:`Skeleton.check_sample`); whole for MACs."""
        return self.fixed + sum(row.costs[tuple(sample[name] for name in row.labels)] for row in self._rows)

    def range(self) -> tuple[float, float]:
        """The smallest and the largest cost of a network of the space."""
        low, high = (sum(reduce(row.costs.values()) for row in self._rows) for reduce in (min, max))
        return self.fixed + low, self.fixed + high

    def expected(self, weights: dict[str, Tensor]) -> Tensor:
        """The cost as a function of weights; a float64 scalar, differentiable in them.

        Args:
            weights: label to the weights of its candidates, `(candidates,)`, in the skeleton's order.
        """
        return sum(group.expected(weights) for group in self._groups) + self.fixed


def _fixed_row(row: Row, chosen: dict) -> Row:
    values = {key: row.candidates(key)[0] for key in Row.SEARCHED}
    return Row(channels=row.channels, stride=row.stride, **{**values, **chosen})


def _body_output(skeleton: Skeleton, input_size: int | None) -> tuple[int, int]:
    stem_out = _downsampled(input_size or skeleton.input_size, skeleton.stem_stride)
    head_in = stem_out
    for row in skeleton.rows:
        head_in = _downsampled(head_in, row.stride)
    return stem_out, head_in


def macs(skeleton: Skeleton, input_size: int | None = None) -> Cost:
    """Multiply-accumulates: convolutions, linear, LightNL's products, squeeze-excite with its pooling, global pool.

    Not counted: BN, activations, sums. These are the counting rules under which the paper's networks come out at the
    paper's FLOPs.
    """
    return Cost(skeleton, row_macs, _outside_macs(skeleton, *_body_output(skeleton, input_size)), input_size)


def params(skeleton: Skeleton) -> Cost:
    """Trainable parameters."""
    return Cost(skeleton, row_params, _outside_params(skeleton, *_body_output(skeleton, None)))
