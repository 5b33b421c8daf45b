"""The benchmark of a search step, as a command."""

import re
from subprocess import CompletedProcess

import pytest
from warm_process import run_program


def run(*arguments: str) -> CompletedProcess:
    return run_program('benchmarks/speed/search_step.py', *arguments)


@pytest.mark.slow
def test_it_prints_time_and_memory_of_every_subject_and_what_became_of_every_goal():
    done = run('--steps', '6', '--warmup', '1', '--batch', '4')
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in done.stdout.splitlines()[2:]:
        name, *values = re.split(r'\s{2,}', line.strip())
        rows[name] = [float(value) for value in re.findall(r'\d+\.\d+', ' '.join(values))]
    assert rows['largest network'][1:4] == [1, 1, 1]  # the ratio to itself and its interval
    assert rows['largest network'][5] == 1
    for subject in ('AutoNL, weight step', 'AutoNL, threshold step', 'AutoNL, search step', 'NNI DARTS'):
        milliseconds, ratio, low, high, mebibytes, memory = rows[subject]
        assert min(milliseconds, mebibytes) > 0
        assert low <= ratio <= high
        assert 0.3 < memory < 3  # a supernet holds the largest network, and not several
    parts = (rows[f'AutoNL, {part} step'][0] for part in ('weight', 'threshold'))
    assert max(parts) < rows['AutoNL, search step'][0]
    assert {'AutoNL, cost term', 'NNI GumbelDARTS'} < set(rows)
    assert len(re.findall(r'goal: at most .*; (?:met|missed) by \d+\.\d%', done.stdout)) == 6


def test_an_unknown_skeleton_is_one_line_and_status_2():
    done = run('--skeleton', 'moblie')
    assert done.returncode == 2
    assert re.fullmatch(r"search_step.py: .*'moblie'.*did you mean 'mobile'\?\n", done.stderr)
