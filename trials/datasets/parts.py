"""What a data set is: disjoint parts of images and labels, and how a part is cut in two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from search_space.rules import shown
from strategies.autonl.processes import in_any_process

from .image_part import ImagePart

__all__ = ['DataParts', 'cut', 'data_folder', 'hold_out', 'labels_of']


@dataclass(frozen=True)
class DataParts:
    """A data set: parts that share no source image, of `(3, input_size, input_size)` images and labels.

    The training part gives its images as a training sees them, with random augmentation where a data set has any; the
    other two are always the same. A part that was not asked for is None.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    classes: int
    input_size: int

    def skipped_images(self) -> int:
        """How many images could not be read so far, in a process of the trial or in its loaders' worker processes.

        Where several train together all must ask.
        """
        parts = (self.train, self.validation, self.test)
        return sum(int(in_any_process(part.skipped).sum()) for part in parts if isinstance(part, ImagePart))


def labels_of(part: TensorDataset | ImagePart | Subset) -> Tensor:
    """Labels `(n,)` of a part, without its images being read."""
    if isinstance(part, Subset):
        return labels_of(part.dataset)[torch.as_tensor(part.indices)]
    return part.labels if isinstance(part, ImagePart) else part.tensors[1]


def cut(labels, fraction: float, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of ``labels`` `(n,)` without, and only, a ``fraction``; stratified, always the same.

    Raises:
        ValueError: a class has too few images; ``of`` says in the message what was to be cut.
    """
    from sklearn.model_selection import train_test_split  # half a second, which most trainings have no use for

    labels = np.asarray(labels)
    try:
        kept, taken = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=0)
    except ValueError:
        counts = np.unique(labels, return_counts=True)[1]
        raise ValueError(
            f'{of}: a fraction of {fraction:g} that has every class cannot be taken from {len(labels)} images of '
            f'{len(counts)} classes, the smallest of {counts.min(initial=len(labels))}'
        ) from None
    return kept, taken


def data_folder(name: str, folder: str | Path) -> Path:
    """``folder`` as an absolute path; a relative one is seen from the working directory.

    Raises:
        ValueError: it is no path, or the root of the file system; ``name`` says in the message whose it is.
    """
    if not isinstance(folder, str | Path) or not str(folder) or '\0' in str(folder):
        raise ValueError(f'data set {name}: folder must be the path of a folder, not {shown(folder)}')
    path = Path(folder).expanduser().resolve()
    if path == Path(path.anchor):
        raise ValueError(
            f'data set {name}: folder must be that of the data, not {path}, with all that is on the machine'
        )
    return path


def hold_out(train: Dataset, fraction: float) -> tuple[Subset, Subset]:
    """``train`` without, and only, a ``fraction`` for a search's thresholds; stratified, always the same."""
    weights, held_out = cut(labels_of(train), fraction, 'the held-out part')
    return Subset(train, weights.tolist()), Subset(train, held_out.tolist())
