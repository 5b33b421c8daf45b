"""Data sets by name, each in a training, a validation and a test part."""

from __future__ import annotations

import inspect
from pathlib import Path

from search_space.skeleton import Skeleton, closest

from . import cifar, cued_digits, digits, image_folder, mnist
from .data_set import DataSet, Normalisation, at_size
from .parts import DataParts, hold_out, labels_of

__all__ = [
    'DATASETS',
    'DataParts',
    'DataSet',
    'check_arguments',
    'check_classes',
    'check_files',
    'check_fit',
    'class_names',
    'hold_out',
    'labels_of',
    'load',
    'normalisation',
    'training_images',
]

DATASETS = {
    'cued-digits': cued_digits.CUED_DIGITS,
    'digits': digits.DIGITS,
    'mnist': mnist.MNIST,
    'fashion-mnist': mnist.FASHION_MNIST,
    'kmnist': mnist.KMNIST,
    'cifar10': cifar.CIFAR10,
    'cifar100': cifar.CIFAR100,
    'imagenet': image_folder.IMAGENET,
    'image-folder': image_folder.IMAGE_FOLDER,
}
_INPUT_SIZE = 'input_size'


def load(name: str, input_size: int | None = None, **arguments) -> DataParts:
    """The data set called ``name``, a key of :data:`DATASETS`.

    Args:
        name: of the data set.
        input_size: of the images in pixels, where the data set has no size of its own: photographs are brought to it
            (224 by default), cued digits drawn at it (32), images of 28 pixels put in a margin.
        arguments: the data set's own, such as ``folder`` or ``clutter``.

    Raises:
        ValueError: there is no such data set or argument, or the data is not there.
    """
    check_arguments(name, arguments, input_size)
    return at_size(DATASETS[name].load, input_size)(**arguments)


def normalisation(name: str, input_size: int | None = None, **arguments) -> Normalisation:
    """Mean and standard deviation of the three channels: an image is ``(pixels - mean) / std``, of pixels in [0, 1].

    Known without the data set's files.

    Args:
        name: of the data set, a key of :data:`DATASETS`.
        input_size, arguments: as of :func:`load`.
    """
    return at_size(DATASETS[name].normalisation, input_size)(**arguments)


def class_names(name: str, **arguments) -> tuple[str, ...]:
    """What the classes of a data set are called, in the order of its labels.

    Args:
        name: of the data set, a key of :data:`DATASETS`.
        arguments: the data set's own.

    Raises:
        ValueError: they are known from the data set's files only, and these are not there.
    """
    return DATASETS[name].class_names(**arguments)


def check_arguments(name: str, arguments: dict, input_size: int | None = None) -> None:
    """Says what :func:`load` would refuse, without a look at any file.

    Raises:
        ValueError: the data set or an argument of it is unknown, or a value is out of range.
    """
    if name not in DATASETS:
        raise ValueError(f'no data set {name!r}; it must be one of {", ".join(DATASETS)}')
    known = [key for key in inspect.signature(DATASETS[name].load).parameters if key != _INPUT_SIZE]
    for key in arguments:
        if key not in known:
            hint = closest(key, known) if known else 'it has none'
            raise ValueError(f'data set {name}: unknown argument {key!r}; {hint}')
    at_size(DATASETS[name].check, input_size)(**arguments)


def check_files(name: str, working_folder: Path, **arguments) -> None:
    """Says that files which :func:`load` would read are not there, without opening one.

    Args:
        name: of the data set, a key of :data:`DATASETS`.
        working_folder: where a relative ``folder`` is seen from.
        arguments: the data set's own, valid.

    Raises:
        ValueError: files are missing; the message says which, and where they are to be had.
    """
    if (find := DATASETS[name].find) is not None:
        folder = Path(arguments.pop('folder', 'data')).expanduser()
        find(folder=str(working_folder / folder), **arguments)


def training_images(name: str, **arguments) -> int | None:
    """How many images the training part has; None where its files have to say it.

    Args:
        name: of the data set, a key of :data:`DATASETS`.
        arguments: the data set's own, valid.
    """
    count = DATASETS[name].training_images
    return None if count is None else count(**arguments)


def check_fit(parts: DataParts, skeleton: Skeleton, name: str) -> None:
    """Says, before anything is trained, that networks of ``skeleton`` are not made for the data set called ``name``.

    Raises:
        ValueError: they expect other classes or another size.
    """
    for key in ('classes', _INPUT_SIZE):
        _check_same(key, getattr(parts, key), skeleton, name)


def check_classes(name: str, skeleton: Skeleton) -> None:
    """As :func:`check_fit`, of the classes alone, and without the data set's files, as far as that goes.

    Raises:
        ValueError: networks of ``skeleton`` expect other classes.
    """
    if (classes := DATASETS[name].classes) is not None:
        _check_same('classes', classes, skeleton, name)


def _check_same(key: str, given: int, skeleton: Skeleton, name: str) -> None:
    needed = getattr(skeleton, key)
    if needed != given:
        raise ValueError(
            f'skeleton {skeleton.name!r} has {key}: {needed}, but data set {name} has {given}; '
            f'take a skeleton with {key}: {given}'
        )
