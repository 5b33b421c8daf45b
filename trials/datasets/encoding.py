"""What images and labels of a data set stand for: how pixels are normalised, and what the classes are called."""

from __future__ import annotations

from torchvision.models import MobileNet_V2_Weights

from . import cifar, cued_digits, digits, image_folder
from .parts import at_size

__all__ = ['class_names', 'normalisation']

_NORMALISATIONS = {
    'cued-digits': cued_digits.normalisation,
    'digits': digits.normalisation,
    'cifar10': lambda **_: cifar.NORMALISATION['cifar10'],
    'cifar100': lambda **_: cifar.NORMALISATION['cifar100'],
    'imagenet': lambda **_: image_folder.NORMALISATION,
    'image-folder': lambda **_: image_folder.NORMALISATION,
}

_CLASS_NAMES = {
    'cued-digits': lambda **_: digits.CLASS_NAMES,
    'digits': lambda **_: digits.CLASS_NAMES,
    'cifar10': lambda **arguments: cifar.class_names('cifar10', **arguments),
    'cifar100': lambda **arguments: cifar.class_names('cifar100', **arguments),
    'imagenet': lambda **_: tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta['categories']),
    'image-folder': image_folder.class_names,
}


def normalisation(name: str, input_size: int | None = None, **arguments) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the three channels: an image is ``(pixels - mean) / std``, of pixels in [0, 1].

    Known without the data set's files.

    Args:
        name: of the data set, a key of :data:`.DATASETS`.
        input_size: as of :func:`.load`.
        arguments: the data set's own.
    """
    return at_size(_NORMALISATIONS[name], input_size)(**arguments)


def class_names(name: str, **arguments) -> tuple[str, ...]:
    """What the classes of a data set are called, in the order of its labels.

    Args:
        name: of the data set, a key of :data:`.DATASETS`.
        arguments: the data set's own.

    Raises:
        ValueError: they are known from the data set's files only, and these are not there.
    """
    return _CLASS_NAMES[name](**arguments)
