"""Padding of the convolutions with stride 2: PyTorch's, the same on both sides, or TensorFlow's ``SAME``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .skeleton import SAME

__all__ = ['PadSame', 'padding_of', 'strided_pad']


class PadSame(nn.Module):
    """What TensorFlow's ``SAME`` has beyond ``k//2 - 1`` on each side, for a `k×k` convolution of stride 2, k odd.

    `(N, C, H, W)` to `(N, C, H', W')`. TensorFlow pads a side of n values by ``max((⌈n/2⌉ - 1)·2 + k - n, 0)`` in all,
    the smaller half of it first::

        n even   k - 2 in all: (0, 1) for k = 3, (1, 2) for k = 5
        n odd    k - 1 in all: (1, 1) for k = 3, (2, 2) for k = 5

    The rest is the same for every k. So kernels may be nested, or chosen, behind one module.

    Source: TensorFlow's documentation of ``tf.nn.convolution``.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return nn.functional.pad(x, (width % 2, 1, height % 2, 1))


def strided_pad(padding: str, stride: int, kernels: Iterable[int]) -> dict[str, nn.Module]:
    """``pad``, the module before a convolution of one of these kernels; nothing where it needs none."""
    return {'pad': PadSame()} if padding == SAME and stride == 2 and tuple(kernels) != (1,) else {}


def padding_of(kernel: Any, pad: dict[str, nn.Module]) -> Any:
    """The convolution's own padding behind :func:`strided_pad`; a choice where ``kernel`` is one."""
    return kernel // 2 - 1 if pad else kernel // 2
