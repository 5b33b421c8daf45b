"""Digits: scikit-learn's bundled 1,797 handwritten digits, each an 8×8 scan, enlarged to 32×32.

Source: UCI's "Optical Recognition of Handwritten Digits", test part.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from .data_set import DataSet, always
from .parts import DataParts

__all__ = ['CLASS_NAMES', 'DIGITS', 'SCANS', 'divided_scans']

CLASS_NAMES = tuple('0123456789')
SCANS = {'train': 1100, 'validation': 350, 'test': 347}
_SCAN, _ENLARGED = 8, 4


def divided_scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Part to its scans `(n, 8, 8)` in [0, 1] and their digits `(n,)`; stratified, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, digits = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, _SCAN, _SCAN).astype(np.float32)
    parts, rest = {}, np.arange(len(digits))
    for part in ('train', 'validation'):
        taken, rest = train_test_split(rest, train_size=SCANS[part], stratify=digits[rest], random_state=0)
        parts[part] = images[taken], digits[taken]
    parts['test'] = images[rest], digits[rest]
    return parts


def _normalisation(**_) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, which are the same three times, of pixels in [0, 1]."""
    images = divided_scans()['train'][0]
    return (float(images.mean()),) * 3, (float(images.std()),) * 3


def _load() -> DataParts:
    """The scans, every pixel a 4×4 square, the same in three channels; normalised by the training part."""
    scans = divided_scans()
    (mean, *_), (std, *_) = _normalisation()
    parts = {}
    for part, (images, labels) in scans.items():
        enlarged = (
            torch.from_numpy((images - mean) / std).repeat_interleave(_ENLARGED, 1).repeat_interleave(_ENLARGED, 2)
        )
        parts[part] = TensorDataset(
            enlarged[:, None].expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels).long()
        )
    return DataParts(**parts, classes=len(CLASS_NAMES), input_size=_SCAN * _ENLARGED)


DIGITS = DataSet(
    _load,
    always(None),
    _normalisation,
    always(CLASS_NAMES),
    training_images=always(SCANS['train']),
    classes=len(CLASS_NAMES),
)
