"""Data sets of image files: where they lie, what is cut from what, and images that cannot be read."""

import json
import logging

import numpy as np
import pytest
import torch
from dataset_files import WNIDS, write_cifar, write_images
from PIL import Image
from pytorch_lightning import seed_everything
from torch import nn
from torch.utils.data import Subset

from trials.__main__ import main
from trials.datasets import load
from trials.datasets.image_part import CorruptImage, ImagePart
from trials.training.evaluator import evaluator, loader

LOGGER = 'trials.datasets.image_part'


@pytest.mark.parametrize(('name', 'classes'), [('cifar10', 10), ('cifar100', 100)])
def test_cifar_files_that_are_not_the_published_ones_are_not_unpickled(name, classes, tmp_path):
    write_cifar(tmp_path, name, classes, train=2, test=1)
    with pytest.raises(ValueError, match='missing or damaged'):
        load(name, folder=str(tmp_path))


def files_of(part) -> set[str]:
    return {part.source.samples[i][0] for i in part.indices}


def test_imagenets_published_validation_images_are_the_test_part(tmp_path):
    write_images(tmp_path / 'train', WNIDS, 30)
    write_images(tmp_path / 'val', WNIDS, 5)
    parts = load('imagenet', folder=str(tmp_path))
    assert parts.input_size == 224
    assert len(parts.test) == 20
    assert all('/val/' in file for file in files_of(parts.test))
    assert all('/train/' in file for file in files_of(parts.train) | files_of(parts.validation))
    assert len(parts.train) + len(parts.validation) == 120
    assert parts.test[0][0].shape == parts.train[0][0].shape == (3, 224, 224)


@pytest.mark.parametrize('own', [(), ('val',), ('test',), ('val', 'test')])
def test_a_part_with_no_folder_of_its_own_is_cut_from_the_training_images(own, tmp_path):
    for part in ('train', *own):
        write_images(tmp_path / part, ['cat', 'dog'], 50, suffixes=('.png', '.jpg'))
    parts = load('image-folder', folder=str(tmp_path), input_size=32)
    for folder, part in (('val', parts.validation), ('test', parts.test)):
        assert all((f'/{folder}/' if folder in own else '/train/') in file for file in files_of(part))
    assert len(parts.train) == {(): 81, ('val',): 90, ('test',): 90, ('val', 'test'): 100}[own]
    assert parts.classes == 2


def test_parts_of_other_classes_are_refused_by_name(tmp_path):
    write_images(tmp_path / 'train', ['cat', 'dog'], 3)
    write_images(tmp_path / 'test', ['cat', 'owl'], 3)
    with pytest.raises(ValueError, match=f"'dog' is in {tmp_path}/train and not in {tmp_path}/test"):
        load('image-folder', folder=str(tmp_path))


@pytest.mark.parametrize('folders', [[], ['cat', 'dog']])
def test_folders_without_images_are_refused_in_one_line(folders, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=f'data set image-folder: {tmp_path} must hold a folder of images') as caught:
        load('image-folder', folder=str(tmp_path))
    assert '\n' not in str(caught.value)


def test_too_few_images_to_cut_a_part_from_are_refused_in_one_line(tmp_path):
    write_images(tmp_path, ['cat', 'dog'], 1)
    with pytest.raises(ValueError, match=r'the test part: a fraction of 0\.1 .* from 2 images of 2 classes'):
        load('image-folder', folder=str(tmp_path))


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE = {
    'cut off': cut_off,
    'empty': lambda content: b'',
    'text': lambda content: b'<html>404</html>',
    'header alone': lambda content: content[:20],
    'zeros inside': lambda content: content[:40] + bytes(len(content) - 40),
}


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_image_is_known_as_such(suffix, damage, tmp_path, caplog):
    write_images(tmp_path, ['cat', 'dog'], 30, suffixes=(suffix,))
    part = load('image-folder', folder=str(tmp_path), input_size=32).train
    file = part.source.samples[part.indices[3]][0]
    with open(file, 'r+b') as image:
        content = DAMAGE[damage](image.read())
        image.seek(0)
        image.truncate()
        image.write(content)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            with pytest.raises(CorruptImage, match=r'cat_|dog_'):
                part[3]
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert file in record.getMessage()


def numbered(folder, count=40) -> list[str]:
    """``count`` images of each of two classes, all pixels of an image its number."""
    for label, name in enumerate(('cat', 'dog')):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = np.full((40, 40, 3), label * count + number, np.uint8)
            Image.fromarray(image).save(folder / name / f'{number:03d}.png')
    return sorted(str(file) for file in folder.glob('*/*.png'))


def numbers_of(images: torch.Tensor) -> list[int]:
    return (images[:, 0].mean((1, 2)) * 0.229 + 0.485).mul(255).round().int().tolist()


@pytest.fixture
def log(tmp_path):
    """Every warning of this process and of those that it forks."""
    handler = logging.FileHandler(tmp_path / 'log')
    logging.getLogger(LOGGER).addHandler(handler)
    yield lambda: (tmp_path / 'log').read_text().splitlines()
    logging.getLogger(LOGGER).removeHandler(handler)


@pytest.mark.parametrize('workers', [0, 2])
def test_in_a_training_another_image_of_the_same_part_takes_the_place_of_a_damaged_one(workers, tmp_path, log):
    files = numbered(tmp_path / 'images')
    parts = load('image-folder', folder=str(tmp_path / 'images'), input_size=32)
    half = Subset(parts.train, range(32))
    damaged = {files.index(parts.train.source.samples[parts.train.indices[i]][0]) for i in (3, 4, 31)}
    for number in damaged:
        open(files[number], 'w').close()
    allowed = {files.index(parts.train.source.samples[parts.train.indices[i]][0]) for i in range(32)} - damaged
    batches = loader(half, 8, seed=1, workers=workers)
    for _ in range(2):
        drawn = [number for images, _ in batches for number in numbers_of(images)]
        assert len(drawn) == 32
        assert set(drawn) == allowed
    assert len(log()) == parts.skipped_images() == 3
    for number in damaged:
        assert sum(files[number] in line for line in log()) == 1


@pytest.mark.parametrize('workers', [0, 2])
def test_what_is_measured_is_measured_without_damaged_images(workers, tmp_path, log):
    files = numbered(tmp_path / 'images')
    parts = load('image-folder', folder=str(tmp_path / 'images'), input_size=32)
    of_part = [files.index(parts.test.source.samples[i][0]) for i in parts.test.indices]
    assert len(of_part) == 8
    for number in of_part[:2] + of_part[6:]:
        open(files[number], 'w').close()
    batches = list(loader(parts.test, 3, workers=workers))
    assert [len(labels) for _, labels in batches] == [1, 3, 0]
    assert [number for images, _ in batches for number in numbers_of(images)] == of_part[2:6]
    assert len(log()) == parts.skipped_images() == 4
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    recipe = {'batch_size': 3, 'learning_rate': 0.01, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'seed': 0}
    training = evaluator(parts.train, parts.test, epochs=1, **recipe)
    training.evaluate(network)
    images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    right = (network(images).argmax(1) == labels).float().mean().item()
    assert training.trainer.callback_metrics['validation_accuracy'].item() == pytest.approx(right)


def test_a_part_with_no_readable_image_ends_the_training_with_one_line(tmp_path):
    for file in numbered(tmp_path, count=20):
        open(file, 'w').close()
    parts = load('image-folder', folder=str(tmp_path), input_size=32)
    with pytest.raises(ValueError, match='none of the images'):
        next(iter(loader(parts.train, 4, seed=0)))


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_and_the_networks_randomness_do_not_depend_on_the_number_of_workers(workers, tmp_path):
    write_images(tmp_path, ['cat', 'dog'], 20)
    part = load('image-folder', folder=str(tmp_path), input_size=32).train
    passes = []
    for count in (0, workers):
        seed_everything(0, verbose=False)
        batches = loader(part, 8, seed=5, workers=count)
        passes.append([images for _ in range(2) for images, _ in batches] + [torch.rand(3)])
    assert all(torch.equal(*pair) for pair in zip(*passes, strict=True))
    first, second = passes[0][:4], passes[0][4:8]
    assert not any(torch.equal(a, b) for a in first for b in second)


def test_an_image_is_augmented_anew_in_every_pass(tmp_path):
    write_images(tmp_path, ['cat', 'dog'], 20)
    train = load('image-folder', folder=str(tmp_path), input_size=32).train
    alone = loader(Subset(train, [0]), 1, seed=5)
    images = [image for _ in range(4) for image, _ in alone]
    assert len({image.numpy().tobytes() for image in images}) == 4
    unchanged = loader(ImagePart(train.source, train.indices[:1], train.transform), 1, seed=5)
    assert torch.equal(next(iter(unchanged))[0], images[0])


def test_a_trial_on_image_files_says_how_many_it_skipped(tmp_path, capsys):
    skeleton = tmp_path / 'two.yaml'
    skeleton.write_text(
        '{name: two, input_size: 32, classes: 2, stem_channels: 8, stem_stride: 2, head_channels: 16, '
        'rows: [{channels: 8, stride: 1, expansion: 1, kernel: 3}]}'
    )
    files = numbered(tmp_path / 'images')
    for file in (files[0], files[50]):
        open(file, 'w').close()
    parameters = {
        'strategy': 'random',
        'stage': 'test',
        'seed': 0,
        'skeleton': str(skeleton),
        'dataset': 'image-folder',
        'dataset/folder': str(tmp_path / 'images'),
        'epochs': 1,
        'batch_size': 8,
        'learning_rate': 0.01,
        'optimizer': 'rmsprop',
        'schedule': 'cosine',
        'learning_rate_warmup': 0.5,
        'ema_decay': 0.9,
        'gradient_clip': 1.0,
        'decay_norm_and_bias': False,
        'workers': 1,
    }
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(parameters))
    assert main(['run', '--parameters', str(file)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['skipped_images'] == 2
