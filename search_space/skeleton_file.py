"""A skeleton's file: its YAML, and what each key may be."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from .rules import NAME, Rule, number, shown, whole
from .skeleton import ABSENT, PRESENT, SAME, SYMMETRIC, Row, Skeleton, closest, idle_choices
from .yaml_mapping import find_yaml, read_mapping, shipped

__all__ = ['LARGEST_INPUT', 'ROW_RULES', 'SKELETON_RULES', 'load_skeleton', 'parse_skeleton', 'shipped_skeletons']

LARGEST_INPUT = 8192
"""Side of the input in pixels: a batch of one is 800 MB."""

MOST_ROWS = 200
"""Ten times those of the paper's networks."""

MOST_VARIANTS = 50_000
"""Combinations of the rows' candidates, each of which is counted in 0.1 ms: the paper's 21 rows have 4,000."""

MOST_WEIGHTS = 10**9
"""Of convolutions and the linear layer, in the largest network of a space: 4 GB, 200 times those of the paper's."""

_CHANNELS = whole(1, 16_384)  # a 1×1 convolution between two such has 268 million weights, 1 GB
_INSERTION = Rule(lambda v: v in (ABSENT, PRESENT), f'{ABSENT!r} or {PRESENT!r}')
_STRIDE = Rule(lambda v: type(v) is int and v in (1, 2), '1 or 2')

ROW_RULES = {
    'channels': _CHANNELS,
    'stride': _STRIDE,
    'presence': _INSERTION,
    'lightnl': _INSERTION,
    'lightnl_ratio': number(above=0, most=1),
    'lightnl_stride': whole(1, LARGEST_INPUT),
    'kernel': Rule(lambda v: whole(1, 31).valid(v) and v % 2 == 1, 'an odd whole number from 1 to 31'),
    'expansion': whole(1, 64),
    'se': number(0, 1),
}
"""What a row's keys, each candidate of a searched one, may be."""

SKELETON_RULES = {
    'name': NAME,
    'input_size': whole(1, LARGEST_INPUT),
    'classes': whole(2, 1_000_000),
    'stem_channels': _CHANNELS,
    'stem_stride': _STRIDE,
    'head_channels': _CHANNELS,
    'activation': Rule(lambda v: v in ('swish', 'relu6'), "'swish' or 'relu6'"),
    'dropout': number(0, below=1),
    'bn_eps': number(above=0, most=1),
    'bn_momentum': number(above=0, most=1),
    'lightnl_scale': number(0, most=100),
    'padding': Rule(lambda v: v in (SYMMETRIC, SAME), f'{SYMMETRIC!r} or {SAME!r}'),
}
"""What a skeleton's keys, but for its rows, may be."""


def shipped_skeletons() -> list[str]:
    """Names of the skeletons that come with the package."""
    return shipped('skeletons')


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """A shipped skeleton by its name, or one of the user's by the path of its YAML file.

    Raises:
        ValueError: no such skeleton, or the file is not a valid one; the message names file, row and key.
    """
    found = find_yaml(name_or_path, 'skeletons')
    if found is None:
        hint = closest(str(name_or_path), shipped_skeletons())
        raise ValueError(f'no skeleton {shown(str(name_or_path))}: neither a file nor a shipped one; {hint}')
    return parse_skeleton(*found)


def parse_skeleton(text: str, where: str) -> Skeleton:
    """The skeleton that ``text`` is, in the YAML of a skeleton's file.

    Args:
        text: YAML.
        where: what errors call it.

    Raises:
        ValueError: it is not a valid one; the message names ``where``, row and key.
    """
    data = read_mapping(text, where, 'a skeleton is a mapping with the key rows')
    _check_keys(data, [*SKELETON_RULES, 'every_row', 'rows'], where)
    rows, every_row = data.pop('rows', None), data.pop('every_row', {})
    _check_complete(data, Skeleton, SKELETON_RULES, where)
    for key, value in data.items():
        SKELETON_RULES[key].check(f'{where}: {key}', value)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'{where}: rows must be a list of at least one row, not {shown(rows)}')
    if len(rows) > MOST_ROWS:
        raise ValueError(f'{where}: rows must be a list of at most {MOST_ROWS} rows, not of {len(rows):,}')
    every_row = _parse_values(every_row, f'{where}, every_row')
    parsed = []
    for position, row in enumerate(rows, start=1):
        at = f'{where}, row {position}'
        parsed.append(_row(every_row, _parse_values(row, at), at))
    skeleton = Skeleton(**data, rows=tuple(parsed))
    variants = sum(math.prod(len(row.candidates(key)) for key in Row.SEARCHED) for row in parsed)
    if variants > MOST_VARIANTS:
        raise ValueError(f'{where}: its candidates make {variants:,} variants of rows; at most {MOST_VARIANTS:,} do')
    weights = _weights(skeleton)
    if weights > MOST_WEIGHTS:
        raise ValueError(f'{where}: its largest network has {weights:,} weights; at most {MOST_WEIGHTS:,} do')
    for index, row in enumerate(skeleton.rows):
        if ABSENT in row.candidates('presence') and not row.keeps_shape(skeleton.in_channels(index)):
            raise ValueError(
                f'{where}, row {index + 1}: presence: only a row that keeps its shape may be absent; '
                f'this one takes {skeleton.in_channels(index)} channels to {row.channels} at stride {row.stride}'
            )
        kernels = row.candidates('kernel')
        if skeleton.padding == SAME and row.stride == 2 and 1 in kernels and len(kernels) > 1:
            raise ValueError(
                f'{where}, row {index + 1}: kernel: 1 cannot be one of several candidates at stride 2 where padding is '
                f'{SAME}'
            )
    return skeleton


def _weights(skeleton: Skeleton) -> int:
    """Those of the 1×1 convolutions and of the linear layer, all but all of a large network's."""
    last, count = skeleton.stem_channels, 0
    for row in skeleton.rows:
        count += last * max(row.candidates('expansion')) * (last + row.channels)
        last = row.channels
    return count + skeleton.head_channels * (last + skeleton.classes)


def _parse_values(data: Any, where: str) -> dict[str, Any]:
    """What one row, or ``every_row``, says: key to its one value, or to a tuple of candidates."""
    if not isinstance(data, dict):
        raise ValueError(f'{where} must be a mapping of row keys, not {shown(data)}')
    _check_keys(data, ROW_RULES, where)
    values = {}
    for key, value in data.items():
        if isinstance(value, list) and key not in Row.SEARCHED:
            raise ValueError(f'{where}: {key} is not searched, it takes one value, not {shown(value)}')
        candidates = value if isinstance(value, list) else [value]
        if not candidates:
            raise ValueError(f'{where}: {key} needs at least one candidate')
        for candidate in candidates:
            ROW_RULES[key].check(f'{where}: {key}', candidate)
        if len(set(candidates)) < len(candidates):
            raise ValueError(f'{where}: {key} has a candidate twice: {shown(value)}')
        if key == 'expansion' and len(candidates) > 1 and 1 in candidates:
            raise ValueError(f'{where}: expansion: 1 (no expansion convolution) cannot be one of several candidates')
        values[key] = tuple(candidates) if len(candidates) > 1 else candidates[0]
    return values


def _row(every_row: dict[str, Any], own: dict[str, Any], where: str) -> Row:
    values = {**every_row, **own}
    _check_complete(values, Row, ROW_RULES, where)
    for key in idle_choices(values.get('presence', PRESENT), values.get('lightnl', ABSENT)):
        # Candidates that a row inherits are dropped where they would choose nothing; its own are a mistake.
        if isinstance(own.get(key), tuple):
            raise ValueError(f'{where}: {key} has candidates, but there is nothing here for them to choose')
        if isinstance(values.get(key), tuple):
            values[key] = values[key][0]
    return Row(**values)


def _check_keys(data: dict, known, where: str) -> None:
    for key in data:
        if key not in known:
            raise ValueError(f'{where}: unknown key {shown(key)}; {closest(key, known)}')


def _check_complete(data: dict, cls: type, rules: dict, where: str) -> None:
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name in rules and field.name not in data:
            raise ValueError(f'{where}: {field.name} is missing; it takes {rules[field.name].what}')
