"""The pages on experiments quote the rows that ship, and the front page quotes these pages."""

import re

import pytest
from nnictl_experiment import ROOT
from warm_process import run_program

from analysis import comparison, paired_differences, read, shipped, strategy_means

README = (ROOT / 'README.md').read_text()


@pytest.fixture(scope='module', params=['main-job', 'fashion-mnist'])
def name(request):
    return request.param


@pytest.fixture(scope='module')
def page(name):
    return (ROOT / 'docs' / 'results' / f'{name}.md').read_text()


@pytest.fixture(scope='module')
def trials(name):
    return read(shipped(name)).trials


def test_its_table_is_what_the_analysis_makes_of_the_rows(page, trials):
    assert re.findall(r'^\| \d .*', page, re.M) == lines_of(trials)


def lines_of(trials):
    return [
        f'| {row.experiment_seed} | {row.strategy} | {row.lightnl} | {row.macs:,.0f} | {row.params:,.0f} | '
        f'{row.validation_accuracy:.2%} | {row.test_accuracy:.2%} | {row.test_spread:.2%} | {row.epochs:.1f} | '
        f'{row.seconds:.0f} |'
        for row in comparison(trials).itertuples()
    ]


def test_its_means_are_those_of_the_rows(name, page, trials):
    for row in strategy_means(comparison(trials)).itertuples():
        assert f'{row.estimate:.2%}' in page
        assert name == 'main-job' or f'{row.estimate:.2%}' in README


def test_no_interval_of_a_difference_leaves_0_out_as_it_says(page, trials):
    assert 'The 95% intervals of all differences hold 0.' in ' '.join(page.split())
    differences = paired_differences(comparison(trials))
    assert len(differences) == 3
    assert ((differences.low < 0) & (differences.high > 0)).all()


def test_the_front_page_shows_seed_0_of_the_main_job(main_job):
    of_seed_0 = [line.removeprefix('| 0 ') for line in lines_of(main_job.trials) if line.startswith('| 0 ')]
    assert re.findall(r'^\| (?:autonl|random|evolution) .*', README, re.M) == of_seed_0


def test_its_counts_of_trainings_that_learned_are_what_its_own_code_prints():
    page = (ROOT / 'docs' / 'results' / 'main-job.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', page, re.S)
    printed = re.findall(r'(.+): (\d+) of (\d+) learned', run_program('-c', code).stdout)
    assert [name for name, _, _ in printed] == ['row 1', 'row 2, not row 1', 'neither']
    (row_1, of_row_1), row_2, neither = (counts for _, *counts in printed)
    assert row_1 == of_row_1
    said = ' '.join(page.split())
    assert f'All {row_1} trainings' in said
    assert f'{" of ".join(row_2)} did' in said
    assert f'either row {" of ".join(neither)}' in said
    assert f'all {row_1} trainings' in (ROOT / 'docs' / 'results' / 'learning.md').read_text()
