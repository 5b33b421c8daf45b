"""CIFAR-10 and CIFAR-100: 60,000 photographs of 32×32 pixels, read by torchvision.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

import torch
import torchvision
from torchvision.transforms import AutoAugmentPolicy, v2

from .augmentation import AUGMENTATION, RANDOM_ERASING, augmented
from .data_set import DataSet, always
from .image_part import ImagePart
from .parts import DataParts, cut, data_folder

__all__ = ['CIFAR10', 'CIFAR100', 'VALIDATION']

VALIDATION = 0.1
"""Fraction of the published training images that is the validation part."""
_NORMALISATION = {
    'cifar10': ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    'cifar100': ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
"""Mean and standard deviation of the channels, of the training images' pixels in [0, 1]."""
_SOURCES = {'cifar10': torchvision.datasets.CIFAR10, 'cifar100': torchvision.datasets.CIFAR100}
_SIZE, _PADDING = 32, 4
_IMAGES = 50_000
"""Published to train on."""


def _read(name: str, folder: str, train: bool) -> torchvision.datasets.CIFAR10:
    try:
        return _SOURCES[name](data_folder(name, folder), train=train)
    except RuntimeError:  # torchvision compares the files with their published checksums
        raise _not_there(name, folder) from None


def _not_there(name: str, folder: str) -> ValueError:
    root, source = data_folder(name, folder), _SOURCES[name]
    return ValueError(
        f'data set {name}: {root / source.base_folder} is missing or damaged; download {source.filename} from the '
        f'CIFAR page of the University of Toronto and unpack it in {root}, or name another folder with dataset/folder'
    )


def _parts(name: str, folder: str, augmentation: str, random_erasing: float) -> DataParts:
    """From the files in ``folder``: the validation part is cut from the published training images, stratified.

    A training image is shifted by up to 4 pixels and mirrored, then as :func:`.augmentation.augmented`.

    Raises:
        ValueError: the files are not there, or not as they were published.
    """
    learnt, test = (_read(name, folder, train=train) for train in (True, False))
    same = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_NORMALISATION[name])]
    crop = [v2.RandomCrop(_SIZE, _PADDING), v2.RandomHorizontalFlip()]
    train, validation = cut(learnt.targets, VALIDATION, f'data set {name}: the validation part')
    return DataParts(
        ImagePart(learnt, train, augmented(crop, same, AutoAugmentPolicy.CIFAR10, augmentation, random_erasing)),
        ImagePart(learnt, validation, v2.Compose(same)),
        ImagePart(test, range(len(test)), v2.Compose(same)),
        len(learnt.classes),
        _SIZE,
    )


def _data_set(name: str) -> DataSet:
    def load(*, folder: str = 'data', augmentation: str = 'none', random_erasing: float = 0.0) -> DataParts:
        return _parts(name, folder, augmentation, random_erasing)

    def check(*, folder: str = 'data', augmentation: str = 'none', random_erasing: float = 0.0) -> None:
        data_folder(name, folder)
        AUGMENTATION.check(f'data set {name}: augmentation', augmentation)
        RANDOM_ERASING.check(f'data set {name}: random_erasing', random_erasing)

    def class_names(*, folder: str = 'data', **_) -> tuple[str, ...]:
        """From the files, which are compared with their published checksums."""
        return tuple(_read(name, folder, train=False).classes)

    def find(*, folder: str = 'data', **_) -> None:
        source = _SOURCES[name]
        for file, _checksum in source.train_list + source.test_list:
            if not (data_folder(name, folder) / source.base_folder / file).is_file():
                raise _not_there(name, folder)

    learnt = always(round(_IMAGES * (1 - VALIDATION)))
    return DataSet(
        load,
        check,
        always(_NORMALISATION[name]),
        class_names,
        find=find,
        training_images=learnt,
        classes=int(name.removeprefix('cifar')),
    )


CIFAR10 = _data_set('cifar10')
"""10 classes, of 4,500 training, 500 validation and 1,000 test images each."""
CIFAR100 = _data_set('cifar100')
"""100 classes, of 450 training, 50 validation and 100 test images each."""
