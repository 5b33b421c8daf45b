"""A skeleton: the table of rows that a model space, and a network found in it, is written as."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from .rules import one_line, shown

__all__ = [
    'ABSENT',
    'PRESENT',
    'SAME',
    'SYMMETRIC',
    'Row',
    'Skeleton',
    'candidates_of',
    'canonical_sample',
    'closest',
    'idle_choices',
    'nni_search_space',
    'visible',
]

PRESENT, ABSENT = 'present', 'absent'
"""The candidates of ``lightnl`` (is the block inserted?) and of ``presence`` (is the row there?)."""

SYMMETRIC, SAME = 'symmetric', 'same'
"""How convolutions of stride 2 are padded: as in PyTorch, or as in TensorFlow (:class:`.padding.PadSame`)."""

LAYER_KEYS = ('activation', 'bn_eps', 'bn_momentum', 'lightnl_scale', 'padding')
"""What a skeleton says of the layers of all its rows."""

Sample = dict[str, Any]
"""A network of the space: label, such as ``row07/lightnl``, to the chosen candidate."""


def closest(name: str, names) -> str:
    """The hint that an error about an unknown ``name`` ends with: the nearest valid name, or else what there is."""
    names = [str(n) for n in names]
    near = difflib.get_close_matches(one_line(name, 100), names, n=1, cutoff=0.5)
    if near:
        return f'did you mean {near[0]!r}?'
    shown = names if len(names) <= 10 else [*names[:3], '...', names[-1]]
    return f'known: {", ".join(shown)}'


@dataclass(frozen=True)
class Row:
    """One row of the body: an inverted residual with an optional LightNL block on its projected features.

    Each of the attributes in :attr:`SEARCHED` holds one value (the row is fixed in it) or a tuple of candidates.

    Attributes:
        channels: output channels.
        stride: of the depthwise convolution, 1 or 2.
        presence: ``present`` or ``absent``; only a row that keeps its shape may be absent.
        lightnl: ``present`` or ``absent``: is LightNL inserted?
        lightnl_ratio: LightNL's channel ratio, in (0, 1].
        lightnl_stride: LightNL's spatial stride, at least 1.
        kernel: size of the depthwise kernel, odd.
        expansion: hidden channels over input channels; at 1 there is no expansion convolution.
        se: squeeze-excite's hidden channels over the row's input channels; 0 is no squeeze-excite.
    """

    SEARCHED = ('presence', 'lightnl', 'lightnl_ratio', 'lightnl_stride', 'kernel', 'expansion', 'se')

    channels: int
    stride: int = 1
    presence: str | tuple[str, ...] = PRESENT
    lightnl: str | tuple[str, ...] = ABSENT
    lightnl_ratio: float | tuple[float, ...] = 0.25
    lightnl_stride: int | tuple[int, ...] = 1
    kernel: int | tuple[int, ...] = 3
    expansion: int | tuple[int, ...] = 3
    se: float | tuple[float, ...] = 0.0

    def candidates(self, key: str) -> tuple:
        """The candidates of a searched attribute; a tuple of one where the row is fixed in it."""
        value = getattr(self, key)
        return value if isinstance(value, tuple) else (value,)

    def keeps_shape(self, in_channels: int) -> bool:
        return self.stride == 1 and self.channels == in_channels


@dataclass(frozen=True)
class Skeleton:
    """A stem, a table of rows and a head.

    The stem is a 3×3 convolution + BN + activation; the head a 1×1 convolution + BN + activation, the global average
    pool, dropout and a linear layer.

    Attributes:
        name: what it is called in samples, YAML and data frames.
        input_size: side of the square input, in pixels.
        classes: outputs of the linear layer.
        stem_channels, stem_stride, head_channels: of those two convolutions.
        rows: the body; ``rows[0]`` is row 1, its labels start with ``row01/``.
        activation: ``swish`` or ``relu6``.
        dropout: probability before the linear layer.
        bn_eps, bn_momentum: of every BN, the momentum in PyTorch's sense.
        lightnl_scale: what the scale of every LightNL's BN starts at: 0, and a fresh block is the identity, as in the
            paper; from 1 short trainings learn to use it more often (``benchmarks/quality/learning.py``).
        padding: of the convolutions of stride 2: ``symmetric``, ``k // 2`` on each side, or ``same``, as in TensorFlow.
            It changes neither shapes nor MACs.
    """

    name: str
    input_size: int
    classes: int
    stem_channels: int
    stem_stride: int
    head_channels: int
    rows: tuple[Row, ...]
    activation: str = 'swish'
    dropout: float = 0.0
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    lightnl_scale: float = 0.0
    padding: str = SYMMETRIC

    def in_channels(self, index: int) -> int:
        """Input channels of ``rows[index]``."""
        return self.rows[index - 1].channels if index else self.stem_channels

    def layers(self) -> dict[str, Any]:
        """What all rows have in common: the keyword arguments of :class:`.network.InvertedResidual`."""
        return {key: getattr(self, key) for key in LAYER_KEYS}

    def choices(self) -> dict[str, tuple]:
        """Label to candidates, of every attribute with more than one."""
        return dict(self._choices)

    @cached_property
    def _choices(self) -> dict[str, tuple]:  # once: a tuner asks for them at every trial
        return {
            label(index, key): row.candidates(key)
            for index, row in enumerate(self.rows)
            for key in Row.SEARCHED
            if len(row.candidates(key)) > 1
        }

    def size(self) -> int:
        """The number of samples (several are the same network: a ratio says nothing where LightNL is absent)."""
        return math.prod(len(candidates) for candidates in self.choices().values())

    def check_sample(self, sample: Sample) -> Sample:
        """``sample`` in the order of :meth:`choices`, its values the candidates themselves (1 for '1' or 1.0).

        Raises:
            ValueError: a label is unknown or missing, or a value is not among the candidates.
        """
        choices = self.choices()
        for name in sample:
            if name not in choices:
                raise ValueError(f'unknown label {shown(name)} for skeleton {self.name!r}; {closest(name, choices)}')
        checked = {}
        for name, candidates in choices.items():
            if name not in sample:
                raise ValueError(f'no value for {name!r}; it takes one of {_listed(candidates)}')
            chosen = next((c for c in candidates if same_value(c, sample[name])), None)
            if chosen is None:
                raise ValueError(f'{name}: {shown(sample[name])} is not among its candidates {_listed(candidates)}')
            checked[name] = chosen
        return checked

    def fix(self, sample: Sample) -> Skeleton:
        """The network of ``sample``, as a skeleton with nothing left to choose.

        Raises:
            ValueError: as :meth:`check_sample`.
        """
        sample = self.check_sample(sample)
        rows = (
            dataclasses.replace(row, **{k: sample.get(label(index, k), row.candidates(k)[0]) for k in Row.SEARCHED})
            for index, row in enumerate(self.rows)
        )
        return dataclasses.replace(self, rows=tuple(rows))

    def sample_of(self, network: Skeleton) -> Sample:
        """The sample of ``network``, a skeleton of the same rows in which nothing is left to choose (:meth:`fix`)."""
        fixed = {label(i, key): row.candidates(key)[0] for i, row in enumerate(network.rows) for key in Row.SEARCHED}
        return {name: fixed[name] for name in self.choices()}

    def restrict(self, candidates: dict[str, Any]) -> Skeleton:
        """The part of the space in which each label takes one of ``candidates`` (label to a list of them) only.

        A label that is not named keeps all of its candidates; one that keeps a single candidate is no choice any more,
        and those that could then choose nothing (a ratio where LightNL is absent) are none either.

        Raises:
            ValueError: a label is unknown, or a candidate is not the skeleton's, or a label would be left without any.
        """
        choices = self.choices()
        kept: dict[str, tuple] = {}
        for name, values in candidates.items():
            if name not in choices:
                raise ValueError(f'unknown label {shown(name)} for skeleton {self.name!r}; {closest(name, choices)}')
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(
                    f'{name} takes a list of at least one of {_listed(choices[name])}, not {shown(values)}'
                )
            for value in values:
                if not any(same_value(candidate, value) for candidate in choices[name]):
                    raise ValueError(f'{name}: {shown(value)} is not among its candidates {_listed(choices[name])}')
            kept[name] = tuple(c for c in choices[name] if any(same_value(c, value) for value in values))
        rows = []
        for index, row in enumerate(self.rows):
            values = {key: kept.get(label(index, key), row.candidates(key)) for key in Row.SEARCHED}
            for key in idle_choices(
                *(values[key][0] if len(values[key]) == 1 else None for key in ('presence', 'lightnl'))
            ):
                values[key] = values[key][:1]
            rows.append(dataclasses.replace(row, **{k: v if len(v) > 1 else v[0] for k, v in values.items()}))
        return dataclasses.replace(self, rows=tuple(rows))

    def canonical(self, sample: Sample) -> Sample:
        """``sample`` with every value that does not show in the network set to its first candidate.

        Two samples are the same network exactly when their canonical samples are equal (unless two candidates of a
        ratio round to one number of channels: those count as two).

        Raises:
            ValueError: as :meth:`check_sample`.
        """
        sample, insertions = self.check_sample(sample), {}
        for index, row in enumerate(self.rows):
            insertions |= {label(index, key): row.candidates(key)[0] for key in ('presence', 'lightnl')}
        return canonical_sample(self.choices(), insertions | sample)

    def networks(self) -> Iterator[Sample]:
        """Every network of the space once, as its canonical sample: fewer than :meth:`size`, and never all of a large
        space."""
        choices = self.choices()
        for values in itertools.product(*choices.values()):
            sample = dict(zip(choices, values))
            if self.canonical(sample) == sample:
                yield sample

    def lightnl_positions(self, sample: Sample) -> dict[int, tuple[float, int]]:
        """Where ``sample`` inserts LightNL: row number, from 1, to (channel ratio, stride).

        Raises:
            ValueError: as :meth:`check_sample`.
        """
        return {
            index + 1: (row.lightnl_ratio, row.lightnl_stride)
            for index, row in enumerate(self.fix(sample).rows)
            if row.lightnl == PRESENT and row.presence == PRESENT
        }


def idle_choices(presence, lightnl) -> tuple[str, ...]:
    """The searched attributes that do not show in a row with this ``presence`` and ``lightnl``."""
    if presence == ABSENT:
        return tuple(key for key in Row.SEARCHED if key != 'presence')
    return ('lightnl_ratio', 'lightnl_stride') if lightnl == ABSENT else ()


def visible(sample: Sample) -> Sample:
    """The choices of ``sample`` that show in its network: all but those of an absent row or an absent LightNL.

    A row or position that has no choice of ``presence`` or of ``lightnl`` has the one that is not chosen.
    """
    return {
        name: candidate
        for name, candidate in sample.items()
        for place, key in [name.rpartition('/')[::2]]
        if key not in idle_choices(*(sample.get(f'{place}/{k}', PRESENT) for k in ('presence', 'lightnl')))
    }


def canonical_sample(choices: Mapping[str, tuple], sample: Sample) -> Sample:
    """What tells a network from others: ``sample`` in the order of ``choices``, with the first candidate of each choice
    that does not show.

    Two samples of a space are the same network exactly when their canonical samples are equal.

    Args:
        choices: label to candidates, of the space.
        sample: has a candidate for each of them; and may say what is fixed in the space.
    """
    seen = visible(sample)
    return {name: seen.get(name, candidates[0]) for name, candidates in choices.items()}


def row_name(index: int) -> str:
    """What ``rows[index]`` is called, in labels and in the network's ``state_dict``: ``row07`` is ``rows[6]``."""
    return f'row{index + 1:02d}'


@cache  # one string for all the samples that hold it
def label(index: int, key: str) -> str:
    """The label of ``rows[index]``'s choice of ``key``: ``row07/lightnl`` for the seventh row's insertion."""
    return f'{row_name(index)}/{key}'


def same_value(candidate, value) -> bool:
    """Is ``value``, from a file or a command line, this candidate? 1 is, for '1' or 1.0."""
    if isinstance(value, bool):  # True == 1, but nobody means it
        return False
    if isinstance(candidate, str):
        return candidate == value
    try:
        return float(value) == candidate
    except (TypeError, ValueError, OverflowError):
        return False


def _listed(candidates) -> str:
    return ', '.join(repr(c) for c in candidates)


def nni_search_space(choices: dict[str, tuple]) -> dict[str, dict]:
    """A skeleton's choices in NNI's search space format."""
    return {label: {'_type': 'choice', '_value': list(candidates)} for label, candidates in choices.items()}


def candidates_of(search_space: Any) -> dict[str, list]:
    """Label to candidates of a search space in NNI's format, as :func:`nni_search_space` writes it.

    Raises:
        ValueError: it is not in that format.
    """
    if not isinstance(search_space, dict) or not search_space:
        raise ValueError(f'a search space is a mapping of labels, not {shown(search_space)}')
    candidates = {}
    for name, choice in search_space.items():
        if not isinstance(choice, dict) or choice.keys() != {'_type', '_value'} or choice['_type'] != 'choice':
            raise ValueError(f'{one_line(name)} must be {{"_type": "choice", "_value": [...]}}, not {shown(choice)}')
        candidates[name] = choice['_value']
    return candidates
