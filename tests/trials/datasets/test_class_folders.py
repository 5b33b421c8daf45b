"""What of a folder are images of a data set, what is left out, and that it is said."""

import logging
import os
from collections import Counter

import numpy as np
import pytest
from dataset_files import WNIDS, write_images
from PIL import Image

from trials.datasets import class_names, load
from trials.training.evaluator import loader

LOGGER = 'trials.datasets.image_folder'


def write_classes(folder, count=20, seed=0, classes=('cat', 'dog')):
    write_images(folder, classes, count, suffixes=('.png',), seed=seed)
    return folder


def files_of(part) -> list[str]:
    return [part.source.samples[i][0] for i in part.indices]


def all_files(parts) -> list[str]:
    return [file for part in (parts.train, parts.validation, parts.test) for file in files_of(part)]


@pytest.fixture
def summary(caplog):
    """Loads an image folder; gives its parts and, by part, the line that was logged of it."""

    def load_and_read(folder, name='image-folder'):
        caplog.clear()
        with caplog.at_level(logging.INFO, LOGGER):
            parts = load(name, folder=str(folder), input_size=32)
        lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        assert [line.split(': ')[1] for line in lines] == ['train', 'validation', 'test']
        assert all(line.startswith(f'data set {name}: ') for line in lines)
        return parts, *lines

    return load_and_read


def test_each_part_is_summed_up_in_one_line(tmp_path, summary):
    write_classes(tmp_path)
    parts, train, validation, test = summary(tmp_path)
    assert train.endswith(f'train: {len(parts.train)} images of 2 classes (cat, dog), from {tmp_path}')
    assert f'{len(parts.validation)} images of 2 classes (cat, dog), cut from the training images' in validation
    assert f'{len(parts.test)} images of 2 classes (cat, dog), cut from the training images' in test


def test_a_part_with_a_folder_of_its_own_says_what_is_left_out_there(tmp_path, summary):
    for part in ('train', 'test'):
        write_classes(tmp_path / part, seed=len(part))
    (tmp_path / 'test' / 'cat' / 'notes.txt').touch()
    _, train, _, test = summary(tmp_path)
    assert 'left out' not in train
    assert test.endswith(f'40 images of 2 classes (cat, dog), from {tmp_path}/test; left out: 1 .txt')


def test_imagenet_is_summed_up_too(tmp_path, summary):
    write_images(tmp_path / 'train', WNIDS, 30)
    write_images(tmp_path / 'val', WNIDS, 2, seed=1)
    (tmp_path / 'meta').mkdir()
    _, train, _, test = summary(tmp_path, 'imagenet')
    assert train.endswith(f'from {tmp_path}/train; not used: meta/')
    assert test.endswith(f'8 images of 4 classes ({", ".join(WNIDS)}), from {tmp_path}/val')


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('._0.png', '1 hidden'),
        ('.DS_Store', '1 hidden'),
        ('Thumbs.db', '1 .db'),
        ('README', '1 without a suffix'),
        ('photo', '1 without a suffix'),
        ('0.heic', '1 .heic'),
        ('0.NEF', '1 .nef'),
        ('0.txt', '1 .txt'),
    ],
)
def test_what_is_no_image_that_is_read_is_counted(name, said, tmp_path, summary):
    write_classes(tmp_path)
    (tmp_path / 'cat' / name).touch()
    parts, train, *_ = summary(tmp_path)
    assert train.endswith(f'; left out: {said}')
    assert len(all_files(parts)) == 40
    assert parts.skipped_images() == 0


@pytest.mark.parametrize('suffix', ['.jfif', '.gif', '.avif', '.JPE', '.WebP', '.pbm'])
def test_images_of_less_common_suffixes_are_used(suffix, tmp_path, summary):
    write_classes(tmp_path)
    Image.new('1' if suffix == '.pbm' else 'RGB', (40, 40), 1).save(tmp_path / 'cat' / f'more{suffix}')
    parts, train, *_ = summary(tmp_path)
    assert 'left out' not in train
    assert str(tmp_path / 'cat' / f'more{suffix}') in all_files(parts)


def test_many_kinds_are_summed_up(tmp_path, summary):
    write_classes(tmp_path)
    for number in range(12):
        for copy in range(12 - number):
            (tmp_path / 'cat' / f'{copy}.kind{number:02d}').touch()
    _, train, *_ = summary(tmp_path)
    assert train.endswith('12 .kind00, 11 .kind01, 10 .kind02, 9 .kind03, 8 .kind04, 7 .kind05, 6 .kind06, 5 .kind07, '
                          '10 of 4 other kinds')  # fmt: skip


@pytest.mark.parametrize(
    'hidden', ['.ipynb_checkpoints', '.git', '__MACOSX', '@eaDir', '#recycle', '$Recycle.Bin', '__pycache__']
)
def test_a_hidden_folder_or_a_systems_own_is_no_class(hidden, tmp_path, summary):
    write_classes(tmp_path)
    write_images(tmp_path, [hidden], 5, suffixes=('.png',))
    write_images(tmp_path / 'cat', [hidden], 5, suffixes=('.png',))
    parts, train, *_ = summary(tmp_path)
    assert parts.classes == 2
    assert class_names('image-folder', folder=str(tmp_path)) == ('cat', 'dog')
    assert train.endswith('left out: 2 hidden')


def test_files_beside_the_classes_are_counted(tmp_path, summary):
    write_classes(tmp_path)
    for name in ('a.png', 'labels.csv'):
        (tmp_path / name).touch()
    assert summary(tmp_path)[1].endswith('left out: 2 beside the folders of classes')


def test_folders_in_a_class_are_of_that_class(tmp_path, summary):
    write_classes(tmp_path)
    write_images(tmp_path / 'cat', ['indoors', 'outdoors'], 5, suffixes=('.png',), seed=3)
    parts, *_ = summary(tmp_path)
    assert parts.classes == 2
    labels = [int(label) for part in (parts.train, parts.validation, parts.test) for label in part.labels]
    assert Counter(labels) == {0: 30, 1: 20}


@pytest.mark.parametrize(
    'folders',
    [
        ('Train', 'Val', 'Test'),
        ('TRAIN', 'VALID', 'TEST'),
        ('training', 'validation', 'testing'),
        ('train', 'valid', 'test'),
    ],
)
def test_the_folders_of_parts_may_be_called_as_people_call_them(folders, tmp_path, summary):
    for seed, folder in enumerate(folders):
        write_classes(tmp_path / folder, seed=seed)
    parts, *lines = summary(tmp_path)
    assert parts.classes == 2
    for part, folder, line in zip((parts.train, parts.validation, parts.test), folders, lines, strict=True):
        assert len(part) == 40
        assert all(file.startswith(f'{tmp_path}/{folder}/') for file in files_of(part))
        assert line.endswith(f'from {tmp_path}/{folder}')


@pytest.mark.parametrize(
    ('folders', 'message'),
    [
        (('train', 'val', 'valid'), 'has val/ and valid/, which are all the val part; keep one'),
        (('train', 'vald'), 'vald/ is perhaps the val part'),
        (('train', 'tst'), 'tst/ is perhaps the test part'),
        (('val', 'test'), 'there is no train/ that does'),
        (('train_images', 'test_images'), 'there is no train/ that does'),
        (('train2017', 'val2017'), 'there is no train/ that does'),
        (('seg_train', 'seg_test'), 'there is no train/ that does'),
        (('My Training Set', 'My Test Set'), 'there is no train/ that does'),
    ],
)
def test_folders_whose_use_can_only_be_guessed_are_refused_in_one_line(folders, message, tmp_path):
    for folder in folders:
        write_classes(tmp_path / folder, count=2)
    with pytest.raises(ValueError, match=f'^data set image-folder: {tmp_path}.*{message}') as caught:
        load('image-folder', folder=str(tmp_path))
    assert '\n' not in str(caught.value)


def test_folders_beside_the_parts_are_named(tmp_path, summary):
    for folder in ('train', 'val', 'extra', 'raw'):
        write_classes(tmp_path / folder, seed=len(folder))
    assert summary(tmp_path)[1].endswith('; not used: extra/, raw/')
    for name in ('more.png', 'labels.csv', '.DS_Store'):
        (tmp_path / name).touch()
    assert summary(tmp_path)[1].endswith('; not used: extra/, raw/, 2 files')


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, classes=('car', 'test', 'train'))
    parts = load('image-folder', folder=str(tmp_path), input_size=32)
    assert parts.classes == 3
    assert class_names('image-folder', folder=str(tmp_path)) == ('car', 'test', 'train')


LINKS = {
    'to itself': lambda root: (root / 'cat' / 'loop').symlink_to('loop'),
    'to its own folder': lambda root: (root / 'cat' / 'loop').symlink_to('.'),
    'to the root': lambda root: (root / 'cat' / 'loop').symlink_to('..'),
    'to another class': lambda root: (root / 'cat' / 'dogs').symlink_to('../dog'),
    'to each other': lambda root: [
        (root / 'cat' / 'dogs').symlink_to('../dog'),
        (root / 'dog' / 'cats').symlink_to('../cat'),
    ],
    'of a file': lambda root: (root / 'dog' / 'zz.png').symlink_to('../cat/cat_000.png'),
    'hard link': lambda root: os.link(root / 'cat' / 'cat_000.png', root / 'dog' / 'zz.png'),
    'broken': lambda root: (root / 'cat' / 'zz.png').symlink_to('nowhere.png'),
    'a pipe': lambda root: os.mkfifo(root / 'cat' / 'zz.png'),
    'a folder like an image': lambda root: (root / 'cat' / 'zz.png').mkdir(),
}


@pytest.mark.parametrize('kind', LINKS)
def test_an_image_counts_once_whatever_links_there_are(kind, tmp_path, summary):
    write_classes(tmp_path)
    LINKS[kind](tmp_path)
    parts, train, *_ = summary(tmp_path)
    files = all_files(parts)
    assert len(files) == len({os.path.realpath(file) for file in files}) == 40
    assert Counter(file.split('/')[-2] for file in files) == {'cat': 20, 'dog': 20}
    assert ('left out: ' in train) == (kind != 'a folder like an image')


def test_links_to_images_elsewhere_are_images(tmp_path, summary):
    store = write_classes(tmp_path / 'store')
    for name in ('cat', 'dog'):
        (tmp_path / 'linked' / name).mkdir(parents=True)
        for file in (store / name).iterdir():
            (tmp_path / 'linked' / name / file.name).symlink_to(file)
    (tmp_path / 'folders').mkdir()
    (tmp_path / 'folders' / 'cat').symlink_to(store / 'cat')
    (tmp_path / 'folders' / 'dog').symlink_to(store / 'dog')
    for folder in ('linked', 'folders'):
        parts, train, *_ = summary(tmp_path / folder)
        assert len(all_files(parts)) == 40
        assert 'left out' not in train


def test_a_file_that_is_linked_into_two_parts_is_in_one(tmp_path, summary):
    for seed, part in enumerate(('train', 'test')):
        write_classes(tmp_path / part, seed=seed)
    (tmp_path / 'train' / 'cat' / 'zz.png').symlink_to('../../test/cat/cat_003.png')
    parts, train, *_ = summary(tmp_path)
    assert len(parts.test) == 40
    assert len(parts.train) + len(parts.validation) == 40
    assert train.endswith('left out: 1 the same file as another')


def test_the_root_of_a_machine_is_not_read():
    with pytest.raises(
        ValueError,
        match='image-folder: folder must be that of the data, not /, with all that is on the',
    ):
        load('image-folder', folder='/')


def test_names_that_would_change_the_terminal_are_shown_as_escapes(tmp_path, summary):
    write_classes(tmp_path, classes=('cat', 'd\n\x1b[31mog'))
    (tmp_path / 'cat' / 'a.\x1b[2J').touch()
    _, train, *_ = summary(tmp_path)
    assert train.isprintable()
    assert r'(cat, d \x1b[31mog)' in train


def numbered(folder, count: int):
    """``count`` images of each of two classes, all pixels of an image its number."""
    for label, name in enumerate(('cat', 'dog')):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((40, 40, 3), label * count + number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{number:03d}.png')


@pytest.mark.parametrize('workers', [0, 2])
def test_no_image_makes_up_alone_for_a_run_of_unreadable_ones(workers, tmp_path):
    numbered(tmp_path, 60)
    for number in range(30):
        (tmp_path / 'cat' / f'{number:03d}.png').write_bytes(b'')
    part = load('image-folder', folder=str(tmp_path), input_size=32).train
    batches = loader(part, len(part), seed=3, workers=workers)
    counts = []
    for _ in range(3):
        (images, labels), = batches  # fmt: skip
        drawn = (images[:, 0].mean((1, 2)) * 0.229 + 0.485).mul(255).round().int().tolist()
        assert [number >= 60 for number in drawn] == labels.bool().tolist()
        counts.append(Counter(drawn))
    unreadable = sum(os.path.getsize(file) == 0 for file in files_of(part))
    for count in counts:
        assert len(count) == len(part) - unreadable  # every readable image is there
        assert max(count.values()) <= 4
    assert counts[0] != counts[1]
    again = loader(part, len(part), seed=3)
    assert all(image.equal(other) for image, other in zip(next(iter(again)), next(iter(loader(part, len(part), 3)))))
