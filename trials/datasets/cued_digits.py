"""Cued digits: real handwriting, and an answer that needs two far-apart places of the image at once.

A canvas of 32×32×3 in four quadrants. Two different scans stand at random places of two random quadrants, one in the
red channel, one in the green. In a third quadrant stands a square, 3×3, in red and blue or in green and blue: the label
is the digit of that colour. A convolution near the input sees one quadrant; a non-local block sees all four.

Harder versions have a third colour, clutter, noise, or fewer canvases to learn from; the square may be larger. A canvas
is as large as the networks take it, by default 32.

The handwriting is scikit-learn's bundled 1,797 scans of 8×8 pixels in 17 grey levels (UCI's optical recognition of
handwritten digits, test part). They are divided before any canvas is made, so no scan is on two sides.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from search_space.rules import Rule, number, whole

from .cache import cached
from .data_set import DataSet, Normalisation, always
from .digits import CLASS_NAMES, SCANS, divided_scans
from .parts import DataParts

__all__ = ['CANVASES', 'CUED_DIGITS', 'SCANS', 'canvases', 'divided_scans']

CANVASES = {'train': 6000, 'validation': 2000, 'test': 2000}
_INPUT_SIZE = 32
_SCAN, _FRAGMENT = 8, 4
_SMALLEST, _LARGEST = 2 * _SCAN, 64
"""Canvas: a quadrant has to hold a scan; a larger one would be black almost everywhere."""
_LEVELS = 16
_COLOURS = np.array([[True, False], [False, True], [True, True]])
"""Red, green and yellow: whether they show in the red and in the green channel."""
_FEWEST_CANVASES, _MOST_CANVASES = 100, 200_000
"""Of the training part: fewer have not every digit in what is cut from them; as many take 2.5 GB at 32 pixels."""
_MOST_CLUTTER = 256
"""Fragments that would cover the largest canvas if they lay side by side."""
_VERSION = 1
"""Of what a canvas is; part of the name of its file in the cache."""


def canvases(
    scans: np.ndarray,
    digits: np.ndarray,
    count: int,
    seed: int,
    *,
    colours: int = 2,
    square: int = 3,
    clutter: int = 0,
    noise: float = 0,
    input_size: int = _INPUT_SIZE,
) -> TensorDataset:
    """``count`` canvases `(count, 3, side, side)` in [0, 1] of ``scans`` `(n, 8, 8)`, and their labels `(count,)`.

    Args:
        scans, digits: the handwriting, in [0, 1], and what it says.
        count: number of canvases.
        seed: of all that is random in them.
        colours: scans on a canvas, 2 or 3, each in another colour: red, green, yellow.
        square: its side in pixels, at most that of a quadrant, ``input_size / 2``.
        clutter: 4×4 fragments of scans on a canvas, at random places behind everything else, each in one of the
            colours (Mnih et al., "Recurrent Models of Visual Attention", 2014, has the same in grey).
        noise: standard deviation of every pixel's noise in grey levels, of which white is 16.
        input_size: the side of a canvas in pixels, even.
    """
    rng = np.random.default_rng(seed)
    quadrant = input_size // 2
    images = np.zeros((count, 3, input_size, input_size), np.float32)
    canvas = np.arange(count)
    red = rng.integers(len(scans), size=count)
    green = (red + rng.integers(1, len(scans), size=count)) % len(scans)  # another scan, never the same
    quadrants = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)[:, : colours + 1]
    corners = np.stack([quadrants // 2, quadrants % 2], axis=-1) * quadrant
    shown = [red, green] if colours == 2 else [red, green, _third(red, green, len(scans), rng)]
    at = canvas[:, None, None]
    for _ in range(clutter):
        _add_fragment(images, scans, rng, colours)

    def place(which: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns, `(count, size, 1)` and `(count, 1, size)`, at random places of the canvases' quadrants."""
        return _window(corners[:, which] + rng.integers(quadrant - size + 1, size=(count, 2)), size)

    for colour, scan in enumerate(shown):
        rows, columns = place(colour, _SCAN)
        for channel in np.flatnonzero(_COLOURS[colour]):
            images[at, channel, rows, columns] = scans[scan]
    cued = rng.integers(colours, size=count)
    rows, columns = place(colours, square)
    for channel in (0, 1):
        images[at, channel, rows, columns] = _COLOURS[cued, channel][:, None, None]
    images[at, 2, rows, columns] = 1
    if noise:
        levels = images * _LEVELS + noise * rng.standard_normal(images.shape, np.float32)
        images = np.clip(np.round(levels), 0, _LEVELS) / _LEVELS
    labels = digits[np.stack(shown)[cued, canvas]]
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels).long())


def _window(corner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, `(count, size, 1)` and `(count, 1, size)`, of squares at the corners `(count, 2)`."""
    offset = np.arange(size)
    return (corner[:, :1] + offset)[:, :, None], (corner[:, 1:] + offset)[:, None, :]


def _third(first: np.ndarray, second: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of ``count``, another than the two that are different already."""
    third = rng.integers(count - 2, size=len(first))
    third += third >= np.minimum(first, second)
    third += third >= np.maximum(first, second)
    return third


def _add_fragment(images: np.ndarray, scans: np.ndarray, rng: np.random.Generator, colours: int) -> None:
    count = len(images)
    rows, columns = _window(rng.integers(_SCAN - _FRAGMENT + 1, size=(count, 2)), _FRAGMENT)
    fragment = scans[rng.integers(len(scans), size=count)[:, None, None], rows, columns]
    rows, columns = _window(rng.integers(images.shape[-1] - _FRAGMENT + 1, size=(count, 2)), _FRAGMENT)
    shows = _COLOURS[rng.integers(colours, size=count)]
    at = np.arange(count)[:, None, None]
    for channel in (0, 1):
        behind = images[at, channel, rows, columns]
        images[at, channel, rows, columns] = np.maximum(behind, fragment * shows[:, channel][:, None, None])


def _load(
    *,
    colours: int = 2,
    square: int = 3,
    clutter: int = 0,
    noise: float = 0,
    canvases: int = CANVASES['train'],
    input_size: int = _INPUT_SIZE,
) -> DataParts:
    """The three parts, always the same; channels normalised by the training part's mean and deviation.

    Args:
        colours, square, clutter, noise: as of :func:`canvases`, in all parts.
        canvases: of the training part; the others have 2,000 each.
        input_size: side of a canvas in pixels, even, 16 to 64.

    Raises:
        ValueError: an argument is out of range.
    """
    drawn = _drawn(colours, square, clutter, noise, canvases, input_size)
    images = {part: drawn[f'{part} images'] / _LEVELS for part in CANVASES}
    mean, std = _mean_and_std(images['train'])
    parts = {part: TensorDataset(images[part].sub_(mean).div_(std), drawn[f'{part} labels']) for part in CANVASES}
    return DataParts(**parts, classes=len(CLASS_NAMES), input_size=input_size)


def _check(**arguments) -> None:
    """Says that a value of ``arguments``, those of :func:`_load`, is out of range; nothing is drawn.

    Raises:
        ValueError: it is.
    """
    values = _DEFAULTS | arguments
    input_size = values['input_size']
    if input_size % 2 or not _SMALLEST <= input_size <= _LARGEST:
        raise ValueError(
            f'data set cued-digits: its canvases are as large as the skeleton has input_size, which must be an even '
            f'number of pixels from {_SMALLEST} to {_LARGEST}, not {input_size}'
        )
    rules = {
        'colours': Rule(lambda value: whole(2, 3).valid(value), '2 or 3'),
        'square': whole(1, input_size // 2),
        'clutter': whole(0, _MOST_CLUTTER),
        'noise': number(0, _LEVELS, of=' of grey levels'),
        'canvases': whole(_FEWEST_CANVASES, _MOST_CANVASES),
    }
    for name, rule in rules.items():
        rule.check(f'data set cued-digits: {name}', values[name])


def _normalisation(**arguments) -> Normalisation:
    """Of the training part's pixels; ``arguments`` as of :func:`_load`."""
    mean, std = _mean_and_std(_drawn(**_DEFAULTS | arguments)['train images'] / _LEVELS)
    return tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of the channels, each `(1, 3, 1, 1)`."""
    return images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)


def _drawn(colours: int, square: int, clutter: int, noise: float, canvases: int, input_size: int) -> dict[str, Tensor]:
    """What :func:`_draw` draws, from the cache if it is there."""
    knobs = {'colours': colours, 'square': square, 'clutter': clutter, 'noise': float(noise), 'input_size': input_size}
    _check(**knobs | {'noise': noise}, canvases=canvases)
    name = '-'.join(f'{name}={value}' for name, value in (*knobs.items(), ('canvases', canvases)))
    return cached(f'cued-digits-{_VERSION}-{name}', lambda: _draw(canvases, **knobs))


def _draw(train_canvases: int, **knobs) -> dict[str, Tensor]:
    """All parts, images in whole grey levels: a quarter of the size, and exactly the same numbers."""
    tensors = {}
    for seed, (part, scans) in enumerate(divided_scans().items()):
        count = train_canvases if part == 'train' else CANVASES[part]
        images, labels = canvases(*scans, count, seed, **knobs).tensors
        tensors |= {f'{part} images': (images * _LEVELS).to(torch.uint8), f'{part} labels': labels}
    return tensors


_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(_load).parameters.items()}

CUED_DIGITS = DataSet(
    _load,
    _check,
    _normalisation,
    always(CLASS_NAMES),
    training_images=lambda canvases=CANVASES['train'], **_: canvases,
    classes=len(CLASS_NAMES),
)
