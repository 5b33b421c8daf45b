"""The record of a data set, one for each name that ``dataset:`` takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from .parts import DataParts

__all__ = ['DataSet', 'Normalisation', 'always', 'at_size']

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the three channels: an image is ``(pixels - mean) / std``, of pixels in [0, 1]."""


@dataclass(frozen=True)
class DataSet:
    """What can be asked of a data set. Each attribute is called with the data set's own arguments, by name.

    Attributes:
        load: gives the parts; its parameters are the arguments that the data set has. ``input_size`` is not the user's
            to give, it is the skeleton's.
        check: raises ValueError for a value that :attr:`load` would refuse, and looks at no file.
        normalisation: of the images; looks at no file.
        class_names: in the order of the labels; raises ValueError where files have to say it and are not there.
        load_test: gives the test part with None for the others, where it can be there without them.
        find: raises ValueError where files that :attr:`load` reads are not there, and opens none of them.
        training_images: how many the training part has, where that is known without its files.
        classes: how many there are, where that is known without its files.
    """

    load: Callable[..., DataParts]
    check: Callable[..., None]
    normalisation: Callable[..., Normalisation]
    class_names: Callable[..., tuple[str, ...]]
    load_test: Callable[..., DataParts] | None = None
    find: Callable[..., None] | None = None
    training_images: Callable[..., int] | None = None
    classes: int | None = None


def always(value) -> Callable:
    """A function that gives ``value``, whatever the arguments of the data set."""
    return lambda **_: value


def at_size(of: Callable, input_size: int | None) -> Callable:
    """``of``, told the ``input_size`` in pixels, if it takes one; some data sets have a size of their own."""
    parameters = inspect.signature(of).parameters
    takes = 'input_size' in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return functools.partial(of, input_size=input_size) if takes and input_size is not None else of
