"""Data sets by name, each in a training, a validation and a test part."""

from __future__ import annotations

import inspect

from search_space.skeleton import Skeleton, closest

from . import cifar, cued_digits, digits, image_folder
from .encoding import class_names, normalisation
from .parts import DataParts, at_size, hold_out, labels_of

__all__ = [
    'DATASETS',
    'DataParts',
    'check_arguments',
    'check_fit',
    'class_names',
    'hold_out',
    'labels_of',
    'load',
    'normalisation',
]

DATASETS = {
    'cued-digits': cued_digits.load,
    'digits': digits.load,
    'cifar10': cifar.load_cifar10,
    'cifar100': cifar.load_cifar100,
    'imagenet': image_folder.load_imagenet,
    'image-folder': image_folder.load,
}
_INPUT_SIZE = 'input_size'


def load(name: str, input_size: int | None = None, **arguments) -> DataParts:
    """The data set called ``name``, a key of :data:`DATASETS`.

    Args:
        name: of the data set.
        input_size: of the images in pixels, where the data set has no size of its own: photographs are brought to it
            (224 by default), cued digits drawn at it (32).
        arguments: the data set's own, such as ``folder`` or ``clutter``.

    Raises:
        ValueError: there is no such data set or argument, or the data is not there.
    """
    check_arguments(name, arguments)
    return at_size(DATASETS[name], input_size)(**arguments)


def check_arguments(name: str, arguments: dict) -> None:
    """Says now that :func:`load` does not know the data set, or an argument of it.

    Raises:
        ValueError: with what it is, and what was perhaps meant.
    """
    if name not in DATASETS:
        raise ValueError(f'no data set {name!r}; it must be one of {", ".join(DATASETS)}')
    known = [key for key in inspect.signature(DATASETS[name]).parameters if key != _INPUT_SIZE]
    for key in arguments:
        if key not in known:
            hint = closest(key, known) if known else 'it has none'
            raise ValueError(f'data set {name}: unknown argument {key!r}; {hint}')


def check_fit(parts: DataParts, skeleton: Skeleton, name: str) -> None:
    """Says, before anything is trained, that networks of ``skeleton`` are not made for the data set called ``name``.

    Raises:
        ValueError: they expect other classes or another size.
    """
    for key in ('classes', _INPUT_SIZE):
        needed, given = getattr(skeleton, key), getattr(parts, key)
        if needed != given:
            raise ValueError(
                f'skeleton {skeleton.name!r} has {key}: {needed}, but data set {name} has {given}; '
                f'take a skeleton with {key}: {given}'
            )
