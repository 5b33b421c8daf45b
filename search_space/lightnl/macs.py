"""What LightNL, the conventional non-local block and squeeze-excite cost, from shapes alone: no torch is needed."""

from __future__ import annotations

import math

__all__ = [
    'compact_channels',
    'compact_positions',
    'lightnl_macs',
    'non_local_macs',
    'product_macs',
    'squeeze_channels',
]


def compact_channels(channels: int, ratio: float) -> int:
    """``k = max(1, ⌊r·C⌋)``, the leading channels that the affinity is computed on."""
    return max(1, math.floor(ratio * channels))


def compact_positions(height: int, width: int, stride: int) -> int:
    """``p = ⌈H/s⌉·⌈W/s⌉``, the positions ``[::s, ::s]`` that are attended to."""
    return -(-height // stride) * -(-width // stride)


def product_macs(channels: int, height: int, width: int, ratio: float, stride: int) -> tuple[int, int]:
    """MACs of the two orders of the product: ``P·p·(k + C)`` affinity first, ``(P + p)·k·C`` context first."""
    k = compact_channels(channels, ratio)
    p_all, p = height * width, compact_positions(height, width, stride)
    return p_all * p * (k + channels), (p_all + p) * k * channels


def lightnl_macs(channels: int, height: int, width: int, ratio: float, stride: int) -> int:
    """MACs of a LightNL block: the cheaper product, and ``9·C·P`` of the depthwise convolution."""
    return min(product_macs(channels, height, width, ratio, stride)) + 9 * channels * height * width


def non_local_macs(channels: int, height: int, width: int) -> int:
    """MACs of a conventional non-local block: ``4·C²·P + 2·C·P²``."""
    positions = height * width
    return 4 * channels**2 * positions + 2 * channels * positions**2


def squeeze_channels(in_channels: int, ratio: float) -> int:
    """Hidden channels of squeeze-excite: ``round(ratio · in_channels)``, at least 1 unless the ratio is 0."""
    return max(1, round(ratio * in_channels)) if ratio else 0
