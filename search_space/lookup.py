"""What a name or a file on the command line stands for: a network, or a whole space."""

from __future__ import annotations

from .named_networks import load_network, named_networks
from .rules import shown
from .skeleton import Sample, Skeleton, closest
from .skeleton_file import load_skeleton, shipped_skeletons
from .yaml_mapping import find_yaml, read_mapping

__all__ = ['look_up', 'look_up_network']


def look_up(name_or_path: str) -> tuple[Skeleton, Sample | None]:
    """A network as its skeleton and sample; a space as its skeleton and None.

    A shipped network comes before a skeleton of its name, and both before a file. A skeleton in which everything is
    fixed is a network.

    Raises:
        ValueError: there is no such name or file, or the file is not a valid one.
    """
    if name_or_path in named_networks():
        return load_network(name_or_path)
    found = find_yaml(name_or_path, 'skeletons')
    if found is None:
        hint = closest(name_or_path, [*named_networks(), *shipped_skeletons()])
        raise ValueError(f'no network or skeleton {shown(name_or_path)}: neither a file nor a shipped one; {hint}')
    data = read_mapping(*found, 'a network has the keys skeleton and rows, a skeleton has rows')
    if 'sample' in data or 'skeleton' in data:
        return load_network(name_or_path)
    skeleton = load_skeleton(name_or_path)
    return skeleton, None if skeleton.choices() else {}


def look_up_network(name_or_path: str) -> tuple[Skeleton, Sample]:
    """The skeleton and the sample of a network.

    Raises:
        ValueError: as :func:`look_up`, and for a space.
    """
    skeleton, sample = look_up(name_or_path)
    if sample is None:
        raise ValueError(
            f'{name_or_path!r} is a whole space, not a network; give a file with the keys skeleton and rows, '
            f'or one of {", ".join(named_networks())}'
        )
    return skeleton, sample
