"""The type of a command's arguments that count something."""

from __future__ import annotations

__all__ = ['whole_number']


def whole_number(text: str) -> int:
    """A whole number of at least 1; argparse names the argument of another."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value
