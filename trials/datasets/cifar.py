"""CIFAR-10 and CIFAR-100: 60,000 photographs of 32×32 pixels, read by torchvision.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

import torch
import torchvision
from torchvision.transforms import v2

from .image_part import ImagePart
from .parts import DataParts, cut, data_folder

__all__ = ['NORMALISATION', 'VALIDATION', 'class_names', 'load_cifar10', 'load_cifar100']

VALIDATION = 0.1
"""Fraction of the published training images that is the validation part."""
NORMALISATION = {
    'cifar10': ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    'cifar100': ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
"""Mean and standard deviation of the channels, of the training images' pixels in [0, 1]."""
_SOURCES = {'cifar10': torchvision.datasets.CIFAR10, 'cifar100': torchvision.datasets.CIFAR100}
_SIZE, _PADDING = 32, 4


def load_cifar10(*, folder: str = 'data') -> DataParts:
    """10 classes, of 4,500 training, 500 validation and 1,000 test images each."""
    return _parts('cifar10', folder)


def load_cifar100(*, folder: str = 'data') -> DataParts:
    """100 classes, of 450 training, 50 validation and 100 test images each."""
    return _parts('cifar100', folder)


def class_names(name: str, *, folder: str = 'data') -> tuple[str, ...]:
    """What the classes of ``cifar10`` or ``cifar100`` are called, from the files in ``folder``.

    Raises:
        ValueError: they are not there, or not as they were published.
    """
    return tuple(_read(name, folder, train=False).classes)


def _read(name: str, folder: str, train: bool) -> torchvision.datasets.CIFAR10:
    root, source = data_folder(name, folder), _SOURCES[name]
    try:
        return source(root, train=train)
    except RuntimeError:  # torchvision compares the files with their published checksums
        raise ValueError(
            f'data set {name}: {root / source.base_folder} is missing or damaged; download {source.filename} from the '
            f'CIFAR page of the University of Toronto and unpack it in {root}, or name another folder with '
            'dataset/folder'
        ) from None


def _parts(name: str, folder: str) -> DataParts:
    """Cut from what lies in ``folder``; a training image is shifted by up to 4 pixels and mirrored.

    Raises:
        ValueError: it is not there, or not as it was published.
    """
    learnt, test = (_read(name, folder, train=train) for train in (True, False))
    same = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALISATION[name])]
    augmented = v2.Compose([v2.RandomCrop(_SIZE, _PADDING), v2.RandomHorizontalFlip(), *same])
    train, validation = cut(learnt.targets, VALIDATION, f'data set {name}: the validation part')
    return DataParts(
        ImagePart(learnt, train, augmented),
        ImagePart(learnt, validation, v2.Compose(same)),
        ImagePart(test, range(len(test)), v2.Compose(same)),
        len(learnt.classes),
        _SIZE,
    )
