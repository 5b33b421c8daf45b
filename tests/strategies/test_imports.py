"""What importing the strategies does to NNI, and under which names they are there."""

import subprocess
import sys

import pytest

import analysis
import strategies


@pytest.mark.parametrize('first', ['from strategies import AutoNL', 'from search_space import build'])
@pytest.mark.slow
def test_one_shot_strategies_of_nni_are_there_after_ours(first):
    program = f'{first}; from nni.nas.strategy import DARTS; print(DARTS.__name__)'
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ('DARTS\n', '')


def test_names_of_the_version_before_are_what_took_their_place():
    assert strategies.Course is strategies.History
    assert analysis.read_course is analysis.read_trajectories
