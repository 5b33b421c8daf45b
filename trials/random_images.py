"""Images to try a trained network on where there are none of its data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['random_images']


def random_images(count: int, side: int, draw: torch.Generator) -> Tensor:
    """Images with large and small structure, as photographs have, of variance about 1: `(count, 3, side, side)`.

    White noise has none that is large. LightNL's output is of third order in its input, block after block: what is far
    from all that a network was trained on may end beyond the range of float32.

    Args:
        count: how many.
        side: in pixels.
        draw: on the CPU.
    """
    coarse = torch.randn(count, 3, 7, 7, generator=draw)
    return nn.functional.interpolate(coarse, side) + 0.3 * torch.randn(count, 3, side, side, generator=draw)
