"""Networks by name, and from a user's file: a skeleton and a sample of it, as YAML."""

from __future__ import annotations

import os
from pathlib import Path

from .rules import shown
from .skeleton import Sample, Skeleton, closest, load_skeleton
from .yaml_mapping import find_yaml, read_mapping, shipped

__all__ = ['load_network', 'named_networks']

_KEYS = ('skeleton', 'sample')


def named_networks() -> list[str]:
    """Names of the networks that come with the package."""
    return shipped('networks')


def load_network(name_or_path: str | Path) -> tuple[Skeleton, Sample]:
    """A network that comes with the package by its name, or one of the user's by the path of a file like these.

    Such a file is ``skeleton:``, the name of a shipped skeleton or the path of a YAML file, as seen from the network's
    file; and ``sample:``, label to candidate of each of the skeleton's choices.

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
    data = read_mapping(text, where, 'a network is a mapping with the keys skeleton and sample')
    for key in data:
        if key not in _KEYS:
            raise ValueError(f'{where}: unknown key {shown(key)}; {closest(key, _KEYS)}')
    for key in _KEYS:
        if key not in data:
            raise ValueError(f'{where}: {key} is missing')
    if not isinstance(data['skeleton'], str):
        raise ValueError(f"{where}: skeleton must be a skeleton's name or path, not {shown(data['skeleton'])}")
    if not isinstance(data['sample'], dict):
        raise ValueError(f'{where}: sample must be a mapping of labels to candidates, not {shown(data["sample"])}')
    beside = Path(name_or_path).parent / data['skeleton']
    try:
        skeleton = load_skeleton(beside if os.path.isfile(beside) else data['skeleton'])
        return skeleton, skeleton.check_sample(data['sample'])
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None
