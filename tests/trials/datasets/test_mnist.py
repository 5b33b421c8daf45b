"""MNIST and its like: files of one format, wherever torchvision, Debian or a person puts them."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import idx, write_mnist

from trials.datasets import class_names, load, normalisation
from trials.training.evaluator import loader

NAMES = {'mnist': 'MNIST', 'fashion-mnist': 'FashionMNIST', 'kmnist': 'KMNIST'}
DEBIAN = Path('/usr/share/datasets/fashion-mnist')
LAYOUTS = {
    'as torchvision lays it': lambda name: f'{NAMES[name]}/raw',
    'as Debian lays it': lambda name: name,
    'in the folder itself': lambda name: '.',
}


@pytest.mark.parametrize('gzipped', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', NAMES)
def test_files_are_found_where_they_usually_lie(name, layout, gzipped, tmp_path):
    write_mnist(tmp_path / LAYOUTS[layout](name), train=20, test=2, gzipped=gzipped)
    parts = load(name, folder=str(tmp_path))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [180, 20, 20]
    assert (parts.classes, parts.input_size) == (10, 28)


@pytest.mark.parametrize('name', NAMES)
def test_three_data_sets_in_one_folder_are_kept_apart(name, tmp_path):
    for seed, folder in enumerate(NAMES.values()):
        write_mnist(tmp_path / folder / 'raw', train=10, test=2, gzipped=False, seed=seed)
    write_mnist(tmp_path / 'alone', train=10, test=2, gzipped=False, seed=list(NAMES).index(name))
    together, alone = load(name, folder=str(tmp_path)), load(name, folder=str(tmp_path / 'alone'))
    assert torch.equal(together.validation[0][0], alone.validation[0][0])


@pytest.mark.parametrize('side', [28, 31, 32, 64])
def test_an_image_is_in_the_middle_of_a_margin_of_black(side, tmp_path):
    write_mnist(tmp_path, train=10, test=2, gzipped=False)
    part = load('mnist', side, folder=str(tmp_path)).test
    (mean, *_), (std, *_) = normalisation('mnist')
    pixels = ((part[3][0] * std + mean) * 255).round()
    assert pixels.shape == (3, side, side)
    first = (side - 28) // 2
    inside = pixels[0, first : first + 28, first : first + 28]
    assert np.array_equal(inside, part.source.pixels[3])
    assert pixels.sum() == 3 * inside.sum()


def shifts_and_mirrors(name, folder) -> tuple[set, set]:
    """How far training images of a single white pixel moved, and whether to the mirrored side."""
    folder.mkdir()
    images = np.zeros((200, 28, 28), np.uint8)
    images[:, 14, 6] = 255
    labels = np.tile(np.arange(10, dtype=np.uint8), 20)
    for part in ('train', 't10k'):
        (folder / f'{part}-images-idx3-ubyte').write_bytes(idx(images))
        (folder / f'{part}-labels-idx1-ubyte').write_bytes(idx(labels))
    batches = loader(load(name, folder=str(folder)).train, 60, seed=1)
    at = torch.cat([images[:, 0].flatten(1).argmax(1) for _ in range(4) for images, _ in batches])
    rows, columns = at // 28 - 14, at % 28
    mirrored = columns > 13
    return {*rows.tolist(), *torch.where(mirrored, 21 - columns, columns - 6).tolist()}, set(mirrored.tolist())


@pytest.mark.parametrize('name', NAMES)
def test_training_images_are_moved_and_mirrored_only_where_they_say_the_same_in_a_mirror(name, tmp_path):
    shifts, mirrored = shifts_and_mirrors(name, tmp_path / 'pixels')
    assert shifts == {-3, -2, -1, 0, 1, 2, 3}
    assert mirrored == ({True, False} if name == 'fashion-mnist' else {False})


def test_classes_are_called_as_they_were_published():
    assert class_names('mnist') == tuple('0123456789')
    assert class_names('fashion-mnist')[9] == 'Ankle boot'
    assert class_names('kmnist')[0] == 'o'


GOOD = idx(np.zeros((20, 28, 28), np.uint8))
BAD = {
    'empty': (b'', 'is damaged'),
    'header alone': (GOOD[:16], 'says that it holds 15,680 values, and holds 0'),
    'half': (GOOD[:9000], 'says that it holds 15,680 values, and holds 8,984'),
    'more': (GOOD + b'\0', 'says that it holds 15,680 values, and holds more'),
    'text': (b'<html>404 not found</html>', 'is not an IDX file of bytes'),
    'of whole numbers': (b'\0\0\x0c\x03' + GOOD[4:], 'is not an IDX file of bytes'),
    'of 200 dimensions': (b'\0\0\x08\xc8' + GOOD[4:], 'is not an IDX file of bytes'),
    'too large': (struct.pack('>HBBIII', 0, 8, 3, 2**31, 28, 28), 'says that it holds 1,683,627,180,032 values'),
    'other sides': (idx(np.zeros((20, 32, 32), np.uint8)), '20×32×32 values for 20'),
    'fewer images': (idx(np.zeros((19, 28, 28), np.uint8)), '19×28×28 values for 20'),
    'labels': (idx(np.zeros(20, np.uint8)), '20 values for 20'),
}


@pytest.mark.parametrize('gzipped', [True, False])
@pytest.mark.parametrize('kind', BAD)
def test_a_file_that_is_not_as_published_is_refused_by_name_in_one_line(kind, gzipped, tmp_path):
    write_mnist(tmp_path, train=20, test=2, gzipped=gzipped)
    file = tmp_path / f't10k-images-idx3-ubyte{".gz" if gzipped else ""}'
    content, message = BAD[kind]
    file.write_bytes(gzip.compress(content) if gzipped else content)
    with pytest.raises(ValueError, match=f'^data set mnist: {file}.*{re.escape(message)}') as caught:
        load('mnist', folder=str(tmp_path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'damage', [lambda c: c[: len(c) // 2], lambda c: b'', lambda c: c[:-9] + bytes(9), bytes.upper]
)
def test_a_damaged_gzip_file_is_refused_by_name_in_one_line(damage, tmp_path):
    write_mnist(tmp_path, train=20, test=2, gzipped=True)
    file = tmp_path / 'train-labels-idx1-ubyte.gz'
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f'^data set mnist: {file} is damaged: ') as caught:
        load('mnist', folder=str(tmp_path))
    assert '\n' not in str(caught.value)


def test_labels_beyond_the_classes_are_refused(tmp_path):
    write_mnist(tmp_path, train=20, test=2, gzipped=False)
    (tmp_path / 't10k-labels-idx1-ubyte').write_bytes(idx(np.full(20, 10, np.uint8)))
    with pytest.raises(ValueError, match='must hold labels from 0 to 9, not 10'):
        load('mnist', folder=str(tmp_path))


def test_a_file_that_lacks_is_named_with_where_it_is_to_be_had(tmp_path):
    write_mnist(tmp_path, train=20, test=2, gzipped=True)
    (tmp_path / 't10k-labels-idx1-ubyte.gz').unlink()
    with pytest.raises(ValueError, match=r't10k-labels-idx1-ubyte is missing.*package dataset-fashion-mnist'):
        load('fashion-mnist', folder=str(tmp_path))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_package_is_fashion_mnist():
    parts = load('fashion-mnist', folder=str(DEBIAN.parent))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [54_000, 6_000, 10_000]
    (mean, *_), (std, *_) = normalisation('fashion-mnist')
    pixels = parts.train.source.pixels / 255
    assert pixels.mean() == pytest.approx(mean, abs=1e-4)
    assert pixels.std() == pytest.approx(std, abs=1e-4)
    names = class_names('fashion-mnist')
    test = parts.test.source
    means = {name: test.pixels[test.targets == label].mean(0) for label, name in enumerate(names)}
    assert means['Trouser'][:, :7].mean() < means['Pullover'][:, :7].mean() / 3  # narrow
    assert means['Sandal'][:8].mean() < means['Coat'][:8].mean() / 3  # flat
