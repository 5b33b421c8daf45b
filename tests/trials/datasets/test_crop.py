"""How photographs are brought to the input's size, as the programs do that trained the released weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from trials import datasets
from trials.datasets.crop import middle, resize_as_tensorflow_1


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def run(steps, image):
    for step in steps:
        image = step(image)
    return image


def as_the_kernel_does(row: list[float], side: int) -> list[float]:
    """TensorFlow's kernel on one row of pixels, a place after the other."""
    a, scale = -0.75, np.float32(len(row)) / np.float32(side)

    def weight(distance):
        d = abs(distance)
        return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    resized = []
    for place in range(side):
        at = float(np.float32(place) * scale)
        first = math.floor(at)
        rest = round((at - first) * 1024) / 1024
        resized.append(sum(weight(rest - o) * row[min(max(first + o, 0), len(row) - 1)] for o in (-1, 0, 1, 2)))
    return resized


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 20))
def test_a_row_of_pixels_is_resized_as_tensorflow_1_does(row, side):
    pixels = torch.tensor(row, dtype=torch.float32).expand(2, 1, -1)
    expected = torch.tensor(as_the_kernel_does(row, side), dtype=torch.float32)
    torch.testing.assert_close(resize_as_tensorflow_1(pixels, side)[0, 0], expected, rtol=1e-4, atol=1e-5)


def test_half_the_size_is_every_second_pixel_and_one_of_three_thirds_is_between_two():
    pixels = torch.randn(3, 12, 12)
    assert torch.equal(resize_as_tensorflow_1(pixels, 6), pixels[:, ::2, ::2])
    row = torch.tensor([1.0, 2, 4, 8, 16, 32]).expand(1, 6, 6)
    between = (-0.09375 * 1) + 0.59375 * 2 + 0.59375 * 4 - 0.09375 * 8
    assert resize_as_tensorflow_1(row, 4)[0, 0, :2].tolist() == pytest.approx([1, between])


@pytest.mark.parametrize(('width', 'height'), [(500, 375), (375, 500), (301, 301)])
def test_the_crop_square_is_the_middle_seven_eighths_of_the_shorter_side(width, height):
    image = picture(width, height)
    side = int(0.875 * min(width, height))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    square = image.crop((left, top, left + side, top + side))
    for interpolation, of_pillow in (('bilinear', Image.Resampling.BILINEAR), ('bicubic', Image.Resampling.BICUBIC)):
        expected = np.asarray(square.resize((224, 224), of_pillow)) / 255
        found = run(middle(224, 'square', interpolation), image)
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(run(middle(224, 'tensorflow'), image), resize_as_tensorflow_1(pixels, 224))


@pytest.mark.parametrize('crop', ['resize', 'square', 'tensorflow'])
def test_a_data_set_of_photographs_takes_it_where_they_are_evaluated(tmp_path, crop):
    write_images(tmp_path, ['cat', 'dog'], 20)
    arguments = {'folder': str(tmp_path), 'crop': crop, 'interpolation': 'bicubic'}
    parts = datasets.load('image-folder', 32, **arguments)
    mean, std = (torch.tensor(of)[:, None, None] for of in datasets.normalisation('image-folder', **arguments))
    for part in (parts.validation, parts.test):
        file = Path(part.source.samples[int(part.indices[0])][0])
        expected = run(middle(32, crop, 'bicubic'), Image.open(file).convert('RGB'))
        torch.testing.assert_close(part[0][0] * std + mean, expected, rtol=1e-4, atol=1e-5)
    assert datasets.class_names('image-folder', **arguments) == ('cat', 'dog')


def test_random_crops_of_a_training_are_resized_as_the_interpolation_says(tmp_path):
    write_images(tmp_path, ['cat', 'dog'], 20)
    mean, std = (torch.tensor(of)[:, None, None] for of in datasets.normalisation('image-folder'))
    for interpolation in ('bilinear', 'bicubic'):
        part = datasets.load('image-folder', 32, folder=str(tmp_path), interpolation=interpolation).train
        torch.manual_seed(1)
        found = part[0][0] * std + mean
        torch.manual_seed(1)
        at_random = v2.RandomResizedCrop(32, interpolation=InterpolationMode(interpolation))
        image = v2.RandomHorizontalFlip()(at_random(part.source[int(part.indices[0])][0]))
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(found, pixels, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('key', 'value'), [('crop', 'center'), ('interpolation', 'lanczos'), ('crop', 3)])
def test_another_way_is_refused_with_those_that_there_are(tmp_path, key, value):
    with pytest.raises(ValueError, match=f'data set imagenet: {key} must be one of .+, not {value!r}'):
        datasets.check_arguments('imagenet', {'folder': str(tmp_path), key: value})
