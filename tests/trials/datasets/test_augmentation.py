"""Augmentation of photographs: in the training part alone, drawn anew, and the same from the same seed."""

import pytest
import torch
from dataset_files import without_checksums, write_cifar, write_images

from trials import datasets
from trials.training.loader import loader

ARGUMENTS = [
    {},
    {'augmentation': 'autoaugment'},
    {'augmentation': 'randaugment'},
    {'random_erasing': 1.0},
    {'augmentation': 'randaugment', 'random_erasing': 0.5},
]


@pytest.fixture(scope='module', params=['image-folder', 'imagenet', 'cifar10'])
def load(request, tmp_path_factory):
    """Loads a data set with arguments."""
    root, name = tmp_path_factory.mktemp('data'), request.param
    with pytest.MonkeyPatch.context() as patch:
        if name == 'cifar10':
            without_checksums(patch)
            write_cifar(root, name, 10, train=20, test=3)
        else:
            write_images(root / 'train', ['cat', 'dog'], 30)
            write_images(root / 'val', ['cat', 'dog'], 4, seed=1)
        yield lambda **arguments: datasets.load(name, 32, folder=str(root), **arguments)


def first_batch(part) -> torch.Tensor:
    return next(iter(loader(part, 8, seed=3)))[0]


def test_each_way_makes_other_training_images_and_leaves_those_of_the_other_parts(load):
    parts = [load(**arguments) for arguments in ARGUMENTS]
    trained = [first_batch(of.train) for of in parts]
    for index, images in enumerate(trained):
        assert images.shape == (8, 3, 32, 32)
        assert images.isfinite().all()
        assert torch.equal(images, first_batch(load(**ARGUMENTS[index]).train))
        assert not any(torch.equal(images, other) for other in trained[:index])
    for of in parts:
        for part in ('validation', 'test'):
            assert torch.equal(getattr(of, part)[0][0], getattr(parts[0], part)[0][0])


def test_random_erasing_sets_a_rectangle_to_the_mean_colour(load):
    plain, erased = (first_batch(load(random_erasing=p).train) for p in (0.0, 1.0))
    for before, after in zip(plain, erased, strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        rectangle = after[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(rectangle, torch.zeros_like(rectangle))  # images are normalised


@pytest.mark.parametrize(
    ('name', 'argument', 'message'),
    [
        (
            'imagenet',
            {'augmentation': 'auto'},
            "augmentation must be one of none, autoaugment, randaugment, not 'auto'",
        ),
        ('cifar100', {'augmentation': True}, 'augmentation must be one of none, autoaugment, randaugment, not True'),
        ('cifar10', {'random_erasing': 2}, 'random_erasing must be a number from 0 to 1, not 2'),
        ('image-folder', {'random_erasing': '1'}, "random_erasing must be a number from 0 to 1, not '1'"),
        ('cued-digits', {'augmentation': 'none'}, "unknown argument 'augmentation'"),
    ],
)
def test_another_augmentation_is_refused_without_a_look_at_the_data(name, argument, message):
    with pytest.raises(ValueError, match=f'^data set {name}: {message}'):
        datasets.check_arguments(name, argument)
