"""What non-local blocks cost: the conventional one against LightNL, after each bottleneck of MobileNetV2."""

from __future__ import annotations

from ..cost.macs import row_sizes
from ..lightnl.macs import lightnl_macs, non_local_macs
from ..named_networks import load_network

__all__ = ['compare_nl', 'comparison_text']

VARIANTS = ((0.25, 1), (0.25, 2), (0.125, 1), (0.125, 2))
"""LightNL's channel ratio and spatial stride, from the largest to the smallest."""


def compare_nl(input_size: int | None = None) -> list[dict]:
    """MACs that a block after each of MobileNetV2's bottlenecks adds, all of them together.

    Args:
        input_size: side of the square input in pixels; 224 by default.

    Returns:
        A dict per kind of block: ``block``, ``macs``, and ``times_less``, how many times the conventional block's MACs
        are its own.
    """
    skeleton, sample = load_network('mobilenet-v2')
    rows = skeleton.fix(sample).rows
    maps = [(row.channels, size, size) for row, size in zip(rows, row_sizes(skeleton, input_size)[1:], strict=True)]
    blocks = {'NL': sum(non_local_macs(*shape) for shape in maps)}
    for ratio, stride in VARIANTS:
        blocks[f'LightNL r={ratio}, s={stride}'] = sum(lightnl_macs(*shape, ratio, stride) for shape in maps)
    return [{'block': name, 'macs': macs, 'times_less': blocks['NL'] / macs} for name, macs in blocks.items()]


def comparison_text(comparison: list[dict]) -> str:
    """The table of :func:`compare_nl`, for people."""
    lines = [f'{"block":<20}{"MACs added":>16}{"NL / this":>11}']
    lines += [f'{row["block"]:<20}{row["macs"]:>16,}{row["times_less"]:>11.0f}' for row in comparison]
    return '\n'.join(lines)
