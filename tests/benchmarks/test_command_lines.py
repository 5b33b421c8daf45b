"""Every benchmark says what is wrong with its arguments in one line, and where its files cannot go before it begins."""

import pytest
from warm_process import run_program

SPEED = ('block', 'cost', 'networks', 'scale', 'search_step')
QUALITY = ('ablations', 'search_quality', 'search_seeds')
PROGRAMS = [f'speed/{name}.py' for name in SPEED] + [f'quality/{name}.py' for name in QUALITY]


def one_line_of(*command):
    done = run_program(*command)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize('program', PROGRAMS)
def test_an_unknown_argument_is_one_line(program):
    assert one_line_of(f'benchmarks/{program}', '--no-such-option').endswith('--no-such-option')


@pytest.mark.parametrize('program', ['speed/block.py', 'speed/scale.py', 'quality/search_seeds.py'])
def test_rows_that_could_not_be_kept_are_said_before_the_first_is_measured(program):
    assert '/dev/full' in one_line_of(f'benchmarks/{program}', '--csv', '/dev/full')


def test_a_skeleton_that_is_not_there_is_one_line():
    assert "'mobyle'" in one_line_of('benchmarks/speed/cost.py', 'mobyle')
