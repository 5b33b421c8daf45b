"""What worker processes of a loader log, and what their start takes, by whatever method they are started."""

import copy
import logging
import multiprocessing
import time

import pytest
import torch
from torch.utils.data import Dataset

from trials.training.loader import loader

LOGGER = logging.getLogger('trials.of_this_test')


@pytest.fixture
def start_method(request):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


class Numbers(Dataset):
    """Says what is read of it, at two levels."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        LOGGER.debug('looking for %s', index)
        LOGGER.info('found %s', index)
        return torch.tensor(index)


@pytest.mark.parametrize('start_method', ['fork', 'spawn', 'forkserver'], indirect=True)
def test_it_is_handled_once_by_the_handlers_and_at_the_levels_of_the_process_that_trains(
    start_method, tmp_path, caplog
):
    handler = logging.FileHandler(tmp_path / 'log')
    LOGGER.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, 'trials'):
            batches = loader(Numbers(), 2, workers=1)
            assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3]]
    finally:
        LOGGER.removeHandler(handler)
    expected = [f'found {number}' for number in range(4)]
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER.name] == expected
    assert (tmp_path / 'log').read_text().splitlines() == expected


def test_a_loader_can_be_copied_after_a_pass_that_was_left():
    batches = loader(Numbers(), 2, workers=1)
    for _ in batches:
        break
    assert len(list(copy.deepcopy(batches))) == 2


class Seconds(Numbers):
    """Of CPU, that the reading process took."""

    def __getitem__(self, index):
        return torch.tensor(time.process_time())


@pytest.mark.parametrize('start_method', ['fork', 'forkserver'], indirect=True)
def test_a_worker_starts_without_importing_pytorch(start_method):
    (seconds,) = loader(Seconds(), 4, workers=1)
    assert seconds.min() < 1.5
