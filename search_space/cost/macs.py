"""The cost of a network without building it: MACs and parameters, of a sample or of the gates of a search."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..lightnl.macs import lightnl_macs, squeeze_channels
from ..skeleton import ABSENT, PRESENT, Row, Sample, Skeleton, label

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ['Cost', 'CostTable', 'macs', 'params']

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
        total += lightnl_macs(row.channels, out, out, row.lightnl_ratio, row.lightnl_stride)
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


def stem_macs(skeleton: Skeleton, out: int) -> int:
    """MACs of the stem, whose output is `out × out`."""
    return 27 * skeleton.stem_channels * out**2


def stem_params(skeleton: Skeleton) -> int:
    return (27 + 2) * skeleton.stem_channels


def head_macs(skeleton: Skeleton, size: int) -> int:
    """MACs of the head's convolution on a `size × size` input, the global pool and the linear layer."""
    return ((skeleton.rows[-1].channels + 1) * size**2 + skeleton.classes) * skeleton.head_channels


def head_params(skeleton: Skeleton) -> int:
    channels = skeleton.head_channels
    return (skeleton.rows[-1].channels + 2) * channels + (channels + 1) * skeleton.classes


@dataclass
class CostTable:
    """A part of a cost: what each combination of the candidates of a few choices costs.

    Attributes:
        choices: label to candidates.
        costs: values of those choices, in their order, to cost; the last one's value changes fastest.
    """

    choices: dict[str, tuple]
    costs: dict[tuple, float]

    @classmethod
    def of(cls, choices: dict[str, tuple], cost: Callable[..., float]) -> CostTable:
        """The table of ``cost``, a function of one value per choice, in the order of ``choices``."""
        return cls(choices, {values: cost(*values) for values in itertools.product(*choices.values())})

    def __call__(self, sample: Sample) -> float:
        return self.costs[tuple(sample[label] for label in self.choices)]

    def shape(self) -> tuple[int, ...]:
        return tuple(len(candidates) for candidates in self.choices.values())


class _Group:
    """Tables of one shape, as one tensor, so that :meth:`Cost.expected` has few steps."""

    def __init__(self, tables: list[CostTable]):
        import torch

        self.labels = list(zip(*(table.choices for table in tables), strict=True))  # by axis, then by table
        self.costs = torch.tensor([list(table.costs.values()) for table in tables], dtype=torch.float64)

    def expected(self, weights: dict[str, Tensor]) -> Tensor:
        """The cost of the group's tables together, a scalar."""
        import torch

        axes = [torch.stack([weights[name] for name in labels]) for labels in self.labels]
        if axes:  # and there the costs stay: a copy a step would wait for the GPU
            self.costs = self.costs.to(axes[0].device, _precise(axes[0].device))
            axes = [axis.to(self.costs.dtype) for axis in axes]
        cost, tables = self.costs, len(self.costs)
        for axis in axes:
            cost = torch.bmm(axis[:, None], cost.reshape(tables, axis.shape[1], -1))
        return cost.sum()


def _precise(device: torch.device) -> torch.dtype:
    """The type that costs are summed in on a device: Apple's GPUs have no float64."""
    import torch

    return torch.float32 if device.type == 'mps' else torch.float64


class Cost:
    """A cost that is a sum over tables, each of a few choices: in a skeleton's space, one table per row.

    Called with a sample it is that sample's cost, exactly. :meth:`expected` is the same as a differentiable function of
    weights: ``fixed + Σ_tables Σ_candidates (Π weights) · table``; where each choice has one weight of 1, as under hard
    gates, it is the cost of that sample; under probabilities, independent ones, it is the mean over samples.

    Args:
        tables: one for each group of choices that act together.
        fixed: cost of what no choice changes.
    """

    def __init__(self, tables: list[CostTable], fixed: float):
        self.tables, self.fixed = tables, fixed

    @cached_property
    def _groups(self) -> list[_Group]:  # on first use: the cost of a sample needs no torch
        by_shape: dict[tuple, list[CostTable]] = {}
        for table in self.tables:
            by_shape.setdefault(table.shape(), []).append(table)
        return [_Group(alike) for alike in by_shape.values()]

    @classmethod
    def of_rows(cls, skeleton: Skeleton, row_cost: RowCost, fixed: float, input_size: int | None = None) -> Cost:
        """The cost of a skeleton's networks, a sum over its rows.

        Args:
            skeleton: the space.
            row_cost: cost of a row with nothing left to choose.
            fixed: cost of what is outside the rows.
            input_size: side of the square input in pixels; the skeleton's own by default.
        """
        tables, sizes = [], row_sizes(skeleton, input_size)
        for index, row in enumerate(skeleton.rows):
            keys = [key for key in Row.SEARCHED if len(row.candidates(key)) > 1]
            cost = partial(_cost_of_chosen, row_cost, row, keys, skeleton.in_channels(index), sizes[index])
            tables.append(CostTable.of({label(index, key): row.candidates(key) for key in keys}, cost))
        return cls(tables, fixed)

    def choices(self) -> dict[str, tuple]:
        """Label to candidates, of all that the cost depends on."""
        return {name: candidates for table in self.tables for name, candidates in table.choices.items()}

    def __call__(self, sample: Sample) -> float:
        """The cost of ``sample``, whose values are candidates (see :meth:`Skeleton.check_sample`); whole for MACs."""
        return self.fixed + sum(table(sample) for table in self.tables)

    def range(self) -> tuple[float, float]:
        """The smallest and the largest cost of a network of the space."""
        low, high = (sum(reduce(table.costs.values()) for table in self.tables) for reduce in (min, max))
        return self.fixed + low, self.fixed + high

    def largest(self) -> Sample:
        """A network of the largest cost; only choices that the cost depends on are in it."""
        sample: Sample = {}
        for table in self.tables:
            sample.update(zip(table.choices, max(table.costs, key=table.costs.get), strict=True))
        return sample

    def expected(self, weights: dict[str, Tensor]) -> Tensor:
        """The cost as a function of weights, differentiable in them; a scalar, of float64 where the device has it.

        Args:
            weights: label to the weights of its candidates, `(candidates,)`, in the space's order.
        """
        return sum(group.expected(weights) for group in self._groups) + self.fixed


def _cost_of_chosen(row_cost: RowCost, row: Row, keys: list[str], in_channels: int, size: int, *values) -> float:
    chosen = {key: row.candidates(key)[0] for key in Row.SEARCHED} | dict(zip(keys, values, strict=True))
    return row_cost(dataclasses.replace(row, **chosen), in_channels, size)


def row_sizes(skeleton: Skeleton, input_size: int | None = None) -> list[int]:
    """The side of each row's input, then that of the head's."""
    sizes = [_downsampled(input_size or skeleton.input_size, skeleton.stem_stride)]
    for row in skeleton.rows:
        sizes.append(_downsampled(sizes[-1], row.stride))
    return sizes


def macs(skeleton: Skeleton, input_size: int | None = None) -> Cost:
    """Multiply-accumulates: convolutions, linear, LightNL's products, squeeze-excite with its pooling, global pool.

    Not counted: BN, activations, sums. These are the counting rules under which the paper's networks come out at the
    paper's FLOPs.
    """
    sizes = row_sizes(skeleton, input_size)
    return Cost.of_rows(skeleton, row_macs, stem_macs(skeleton, sizes[0]) + head_macs(skeleton, sizes[-1]), input_size)


def params(skeleton: Skeleton) -> Cost:
    """Trainable parameters."""
    return Cost.of_rows(skeleton, row_params, stem_params(skeleton) + head_params(skeleton))
