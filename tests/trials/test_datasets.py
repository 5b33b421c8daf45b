"""What every data set must be, and what is peculiar to cued digits."""

import numpy as np
import pytest
import torch

from trials.datasets import DATASETS, cued_digits, hold_out, load


@pytest.fixture(scope='module', params=sorted(DATASETS))
def parts(request):
    return load(request.param)


def labels_of(part) -> torch.Tensor:
    return torch.stack([part[i][1] for i in range(len(part))])


def test_images_and_labels_are_of_the_size_and_number_that_it_says(parts):
    for part in (parts.train, parts.validation, parts.test):
        image, label = part[0]
        assert image.shape == (3, parts.input_size, parts.input_size)
        assert image.dtype == torch.float32
        assert 0 <= label < parts.classes
        assert set(labels_of(part).tolist()) == set(range(parts.classes))


def test_it_is_the_same_every_time(parts, request):
    again = load(request.node.callspec.params['parts'])
    for part in ('train', 'validation', 'test'):
        for index in (0, 17):
            first, second = getattr(parts, part)[index], getattr(again, part)[index]
            assert torch.equal(first[0], second[0])
            assert first[1] == second[1]


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
def test_what_is_held_out_is_disjoint_stratified_and_complete(parts, fraction):
    rest, held_out = hold_out(parts.train, fraction)
    assert set(rest.indices).isdisjoint(held_out.indices)
    assert len(rest) + len(held_out) == len(parts.train)
    assert len(held_out) == pytest.approx(fraction * len(parts.train), abs=1)
    whole, part = (torch.bincount(labels_of(p)) / len(p) for p in (parts.train, held_out))
    torch.testing.assert_close(part, whole, atol=0.002, rtol=0)


def test_no_scan_is_in_two_parts():
    scans = {part: {scan.tobytes() for scan in images} for part, (images, _) in cued_digits.divided_scans().items()}
    assert {part: len(images) for part, (images, _) in cued_digits.divided_scans().items()} == cued_digits.SCANS
    assert scans['train'].isdisjoint(scans['validation'])
    assert scans['train'].isdisjoint(scans['test'])
    assert scans['validation'].isdisjoint(scans['test'])


def test_the_label_is_the_digit_of_the_squares_colour():
    digits = np.arange(10)
    scans = np.stack([np.full((8, 8), (digit + 1) / 16, np.float32) for digit in digits])  # brightness tells the digit
    data = cued_digits.canvases(scans, digits, 200, seed=3)
    for image, label in data:
        square = image[2].nonzero()
        assert len(square) == 9
        rows, columns = square[:, 0], square[:, 1]
        assert rows.max() - rows.min() == columns.max() - columns.min() == 2
        red, green = (bool((image[channel, rows, columns] == 1).all()) for channel in (0, 1))
        assert red != green
        cued = image[0 if red else 1].clone()
        cued[rows, columns] = 0
        assert (cued > 0).sum() == 64
        assert round(cued.max().item() * 16) - 1 == label


def test_scans_and_square_stand_in_three_different_quadrants():
    images, digits = cued_digits.divided_scans()['train']
    for image, _ in cued_digits.canvases(np.ones_like(images), digits, 100, seed=4):
        square = image[2].nonzero()[0] // 16
        scans = [((image[channel] == 1) & (image[2] == 0)).nonzero() // 16 for channel in (0, 1)]
        quadrants = {tuple(square.tolist())}
        for scan in scans:
            assert len({tuple(q.tolist()) for q in scan}) == 1
            quadrants.add(tuple(scan[0].tolist()))
        assert len(quadrants) == 3
