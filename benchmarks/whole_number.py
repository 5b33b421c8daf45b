"""The types of commands' arguments that count something."""

from __future__ import annotations

import argparse

from search_space.entry_point import whole_argument
from search_space.rules import shown, whole

__all__ = ['block_shape', 'whole_macs', 'whole_number']

whole_number = whole_argument(whole(1, 1_000_000))
"""More images, steps or pixels than that are not measured by any of the commands, on any machine."""


def whole_macs(text: str) -> int:
    """A number of MACs, also as ``1.05e6``."""
    try:
        macs = float(text)
    except ValueError:
        macs = 0.5
    if not macs.is_integer() or macs < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of MACs, at least 1, not {shown(text)}')
    return int(macs)


def block_shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width of ``CxHxW``."""
    sizes = text.split('x')
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f'must be channels, height and width, such as 40x28x28, not {shown(text)}')
    channels, height, width = map(whole_number, sizes)
    return channels, height, width
