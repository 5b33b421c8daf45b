"""Measured latency as a cost: each row variant is timed on the device at hand, and a network is the sum of its rows."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..lightnl.block import fused
from ..network import InvertedResidual, LightNLSpace, build
from ..read_file import read_json
from ..rules import MOST_RUNS, MOST_THREADS, MOST_TIMED, TEXT, Rule, check_record, number, one_of, whole
from ..skeleton import ABSENT, Row, Sample, Skeleton
from ..skeleton_file import ROW_RULES, SKELETON_RULES
from ..whole_file import write_whole
from .macs import Cost, row_sizes

__all__ = ['LatencyTable', 'Prediction', 'latency_text', 'measure', 'median_ms', 'predict', 'row_variants']

WARMUP_CALLS, RUN_SECONDS, PASSES = 3, 1e-3, 4
"""Calls before the timed runs; how long a run takes at least (a shorter one is the clock's); passes over everything."""

_OF_SKELETON = ('stem_channels', 'stem_stride', 'head_channels', 'classes', 'activation', 'padding')
_MILLISECONDS = number(above=0, most=1e9)

OUTSIDE_RULES = {
    **{key: SKELETON_RULES[key] for key in _OF_SKELETON},
    'last_row_channels': SKELETON_RULES['stem_channels'],
    'last_row_side': SKELETON_RULES['input_size'],
}
"""What a table says of the networks around their rows."""

CONDITION_RULES = {
    'skeleton': SKELETON_RULES['name'],
    'outside': Rule(lambda value: isinstance(value, dict), f'a mapping with the keys {", ".join(OUTSIDE_RULES)}'),
    'device': TEXT,
    'threads': whole(1, MOST_THREADS),
    'clock': one_of('thread', 'wall'),
    'torch': TEXT,
    'input_size': SKELETON_RULES['input_size'],
    'batch': whole(1, MOST_TIMED),
    'runs': whole(1, MOST_RUNS),
}
"""What a table says of how it was measured."""

_TABLE_RULES = {
    **CONDITION_RULES,
    'stem_and_head_ms': _MILLISECONDS,
    'rows': Rule(lambda value: isinstance(value, list) and value, 'a list of at least one row variant'),
}

_VARIANT_RULES = {
    **ROW_RULES,
    'in_channels': ROW_RULES['channels'],
    'input_side': SKELETON_RULES['input_size'],
    'ms': _MILLISECONDS,
}

Variant = tuple[Row, int, int]
"""A row with nothing left to choose, its input channels, and the side of its input."""

Subject = tuple[Callable[[], nn.Module], tuple[int, int, int]]
Progress = Callable[[Iterable], Iterable]


def _variant(row: Row, in_channels: int, size: int) -> Variant:
    """The variant, with what does not show in it set to one value."""
    if row.lightnl == ABSENT:
        row = dataclasses.replace(row, lightnl_ratio=Row.lightnl_ratio, lightnl_stride=Row.lightnl_stride)
    return row, in_channels, size


def row_variants(skeleton: Skeleton, input_size: int | None = None) -> list[Variant]:
    """The distinct variants of a skeleton's rows; an absent row is none."""
    variants: dict[Variant, None] = {}
    for index, (row, size) in enumerate(zip(skeleton.rows, row_sizes(skeleton, input_size), strict=False)):
        for values in itertools.product(*(row.candidates(key) for key in Row.SEARCHED)):
            fixed = dataclasses.replace(row, **dict(zip(Row.SEARCHED, values, strict=True)))
            if fixed.presence != ABSENT:
                variants[_variant(fixed, skeleton.in_channels(index), size)] = None
    return list(variants)


@dataclass(frozen=True)
class LatencyTable:
    """What each row variant took, and under which conditions; a JSON file holds one.

    Attributes:
        conditions: ``skeleton``, ``device``, ``threads``, ``clock``, ``torch``, ``input_size`` (pixels), ``batch``,
            ``runs``, and ``outside``, what the skeleton says of stem, head, activation and padding.
        stem_and_head: milliseconds.
        rows: variant to milliseconds.
    """

    conditions: dict[str, Any]
    stem_and_head: float
    rows: dict[Variant, float]

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        rows = [
            {**dataclasses.asdict(row), 'in_channels': in_channels, 'input_side': size, 'ms': ms}
            for (row, in_channels, size), ms in self.rows.items()
        ]
        table = {**self.conditions, 'stem_and_head_ms': self.stem_and_head, 'rows': rows}
        write_whole(path, (json.dumps(table, indent=1) + '\n').encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """The table that :meth:`save` wrote.

        Raises:
            ValueError: the file cannot be read or is not such a table; the message says where it is not.
        """
        table = read_json(path)
        if not isinstance(table, dict) or not isinstance(table.get('rows'), list):
            raise ValueError(f'{path}: not a latency table; make one with: python -m search_space latency')
        check_record(table, _TABLE_RULES, str(path))
        check_record(table['outside'], OUTSIDE_RULES, f'{path}: outside')
        rows: dict[Variant, float] = {}
        for position, entry in enumerate(table.pop('rows'), start=1):
            where = f'{path}: rows, entry {position}'
            check_record(entry, _VARIANT_RULES, where)
            ms, in_channels, size = (entry.pop(key) for key in ('ms', 'in_channels', 'input_side'))
            if (Row(**entry), in_channels, size) in rows:
                raise ValueError(f'{where} is a row variant that is there already')
            rows[Row(**entry), in_channels, size] = ms
        stem_and_head = table.pop('stem_and_head_ms')
        return cls(table, stem_and_head, rows)

    def cost(self, skeleton: Skeleton) -> Cost:
        """Milliseconds of the skeleton's networks, as the sum of their rows' and of the stem's and head's.

        Raises:
            ValueError: the table was not measured for this skeleton.
        """
        size = self.conditions['input_size']
        outside = _outside(skeleton, size)
        if self.conditions['outside'] != outside:
            other = [key for key in outside if self.conditions['outside'].get(key) != outside[key]]
            raise ValueError(
                f'the latency table was measured for {self.conditions["skeleton"]!r}; {skeleton.name!r} is not like it '
                f'in {", ".join(other)}'
            )
        missing = [variant for variant in row_variants(skeleton, size) if variant not in self.rows]
        if missing:
            raise ValueError(
                f'the latency table was measured for {self.conditions["skeleton"]!r}; it lacks {len(missing)} row '
                f'variants of {skeleton.name!r}'
            )

        def row_cost(row: Row, in_channels: int, size: int) -> float:
            return 0.0 if row.presence == ABSENT else self.rows[_variant(row, in_channels, size)]

        return Cost.of_rows(skeleton, row_cost, self.stem_and_head, size)


def _outside(skeleton: Skeleton, input_size: int) -> dict[str, Any]:
    """What the stem's and the head's latency depends on, and every row's through activation and padding."""
    head_input = {
        'last_row_channels': skeleton.rows[-1].channels,
        'last_row_side': row_sizes(skeleton, input_size)[-1],
    }
    return {key: getattr(skeleton, key) for key in _OF_SKELETON} | head_input


def clock(device: str) -> str:
    """What time is read from: ``thread`` on one CPU thread, whose own busy time no other program adds to; ``wall``."""
    return 'thread' if device == 'cpu' and torch.get_num_threads() == 1 else 'wall'


def run_ms(module: Callable[[Tensor], Any], x: Tensor, runs: int) -> list[float]:
    """The milliseconds of ``module(x)`` in each of ``runs``, after a warm-up; without gradients.

    A run is as many calls as take a millisecond at least. On a GPU the calls of a run follow each other without
    waiting, as the rows of a network do. See :func:`clock` for what is read.
    """
    read = time.thread_time if clock(x.device.type) == 'thread' else time.perf_counter
    wait = torch.cuda.synchronize if x.is_cuda else (lambda: None)

    def seconds_per_call(calls: int) -> float:
        wait()
        started = read()
        for _ in range(calls):
            module(x)
        wait()
        return (read() - started) / calls

    with torch.inference_mode():
        first = seconds_per_call(WARMUP_CALLS)
        calls = max(1, math.ceil(RUN_SECONDS / max(first, 1e-7)))
        return [1e3 * seconds_per_call(calls) for _ in range(runs)]


def median_ms(
    subjects: dict[Any, Subject], runs: int, *, batch: int = 1, device: str = 'cpu', progress: Progress = iter
) -> dict[Any, float]:
    """The median milliseconds of each of ``subjects``, over ``runs``.

    LightNL and the conventional block are fused, LightNL as in an exported network.

    The runs are spread over passes through all subjects, each in a random order of its own: a machine that is slower
    for a while makes no subject slower than another.

    Args:
        subjects: name to what makes the module, and the shape `(C, H, W)` of its input.
        runs: of each.
        batch: images at a time.
        device: ``cpu`` or ``cuda``.
        progress: wraps what is timed, as tqdm does.
    """
    passes, draw = min(PASSES, runs), random.Random(0)
    order = [(name, turn) for turn in range(passes) for name in draw.sample(list(subjects), len(subjects))]
    times: dict[Any, list[float]] = {name: [] for name in subjects}
    for name, turn in progress(order):
        make, shape = subjects[name]
        x = torch.randn(batch, *shape, device=device)
        times[name] += run_ms(fused(make()).to(device), x, (runs + turn) // passes)
    return {name: statistics.median(found) for name, found in times.items()}


def measure(
    skeleton: Skeleton,
    input_size: int | None = None,
    *,
    batch: int = 1,
    runs: int = 20,
    device: str = 'cpu',
    progress: Progress = iter,
) -> LatencyTable:
    """Times every distinct row variant of a skeleton, and its stem and head, with PyTorch's present number of threads.

    A row is timed over and over on its own, so its weights and its input may lie in a cache where in a network they do
    not: see :func:`predict` for what that comes to.

    Args:
        skeleton: the space.
        input_size: side of the square input in pixels; the skeleton's own by default.
        batch, runs, device, progress: as :func:`median_ms`.
    """
    input_size = input_size or skeleton.input_size
    last, side = skeleton.rows[-1].channels, row_sizes(skeleton, input_size)[-1]
    ends = LightNLSpace(skeleton)
    head = nn.Sequential(ends.head, ends.pool, nn.Flatten(), ends.dropout, ends.classifier)
    subjects: dict[Any, Subject] = {
        'stem': (lambda: ends.stem, (3, input_size, input_size)),
        'head': (lambda: head, (last, side, side)),
    }
    for row, in_channels, size in row_variants(skeleton, input_size):
        make = partial(InvertedResidual, row, in_channels, **skeleton.layers())
        subjects[row, in_channels, size] = make, (in_channels, size, size)
    rows = median_ms(subjects, runs, batch=batch, device=device, progress=progress)
    stem_and_head = rows.pop('stem') + rows.pop('head')
    conditions = {
        'skeleton': skeleton.name,
        'outside': _outside(skeleton, input_size),
        'device': _device_name(device),
        'threads': torch.get_num_threads(),
        'clock': clock(device),
        'torch': torch.__version__,
        'input_size': input_size,
        'batch': batch,
        'runs': runs,
    }
    return LatencyTable(conditions, stem_and_head, rows)


def _device_name(device: str) -> str:
    if device != 'cpu':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


@dataclass(frozen=True)
class Prediction:
    """Latencies of whole networks, in milliseconds: as the table predicts them, and as they were measured."""

    predicted: list[float]
    measured: list[float]

    def kendall_tau(self) -> float:
        """Kendall's τ: of all pairs of networks, those in the same order less those in the other, as a fraction."""
        pairs = list(itertools.combinations(zip(self.predicted, self.measured, strict=True), 2))
        agreement = [(p - q) * (m - n) for (p, m), (q, n) in pairs]
        return sum((a > 0) - (a < 0) for a in agreement) / len(pairs)

    def error(self) -> float:
        """The mean of ``|predicted − measured| / measured``."""
        pairs = zip(self.predicted, self.measured, strict=True)
        return statistics.fmean(abs(predicted - measured) / measured for predicted, measured in pairs)

    def ratios(self) -> list[float]:
        """``measured / predicted``; above 1 where a whole network takes longer than the sum of its rows."""
        return [measured / predicted for predicted, measured in zip(self.predicted, self.measured, strict=True)]


def random_samples(skeleton: Skeleton, seed: int) -> Iterator[Sample]:
    """Samples without end, each candidate as likely as another."""
    draw = random.Random(seed)
    while True:
        yield {label: draw.choice(candidates) for label, candidates in skeleton.choices().items()}


def predict(
    skeleton: Skeleton,
    table: LatencyTable,
    networks: int,
    *,
    seed: int = 0,
    device: str = 'cpu',
    progress: Progress = iter,
) -> Prediction:
    """Times random whole networks, under the table's conditions, beside what the table says of them.

    Args:
        skeleton, table: what was measured.
        networks: how many, at least 2.
        seed: which.
        device, progress: as for the table.
    """
    cost, size = table.cost(skeleton), table.conditions['input_size']
    samples = list(itertools.islice(random_samples(skeleton, seed), networks))
    subjects = {index: (partial(build, skeleton, sample), (3, size, size)) for index, sample in enumerate(samples)}
    batch, runs = table.conditions['batch'], table.conditions['runs']
    measured = median_ms(subjects, runs, batch=batch, device=device, progress=progress)
    return Prediction([cost(sample) for sample in samples], list(measured.values()))


def latency_text(table: LatencyTable, cost: Cost, prediction: Prediction) -> str:
    """What was measured, and how well it predicts, for people."""
    of, (low, high), ratios = table.conditions, cost.range(), prediction.ratios()
    lines = [
        f'{of["skeleton"]} at {of["input_size"]}×{of["input_size"]}, batch {of["batch"]}, on {of["device"]}, '
        f'threads: {of["threads"]} ({of["clock"]} clock), torch {of["torch"]}',
        f'{len(table.rows)} row variants timed, the median of {of["runs"]} runs each',
        f'stem and head {table.stem_and_head:.3f} ms; networks from {low:.3f} to {high:.3f} ms',
        f"sum of rows against whole networks, n = {len(ratios)} random ones: Kendall's tau "
        f'{prediction.kendall_tau():.2f}, mean absolute percentage error {100 * prediction.error():.1f}%',
        f'measured / predicted: {statistics.fmean(ratios):.3f} on average, {min(ratios):.3f} to {max(ratios):.3f}',
    ]
    return '\n'.join(lines)
