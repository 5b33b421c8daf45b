"""How a photograph of any size becomes a square of the input's size, where networks are evaluated on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from search_space.rules import one_of

__all__ = ['CROP', 'INTERPOLATION', 'middle', 'resize_as_tensorflow_1']

CROP = one_of('resize', 'square', 'tensorflow')
"""``resize``: the shorter side to 256 for 224 pixels, other sizes at that ratio, then the middle, as torchvision does;
``square``: the middle square of 224 in 256 of the shorter side, resized; ``tensorflow``: the same, resized as by
TensorFlow 1."""

INTERPOLATION = one_of('bilinear', 'bicubic')
"""Of resizing, by Pillow: a pixel is made of all that it covers. Where the crop is ``tensorflow`` it is not asked."""


def middle(input_size: int, crop: str = 'resize', interpolation: str = 'bilinear') -> list[Callable]:
    """The steps from an RGB image of Pillow's to pixels `(3, input_size, input_size)`, white being 1.

    Args:
        input_size: in pixels.
        crop: one of :data:`CROP`.
        interpolation: one of :data:`INTERPOLATION`.
    """
    pixels = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    if crop == 'tensorflow':
        return [_MiddleSquare(input_size), *pixels, _ResizeAsTensorFlow1(input_size)]
    mode = InterpolationMode(interpolation)
    if crop == 'square':
        return [_MiddleSquare(input_size), v2.Resize((input_size, input_size), mode), *pixels]
    return [v2.Resize(round(input_size * 256 / 224), mode), v2.CenterCrop(input_size), *pixels]


@dataclass(frozen=True)  # and not a function in a function, which a process that is started anew could not be given
class _MiddleSquare:
    """Of an image its middle square, of ``input_size / (input_size + 32)`` of the shorter side.

    Source: the evaluation of MnasNet (TensorFlow), which both programs that released AutoNL's weights have taken over.
    """

    input_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        side = max(1, int(self.input_size / (self.input_size + 32) * min(image.size)))
        left, top = ((length - side + 1) // 2 for length in image.size)
        return image.crop((left, top, left + side, top + side))


@dataclass(frozen=True)
class _ResizeAsTensorFlow1:
    input_size: int

    def __call__(self, pixels: Tensor) -> Tensor:
        return resize_as_tensorflow_1(pixels, self.input_size)


def resize_as_tensorflow_1(pixels: Tensor, side: int) -> Tensor:
    """``tf.image.resize_bicubic`` of TensorFlow 1, `(C, H, W)` to `(C, side, side)`.

    Cubic convolution with ``a = -0.75`` at ``i · H / side``, of four pixels however much the image shrinks, weights
    rounded to a table of 1,024 places, and the border repeated; the result may leave the range of the pixels.

    Source: TensorFlow's ``resize_bicubic_op.cc``, the way without half-pixel centres.
    """
    rows, columns = (_cubic_weights(length, side) for length in pixels.shape[1:])
    return rows @ pixels @ columns.T


@lru_cache(maxsize=1024)
def _cubic_weights(length: int, side: int) -> Tensor:
    """What each of ``length`` pixels adds to each of ``side``, `(side, length)`."""
    a = -0.75

    def near(x: Tensor) -> Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    at = torch.arange(side, dtype=torch.float32) * (torch.tensor(length, dtype=torch.float32) / side)
    first = at.floor()
    x = torch.round((at - first) * 1024) / 1024
    weights = torch.zeros(side, length)
    for offset, weight in ((-1, far(x + 1)), (0, near(x)), (1, near(1 - x)), (2, far(2 - x))):
        places = (first.long() + offset).clamp(0, length - 1)
        weights.scatter_add_(1, places[:, None], weight[:, None])
    return weights
