"""Cued digits: real handwriting, and an answer that needs two far-apart places of the image at once.

A 32×32×3 canvas in four quadrants. Two different scans stand at random places of two random quadrants, one in the red
channel, one in the green. In a third quadrant stands a 3×3 square, in red and blue or in green and blue: the label is
the digit of that colour. A convolution near the input sees one quadrant; a non-local block sees all four.

The handwriting is scikit-learn's bundled 1,797 scans of 8×8 pixels (UCI's optical recognition of handwritten digits,
test part). They are divided before any canvas is made, so no scan is on two sides.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

__all__ = ['CANVASES', 'CLASSES', 'INPUT_SIZE', 'SCANS', 'canvases', 'divided_scans', 'parts']

CLASSES, INPUT_SIZE = 10, 32
SCANS = {'train': 1100, 'validation': 350, 'test': 347}
CANVASES = {'train': 6000, 'validation': 2000, 'test': 2000}
_QUADRANT, _SCAN, _SQUARE = 16, 8, 3


def divided_scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Part to its scans `(n, 8, 8)` in [0, 1] and their digits `(n,)`; stratified, always the same."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, _SCAN, _SCAN).astype(np.float32)
    parts, rest = {}, np.arange(len(digits))
    for part in ('train', 'validation'):
        taken, rest = train_test_split(rest, train_size=SCANS[part], stratify=digits[rest], random_state=0)
        parts[part] = images[taken], digits[taken]
    parts['test'] = images[rest], digits[rest]
    return parts


def canvases(scans: np.ndarray, digits: np.ndarray, count: int, seed: int) -> TensorDataset:
    """``count`` canvases `(count, 3, 32, 32)` in [0, 1] of ``scans`` `(n, 8, 8)`, and their labels `(count,)`."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 3, INPUT_SIZE, INPUT_SIZE), np.float32)
    canvas = np.arange(count)
    red = rng.integers(len(scans), size=count)
    green = (red + rng.integers(1, len(scans), size=count)) % len(scans)  # another scan, never the same
    quadrants = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)[:, :3]
    corners = np.stack([quadrants // 2, quadrants % 2], axis=-1) * _QUADRANT

    def place(which: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns, `(count, size, 1)` and `(count, 1, size)`, at random places of the canvases' quadrants."""
        corner = corners[:, which] + rng.integers(_QUADRANT - size + 1, size=(count, 2))
        offset = np.arange(size)
        return (corner[:, :1] + offset)[:, :, None], (corner[:, 1:] + offset)[:, None, :]

    at = canvas[:, None, None]
    for channel, scan in ((0, red), (1, green)):
        rows, columns = place(channel, _SCAN)
        images[at, channel, rows, columns] = scans[scan]
    cued = rng.integers(2, size=count)
    rows, columns = place(2, _SQUARE)
    images[at, cued[:, None, None], rows, columns] = 1
    images[at, 2, rows, columns] = 1
    labels = digits[np.where(cued == 0, red, green)]
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels).long())


def parts() -> dict[str, TensorDataset]:
    """The three parts, always the same; channels normalised by the training part's mean and deviation."""
    drawn = {part: canvases(*scans, CANVASES[part], seed) for seed, (part, scans) in enumerate(divided_scans().items())}
    images = drawn['train'].tensors[0]
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    return {part: TensorDataset((data.tensors[0] - mean) / std, data.tensors[1]) for part, data in drawn.items()}
