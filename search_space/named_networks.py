"""Networks by name, and from a user's file: a skeleton and a sample of it, as YAML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .rules import shown
from .skeleton import PRESENT, Sample, Skeleton, closest, idle_choices, label, same_value
from .skeleton_file import ROW_RULES, load_skeleton
from .yaml_mapping import find_yaml, read_mapping, shipped

__all__ = ['load_network', 'named_networks']


def named_networks() -> list[str]:
    """Names of the networks that come with the package."""
    return shipped('networks')


def load_network(name_or_path: str | Path) -> tuple[Skeleton, Sample]:
    """A network that comes with the package by its name, or one of the user's by the path of a file like these.

    Such a file is ``skeleton:``, the name of a shipped skeleton or the path of a YAML file, as seen from the network's
    file; and ``rows:``, a mapping for each row of the skeleton, with the keys of :class:`.skeleton.Row`. What a row has
    a choice of is said, unless it does not show in the network (the kernel of an absent row, the ratio of a LightNL
    that is not there) and but for ``presence``, which is ``present`` where nothing is said. What it has no choice of
    may be said, and is then held against the skeleton. In place of ``rows`` there may be ``sample:``, label to
    candidate of each of the skeleton's choices.

    >>> skeleton, sample = load_network('autonl-s')
    >>> macs(skeleton)(sample)
    266878784

    Raises:
        ValueError: no such network, or the file is not a valid one; the message is one line that names the file.
    """
    found = find_yaml(name_or_path, 'networks')
    if found is None:
        hint = closest(str(name_or_path), named_networks())
        raise ValueError(f'no network {shown(str(name_or_path))}: neither a file nor a shipped one; {hint}')
    text, where = found
    data = read_mapping(text, where, 'a network is a mapping with the keys skeleton and rows')
    for key in data:
        if key not in ('skeleton', 'rows', 'sample'):
            raise ValueError(f'{where}: unknown key {shown(key)}; {closest(key, ("skeleton", "rows", "sample"))}')
    if 'skeleton' not in data:
        raise ValueError(f'{where}: skeleton is missing')
    if ('rows' in data) == ('sample' in data):
        raise ValueError(f'{where}: {"rows and sample are both there" if "rows" in data else "rows is missing"}')
    if not isinstance(data['skeleton'], str):
        raise ValueError(f"{where}: skeleton must be a skeleton's name or path, not {shown(data['skeleton'])}")
    if not isinstance(data.get('sample', {}), dict):
        raise ValueError(f'{where}: sample must be a mapping of labels to candidates, not {shown(data["sample"])}')
    beside = Path(name_or_path).parent / data['skeleton']
    try:
        skeleton = load_skeleton(beside if os.path.isfile(beside) else data['skeleton'])
        return skeleton, skeleton.check_sample(data['sample'] if 'sample' in data else _sample(skeleton, data['rows']))
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None


def _sample(skeleton: Skeleton, rows: Any) -> Sample:
    """What the ``rows`` of a network's file choose; what does not show is the first candidate.

    Raises:
        ValueError: they are not rows of the skeleton, or leave a choice open.
    """
    if not isinstance(rows, list) or len(rows) != len(skeleton.rows):
        found = f'a list of {len(rows)}' if isinstance(rows, list) else shown(rows)
        raise ValueError(
            f'rows must be a list of {len(skeleton.rows)} rows, as skeleton {skeleton.name!r} has, not {found}'
        )
    sample = {}
    for number, (row, given) in enumerate(zip(skeleton.rows, rows), start=1):
        if not isinstance(given, dict):
            raise ValueError(f'row {number} must be a mapping of keys to values, not {shown(given)}')
        for key in given:
            if key not in ROW_RULES:
                raise ValueError(f'row {number}: unknown key {shown(key)}; {closest(key, ROW_RULES)}')
        chosen = {key: given.get(key, row.candidates(key)[0]) for key in ('presence', 'lightnl')}
        if 'presence' not in given and PRESENT in row.candidates('presence'):
            chosen['presence'] = PRESENT
        idle = idle_choices(*chosen.values())
        for key in ROW_RULES:
            candidates = row.candidates(key)
            if key == 'presence' or (key in idle and key not in given):
                value = chosen.get(key, candidates[0])
            elif key in given:
                value = given[key]
            elif len(candidates) == 1:
                continue
            else:
                raise ValueError(f'row {number}: {key} is missing; it takes one of {", ".join(map(repr, candidates))}')
            if not any(same_value(candidate, value) for candidate in candidates):
                raise ValueError(
                    f'row {number}: {key} is {shown(value)}; skeleton {skeleton.name!r} has '
                    f'{", ".join(map(repr, candidates))} there'
                )
            if len(candidates) > 1:
                sample[label(number - 1, key)] = value
    return sample
