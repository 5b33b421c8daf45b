"""The benchmark of growth, as a command, at sizes at which it takes seconds."""

import math
import re
from subprocess import CompletedProcess

import pandas as pd
import pytest
from warm_process import run_program

SIZES = '--rows 1 2 --candidates --classes --sides --steps 1 --batch 2 --trials 2 30 --decisions 3 --records 20 200'
COSTS = {
    'search-step': {'training step, ms', 'search step, ms', 'training step, MiB', 'search step, MiB'},
    'tuner': {'resume, s', 'decision, ms', 'memory, MiB'},
    'analysis': {'read, s', 'tables, s', 'plots, s', 'report, s', 'memory, MiB'},
}
GROWING = {'search-step': ['rows'], 'tuner': ['random', 'evolution'], 'analysis': ['trials']}


def run(*arguments: str) -> CompletedProcess:
    return run_program('benchmarks/speed/scale.py', *arguments)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """What a run at two sizes of everything prints, and where its tables and plots are."""
    folder = tmp_path_factory.mktemp('scale')
    done = run(*SIZES.split(), '--plots', str(folder), '--csv', str(folder))
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr  # the tuner reports what goes wrong at the manager's, and goes on
    return done.stdout, folder


@pytest.mark.slow
@pytest.mark.parametrize('part', COSTS)
def test_it_says_what_each_size_costs_and_how_that_grows(part, measured):
    table = pd.read_csv(measured[1] / f'{part}.csv')
    assert list(dict.fromkeys(table.iloc[:, 0])) == GROWING[part]
    for _, own in table.groupby(table.iloc[:, 0]):
        (small, large, growth), costs = own['size'], own[[*COSTS[part]]]
        assert growth == 'growth'
        assert (costs[:2] >= 0).all(axis=None)
        factor = float(large.replace(',', '')) / float(small.replace(',', ''))
        for name, (before, after, slope) in costs.items():
            assert math.isnan(slope) or after == pytest.approx(before * factor**slope), name


@pytest.mark.slow
def test_it_names_what_is_worse_than_linear_or_what_grows_fastest(measured):
    assert re.search(r'^(nothing is )?worse than linear.*: -?\d+\.\d\d$', measured[0], re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize('part', COSTS)
def test_it_draws_each_with_what_linear_would_be(part, measured):
    assert '<!-- linear -->' in (measured[1] / f'{part}.svg').read_text()


@pytest.mark.slow
def test_what_cannot_be_a_skeleton_is_one_line_and_status_2():
    done = run('--what', 'search-step', '--rows', '--candidates', '--classes', '1', '--sides')
    assert done.returncode == 2
    assert re.fullmatch(r'scale.py: .*classes must be a whole number from 2 to .*\n', done.stderr)
