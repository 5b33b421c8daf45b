"""What is peculiar to cued digits, and to the cache that they are kept in."""

import logging
import multiprocessing
import os

import numpy as np
import pytest
import torch

from trials.datasets import cued_digits, load, normalisation
from trials.datasets.cache import cached

LOGGER = 'trials.datasets.cache'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'autonl-nni'


def test_no_scan_is_in_two_parts():
    scans = {part: {scan.tobytes() for scan in images} for part, (images, _) in cued_digits.divided_scans().items()}
    assert {part: len(images) for part, (images, _) in cued_digits.divided_scans().items()} == cued_digits.SCANS
    assert scans['train'].isdisjoint(scans['validation'])
    assert scans['train'].isdisjoint(scans['test'])
    assert scans['validation'].isdisjoint(scans['test'])


def colour_at(image, rows, columns) -> int:
    """0, 1, 2 for red, green, yellow."""
    red, green = (bool((image[channel, rows, columns] == 1).all()) for channel in (0, 1))
    return {(True, False): 0, (False, True): 1, (True, True): 2}[red, green]


@pytest.mark.parametrize(
    ('colours', 'side', 'size'), [(2, 3, 32), (3, 3, 32), (2, 1, 32), (2, 5, 24), (3, 16, 32), (3, 8, 16), (2, 3, 64)]
)
def test_the_label_is_the_digit_of_the_squares_colour(colours, side, size):
    digits = np.arange(10)
    scans = np.stack([np.full((8, 8), (digit + 1) / 16, np.float32) for digit in digits])  # brightness tells the digit
    seen = set()
    for image, label in cued_digits.canvases(scans, digits, 200, seed=3, colours=colours, square=side, input_size=size):
        assert image.shape == (3, size, size)
        square = image[2].nonzero()
        assert len(square) == side * side
        rows, columns = square[:, 0], square[:, 1]
        assert rows.max() - rows.min() == columns.max() - columns.min() == side - 1
        colour = colour_at(image, rows, columns)
        seen.add(colour)
        image[:, rows, columns] = 0
        shows = {0: (image[0] > 0) & (image[1] == 0), 1: (image[1] > 0) & (image[0] == 0), 2: image[:2].amin(0) > 0}
        assert shows[colour].sum() == 64
        assert round(image[:2].amax(0)[shows[colour]].max().item() * 16) - 1 == label
        levels = {round(image[:2].amax(0)[shows[c]].max().item() * 16) for c in range(colours)}
        assert len(levels) == colours  # never the same scan twice
    assert seen == set(range(colours))


@pytest.mark.parametrize(('colours', 'side'), [(2, 16), (3, 16), (2, 8), (3, 12)])
def test_scans_and_square_stand_in_different_quadrants(colours, side):
    images, digits = cued_digits.divided_scans()['train']
    drawn = cued_digits.canvases(np.ones_like(images), digits, 100, seed=4, colours=colours, input_size=2 * side)
    for image, _ in drawn:
        quadrants = image[:2].amax(0).reshape(2, side, 2, side).sum((1, 3))
        assert sorted(quadrants.flatten().tolist()) == sorted([9.0] + [64.0] * colours + [0.0] * (3 - colours))
        marked = image[2].reshape(2, side, 2, side).sum((1, 3))
        assert marked[quadrants == 9].item() == 9


def test_clutter_leaves_scans_and_square_as_they_are():
    scans = np.full((3, 8, 8), 0.5, np.float32)
    plain, cluttered = (
        cued_digits.canvases(scans, np.arange(3), 50, seed=5, clutter=clutter).tensors[0] for clutter in (0, 6)
    )
    assert torch.equal(cluttered[:, 2], cluttered[:, 2].round())
    assert (cluttered[:, 2].sum((1, 2)) == 9).all()
    assert (cluttered[:, :2] > 0).sum() > 1.3 * (plain[:, :2] > 0).sum()
    square = cluttered[:, 2:] == 1
    assert (cluttered[:, :2].sum(1, keepdim=True)[square] == 1).all()


def test_noise_is_of_the_deviation_that_it_says_and_stays_in_grey_levels():
    scans = np.full((3, 8, 8), 0.5, np.float32)
    plain, noisy = (cued_digits.canvases(scans, np.arange(3), 50, seed=5, noise=noise).tensors[0] for noise in (0, 2))
    assert set((noisy * 16).unique().tolist()) <= set(range(17))
    grey = plain == 0.5
    assert (noisy[grey] - 0.5).mul(16).std().item() == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize('knobs', [{'colours': 3}, {'square': 5}, {'clutter': 4}, {'noise': 1.5}, {'canvases': 500}])
@pytest.mark.slow
def test_every_knob_makes_another_data_set_that_is_the_same_from_the_cache(knobs, cache):
    first, plain = load('cued-digits', **knobs), load('cued-digits')
    assert len(first.train) == knobs.get('canvases', 6000)
    assert not torch.equal(first.train[:500][0], plain.train[:500][0])
    assert len(list(cache.iterdir())) == 2
    again = load('cued-digits', **knobs)
    for part in ('train', 'validation', 'test'):
        for one, other in zip(getattr(first, part).tensors, getattr(again, part).tensors, strict=True):
            assert torch.equal(one, other)


def test_canvases_are_as_large_as_the_skeleton_and_normalised_by_their_own_pixels(cache):
    small, usual = load('cued-digits', 24, canvases=500), load('cued-digits', canvases=500)
    assert (small.input_size, usual.input_size) == (24, 32)
    for parts in (small, usual):
        mean, std = normalisation('cued-digits', parts.input_size, canvases=500)
        images = parts.train.tensors[0] * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        assert images.shape == (500, 3, parts.input_size, parts.input_size)
        assert torch.allclose(images * 16, (images * 16).round(), atol=1e-4)
    assert normalisation('cued-digits', 32, canvases=500) == normalisation('cued-digits', canvases=500)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize('size', [14, 25, 66, 224])
def test_a_size_that_canvases_cannot_have_is_said(size):
    with pytest.raises(ValueError, match=f'input_size.* even number of pixels from 16 to 64, not {size}'):
        load('cued-digits', size)
    with pytest.raises(ValueError, match='square must be a whole number from 1 to 12, not 13'):
        load('cued-digits', 24, square=13)


def numbers() -> dict[str, torch.Tensor]:
    return {'numbers': torch.arange(1000)}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError('made again')


def test_what_is_cached_is_not_made_again(cache):
    cached('numbers', numbers)
    assert torch.equal(cached('numbers', never)['numbers'], torch.arange(1000))


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_byte_off(content: bytes) -> bytes:
    at = content.index(torch.arange(1000).numpy().tobytes()) + 4000
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize('damage', [cut_short, one_byte_off, lambda content: b'', lambda content: b'no tensors'])
def test_a_damaged_file_is_made_again_with_a_warning_that_names_it(damage, cache, caplog):
    cached('numbers', numbers)
    file = cache / 'numbers.pt'
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, LOGGER):
        assert torch.equal(cached('numbers', numbers)['numbers'], torch.arange(1000))
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert torch.equal(cached('numbers', never)['numbers'], torch.arange(1000))


def test_a_cache_that_cannot_be_written_is_done_without(cache, caplog):
    cache.write_text('a file where the folder would be')
    assert torch.equal(cached('numbers', numbers)['numbers'], torch.arange(1000))
    assert 'numbers is not cached' in caplog.text


def die_while_writing() -> None:
    os.fsync = lambda descriptor: os._exit(9)
    cached('numbers', lambda: {'numbers': torch.zeros(1000)})


def test_a_process_that_dies_while_it_writes_leaves_nothing_that_is_read(cache):
    process = multiprocessing.get_context('fork').Process(target=die_while_writing)
    process.start()
    process.join()
    assert process.exitcode == 9
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(cached('numbers', numbers)['numbers'], torch.arange(1000))
