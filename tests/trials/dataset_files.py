"""Small data sets of random images, in the formats that the real ones are published in."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

WNIDS = ['n01440764', 'n01443537', 'n01484850', 'n01491361']


def write_cifar(root: Path, name: str, classes: int, train: int, test: int) -> None:
    """Pickled batches of CIFAR-10 or CIFAR-100, with ``train`` and ``test`` images of each class."""
    source = {'cifar10': torchvision.datasets.CIFAR10, 'cifar100': torchvision.datasets.CIFAR100}[name]
    folder, key = root / source.base_folder, 'labels' if name == 'cifar10' else 'fine_labels'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for files, count in ((source.train_list, train), (source.test_list, test)):
        labels = rng.permutation(np.repeat(np.arange(classes), count))
        for (file, _), part in zip(files, np.array_split(labels, len(files)), strict=True):
            images = rng.integers(256, size=(len(part), 3072), dtype=np.uint8)
            (folder / file).write_bytes(pickle.dumps({'data': images, key: part.tolist()}))
    names = [f'class {number}' for number in range(classes)]
    (folder / source.meta['filename']).write_bytes(pickle.dumps({source.meta['key']: names}))


def without_checksums(patch: pytest.MonkeyPatch) -> None:
    """Let torchvision read CIFAR batches of other images than the published ones."""
    for source in (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100):
        patch.setattr(source, 'train_list', [[file, None] for file, _ in source.train_list])
        patch.setattr(source, 'test_list', [[file, None] for file, _ in source.test_list])
        patch.setattr(source, 'meta', source.meta | {'md5': None})


def write_images(folder: Path, classes: list[str], count: int, suffixes=('.JPEG',), seed: int = 0) -> None:
    """``folder/CLASS/IMAGE``, ``count`` images of each class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(33, 60, size=2)
            image = Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))
            image.save(folder / name / f'{name}_{number:03d}{suffixes[number % len(suffixes)]}')


def idx(values: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    return struct.pack('>HBB', 0, 8, values.ndim) + struct.pack(f'>{values.ndim}I', *values.shape) + values.tobytes()


def write_mnist(folder: Path, train: int, test: int, gzipped: bool, seed: int = 0) -> None:
    """The four files of MNIST and its like, with ``train`` and ``test`` images of each class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for part, count in (('train', train), ('t10k', test)):
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
        images = rng.integers(256, size=(len(labels), 28, 28), dtype=np.uint8)
        for name, values in (('images-idx3-ubyte', images), ('labels-idx1-ubyte', labels)):
            file = folder / f'{part}-{name}{".gz" if gzipped else ""}'
            file.write_bytes(gzip.compress(idx(values)) if gzipped else idx(values))


def write_all(root: Path) -> dict[str, dict]:
    """All data sets that lie in files; name to the arguments that they are loaded with."""
    write_cifar(root / 'cifar', 'cifar10', 10, train=20, test=3)
    write_cifar(root / 'cifar', 'cifar100', 100, train=13, test=2)
    write_mnist(root / 'torchvision' / 'MNIST' / 'raw', train=20, test=3, gzipped=False)
    write_mnist(root / 'debian' / 'fashion-mnist', train=20, test=3, gzipped=True)
    write_mnist(root / 'kmnist', train=20, test=3, gzipped=True)
    write_images(root / 'imagenet' / 'train', WNIDS, 30)
    write_images(root / 'imagenet' / 'val', WNIDS, 4, seed=1)
    write_images(root / 'own', ['cat', 'dog', 'owl'], 24, suffixes=('.jpg', '.png'))
    return {
        'cifar10': {'folder': str(root / 'cifar')},
        'cifar100': {'folder': str(root / 'cifar')},
        'mnist': {'folder': str(root / 'torchvision')},
        'fashion-mnist': {'folder': str(root / 'debian'), 'input_size': 32},
        'kmnist': {'folder': str(root / 'kmnist')},
        'imagenet': {'folder': str(root / 'imagenet'), 'input_size': 32},
        'image-folder': {'folder': str(root / 'own'), 'input_size': 32},
    }
