"""MNIST, Fashion-MNIST and Kuzushiji-MNIST: 70,000 grey images of 28×28 pixels in ten classes, in files of one format.

Sources: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998); Xiao et al., "Fashion-MNIST: a
Novel Image Dataset for Benchmarking Machine Learning Algorithms" (2017); Clanuwat et al., "Deep Learning for Classical
Japanese Literature" (2018).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from search_space.rules import whole

from .data_set import DataSet, always
from .digits import CLASS_NAMES
from .image_part import ImagePart
from .parts import DataParts, cut, data_folder

__all__ = ['FASHION_MNIST', 'KMNIST', 'MNIST', 'VALIDATION', 'read_idx']

VALIDATION = 0.1
"""Fraction of the published training images that is the validation part."""
_SIDE, _LARGEST_SIDE = 28, 64
_IMAGES = 60_000
"""Published to train on."""
_SHIFT = 3
"""Pixels that a training image is moved by at most: its margin."""
_MOST_VALUES = 10**9
"""Of a file; the published ones have 47 million."""
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class _Published:
    """Where files of a data set are found, and what is in them.

    Attributes:
        name: of the data set.
        torchvision: the folder that torchvision unpacks it into, in the folder that it is given.
        download: where the files are.
        mean, std: of the training images' pixels in [0, 1].
        classes: what they are called.
        mirrored: whether an image says the same in a mirror.
    """

    name: str
    torchvision: str
    download: str
    mean: float
    std: float
    classes: tuple[str, ...]
    mirrored: bool = False


class _Pictures(Dataset):
    """Images and labels in memory: ``pixels`` `(n, 28, 28)` of uint8, and ``targets`` `(n,)`."""

    def __init__(self, pixels: np.ndarray, targets: np.ndarray):
        self.pixels, self.targets = pixels, targets.astype(np.int64)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.pixels[index], int(self.targets[index])


class _Placed:
    """An image `(28, 28)` of uint8 to a tensor `(3, side, side)`, normalised, in a margin of black.

    Takes a sixth of the time of torchvision's transforms, which is as much as a step of a small network takes.

    Args:
        of: whose images these are.
        side: in pixels, at least 28.
        augmented: move the image by up to 3 pixels, and mirror every second one where it says the same in a mirror.
    """

    def __init__(self, of: _Published, side: int, augmented: bool):
        self.side, self.shift, self.mirrored = side, _SHIFT if augmented else 0, augmented and of.mirrored
        self.levels = ((np.arange(256) / 255 - of.mean) / of.std).astype(np.float32)

    def __call__(self, image: np.ndarray) -> Tensor:
        if self.mirrored and torch.rand(()) < 0.5:
            image = image[:, ::-1]
        wide = np.full((self.side + 2 * self.shift,) * 2, self.levels[0])
        first = self.shift + (self.side - _SIDE) // 2
        wide[first : first + _SIDE, first : first + _SIDE] = self.levels[image]
        top, left = torch.randint(2 * self.shift + 1, (2,)).tolist() if self.shift else (0, 0)
        seen = wide[top : top + self.side, left : left + self.side]
        return torch.from_numpy(np.repeat(seen[None], 3, axis=0))


def read_idx(file: Path) -> np.ndarray:
    """The array of bytes that an IDX file holds, gzipped or not, in its shape.

    The format, big-endian: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as 32
    bits, the values.

    Raises:
        ValueError: it is not such a file, or there is more or less in it than it says; the message names the file.
    """
    try:
        with gzip.open(file) if file.suffix == '.gz' else file.open('rb') as content:
            zeros, kind, dimensions = struct.unpack('>HBB', content.read(4))
            if zeros or kind != _UNSIGNED_BYTE or not 1 <= dimensions <= 3:
                raise ValueError(f'{file} is not an IDX file of bytes')
            shape = struct.unpack(f'>{dimensions}I', content.read(4 * dimensions))
            count = math.prod(shape)
            if count > _MOST_VALUES:
                raise ValueError(f'{file} says that it holds {count:,} values; at most {_MOST_VALUES:,} are read')
            values = content.read(count + 1)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f'{file} is damaged: {error}') from None
    if len(values) != count:
        found = 'more' if len(values) > count else f'{len(values):,}'
        raise ValueError(f'{file} is damaged: it says that it holds {count:,} values, and holds {found}')
    return np.frombuffer(values, np.uint8).reshape(shape)


def _data_set(of: _Published) -> DataSet:
    def load(*, folder: str = 'data', input_size: int = _SIDE) -> DataParts:
        check(folder=folder, input_size=input_size)
        learnt, test = (_read(of, folder, part) for part in ('train', 't10k'))
        train, validation = cut(learnt.targets, VALIDATION, f'data set {of.name}: the validation part')
        plain = _Placed(of, input_size, augmented=False)
        return DataParts(
            ImagePart(learnt, train, _Placed(of, input_size, augmented=True)),
            ImagePart(learnt, validation, plain),
            ImagePart(test, range(len(test)), plain),
            len(of.classes),
            input_size,
        )

    def check(*, folder: str = 'data', input_size: int = _SIDE) -> None:
        data_folder(of.name, folder)
        rule = whole(_SIDE, _LARGEST_SIDE, of=' of pixels')
        rule.check(
            f'data set {of.name}: its images lie in a margin of black, and input_size of the skeleton', input_size
        )

    def find(*, folder: str = 'data', **_) -> None:
        for part in ('train', 't10k'):
            _files(of, folder, part)

    learnt = always(round(_IMAGES * (1 - VALIDATION)))
    return DataSet(
        load,
        check,
        always(((of.mean,) * 3, (of.std,) * 3)),
        always(of.classes),
        find=find,
        training_images=learnt,
        classes=len(of.classes),
    )


def _read(of: _Published, folder: str, part: str) -> _Pictures:
    """The images and labels of ``train`` or ``t10k``, the test images.

    Raises:
        ValueError: the files are not there, or not such files.
    """
    images, labels = _files(of, folder, part)
    try:
        pictures = _Pictures(read_idx(images), read_idx(labels))
    except ValueError as error:
        raise ValueError(f'data set {of.name}: {error}') from None
    shape, count = pictures.pixels.shape, len(pictures.targets)
    if pictures.targets.ndim != 1 or not count or shape != (count, _SIDE, _SIDE):
        raise ValueError(
            f'data set {of.name}: {images} must hold an image of 28×28 pixels for each label of {labels}, and holds '
            f'{_by(shape)} values for {_by(pictures.targets.shape)}'
        )
    if pictures.targets.max() >= len(of.classes):
        raise ValueError(f'data set {of.name}: {labels} must hold labels from 0 to 9, not {pictures.targets.max()}')
    return pictures


def _files(of: _Published, folder: str, part: str) -> list[Path]:
    """Those of the images and of the labels of ``train`` or ``t10k``.

    Raises:
        ValueError: one is not there.
    """
    root = data_folder(of.name, folder)
    return [_find(of, root, f'{part}-{what}') for what in ('images-idx3-ubyte', 'labels-idx1-ubyte')]


def _by(shape: Sequence[int]) -> str:
    return '×'.join(map(str, shape))


def _find(of: _Published, root: Path, name: str) -> Path:
    """The file called ``name``, or with ``.gz``, as torchvision or Debian lays it or in ``root`` itself."""
    for folder in (root / of.torchvision / 'raw', root / of.name, root):
        for file in (folder / name, folder / f'{name}.gz'):
            if file.is_file():
                return file
    package = f' (Debian: the package dataset-{of.name}, in /usr/share/datasets)' if of is _FASHION else ''
    raise ValueError(
        f'data set {of.name}: {root / name} is missing, with .gz or without; download it and the files beside it from '
        f'{of.download} to {root}{package}, or name another folder with dataset/folder'
    )


_MNIST = _Published('mnist', 'MNIST', 'yann.lecun.com/exdb/mnist', 0.1307, 0.3081, CLASS_NAMES)
_FASHION = _Published(
    'fashion-mnist',
    'FashionMNIST',
    'github.com/zalandoresearch/fashion-mnist',
    0.2860,
    0.3530,
    ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'),
    mirrored=True,
)
_KMNIST = _Published(
    'kmnist',
    'KMNIST',
    'github.com/rois-codh/kmnist',
    0.1918,
    0.3483,
    ('o', 'ki', 'su', 'tsu', 'na', 'ha', 'ma', 'ya', 're', 'wo'),
)

MNIST, FASHION_MNIST, KMNIST = (_data_set(of) for of in (_MNIST, _FASHION, _KMNIST))
