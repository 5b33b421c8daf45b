"""The ratio of two things that were measured in the same rounds."""

from __future__ import annotations

import math
import statistics

__all__ = ['paired']


def paired(over: list[float], under: list[float]) -> tuple[float, float, float]:
    """The median ratio of the rounds that both were measured in, and its 95% interval from the ratios' order."""
    ratios = sorted(a / b for a, b in zip(over, under, strict=False))
    low = max(0, math.floor((len(ratios) - 1.96 * math.sqrt(len(ratios))) / 2))
    return statistics.median(ratios), ratios[low], ratios[-1 - low]
