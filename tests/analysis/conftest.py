"""Experiments to analyse."""

import matplotlib
import pytest
from records import Records

from analysis import read, shipped

matplotlib.use('agg')


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / 'experiment')


@pytest.fixture(scope='session')
def main_job():
    """The shipped result set."""
    return read(shipped())
