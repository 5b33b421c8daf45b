"""One image file as a person sees it: upright, in RGB of 8 bits, transparency over white."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ['SUFFIXES', 'as_seen', 'read_image']

SUFFIXES = {
    *('.avif', '.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm'),
    *('.tif', '.tiff', '.webp'),
} & Image.registered_extensions().keys()
"""Of the files that are taken for images, in lower case; there are builds of Pillow without AVIF or WebP."""

_FORMATS = sorted({Image.registered_extensions()[suffix] for suffix in SUFFIXES})
"""What else Pillow reads, such as PostScript, may start programs, whatever the file's suffix is."""

_MOST_TIMES = 100
"""That a picture may be as long as it is wide: brought to 256 pixels of width, a line of 60,000 would fill memory."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
"""Tags of TIFF 6.0; photometric 0 is a picture whose zeros are white."""
_EACH_ITS_OWN, _SIGNED = 2, 2


def read_image(file: str | Path) -> Image.Image:
    """The image in ``file`` in mode RGB; of an animation or of several pages the first.

    Raises:
        Exception: it cannot be read. What Pillow's readers raise on damaged files is of many types.
    """
    # Not by its name: of a TIFF that lies turned Pillow would map the file at the sides that it has when it is upright.
    with open(file, 'rb') as content, Image.open(content, formats=_FORMATS) as image:
        if max(image.size) > _MOST_TIMES * min(image.size):
            raise ValueError(f'its sides are {image.width} and {image.height} pixels, over {_MOST_TIMES} to 1')
        _check_tiff(getattr(image, 'tag_v2', {}))
        return as_seen(image)


def _check_tiff(tags: Mapping[int, Any]) -> None:
    """Raises ValueError for pixels that Pillow takes for others without a word."""
    bits = max(tags.get(_BITS_PER_SAMPLE, (8,)))
    if bits > 8 and tags.get(_PLANES) == _EACH_ITS_OWN and len(tags[_BITS_PER_SAMPLE]) > 1:
        raise ValueError(f'its colours of {bits} bits lie each in a plane of its own')
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise ValueError('its pixels are signed whole numbers, which have no range that is known')


def as_seen(image: Image.Image) -> Image.Image:
    """``image``, of whatever mode, in mode RGB.

    It is turned as its EXIF orientation says. Whole numbers of 12 or 16 bits are scaled by their range, fractions are
    taken to be from 0 to 1. What is transparent is laid over white.

    Raises:
        ValueError: its pixels have no range that is known, or Pillow has no way from its colours to RGB.
    """
    image.load()
    largest, inverted = _range(image)
    image = _upright(image)
    if image.mode == 'F' or image.mode.startswith('I'):
        image = _eight_bits(image, largest, inverted)
    if image.has_transparency_data:
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, _with_alpha(image))
    return image.convert('RGB')


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are there; whatever the EXIF data holds, a viewer shows them
        return image


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == 'La':  # premultiplied: there is one way from it only
        image = image.convert('LA')
    see_through = image.info.get('transparency')
    if image.mode == 'RGB' and see_through is not None and max(see_through) > 255:
        # Pillow keeps the high byte of 16-bit pixels, but both bytes of the colour that is transparent.
        image.info['transparency'] = tuple(value >> 8 for value in see_through)
    return image.convert('RGBA')


def _range(image: Image.Image) -> tuple[int, bool]:
    """The value of its white pixels, and whether zeros are white instead; 0 where it is not known."""
    tags = getattr(image, 'tag_v2', {})
    inverted = tags.get(_PHOTOMETRIC) == 0
    if image.mode == 'F':
        return 1, inverted
    if image.mode == 'I' and image.format != 'PPM':  # to 16 bits Pillow brings only the whole numbers of PPM
        return 0, inverted
    return 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1, inverted


def _eight_bits(image: Image.Image, largest: int, inverted: bool) -> Image.Image:
    """In mode L, an image in one of Pillow's modes of whole numbers (I) or fractions (F).

    Raises:
        ValueError: its pixels have no range that is known.
    """
    pixels = np.asarray(image)
    if not largest:
        raise ValueError('its pixels are signed or 32-bit whole numbers, which have no range that is known')
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= largest):
        raise ValueError(f'its pixels must be from 0 to {largest}, and are from {pixels.min():g} to {pixels.max():g}')
    scaled = np.round(pixels.astype(np.float64) / largest * 255).astype(np.uint8)
    if inverted:
        scaled = 255 - scaled
    if (see_through := image.info.get('transparency')) is not None:
        scaled[pixels == see_through] = 255
    return Image.fromarray(scaled)
