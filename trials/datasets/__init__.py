"""Data sets by name, each in a training, a validation and a test part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset, Subset

from . import cued_digits

__all__ = ['DATASETS', 'DataParts', 'hold_out', 'load']


@dataclass(frozen=True)
class DataParts:
    """A data set: parts that share no source image, of `(3, input_size, input_size)` images and labels."""

    train: Dataset
    validation: Dataset
    test: Dataset
    classes: int
    input_size: int


def _cued_digits() -> DataParts:
    return DataParts(**cued_digits.parts(), classes=cued_digits.CLASSES, input_size=cued_digits.INPUT_SIZE)


DATASETS = {'cued-digits': _cued_digits}


def load(name: str) -> DataParts:
    """The data set called ``name``, a key of :data:`DATASETS`."""
    return DATASETS[name]()


def hold_out(train, fraction: float) -> tuple[Subset, Subset]:
    """``train`` without, and only, a ``fraction`` for a search's thresholds; stratified, always the same."""
    labels = train.tensors[1].numpy()
    weights, held_out = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=0)
    return Subset(train, weights.tolist()), Subset(train, held_out.tolist())
