"""The page on the main job quotes the rows that ship, and the front page quotes that page."""

import re

from nnictl_experiment import ROOT
from warm_process import run_program

from analysis import comparison, strategy_means

PAGE = (ROOT / 'docs' / 'results' / 'main-job.md').read_text()


def test_its_table_is_what_the_analysis_makes_of_the_rows(main_job):
    lines = [
        f'| {row.experiment_seed} | {row.strategy} | {row.lightnl} | {row.macs:,.0f} | {row.params:,.0f} | '
        f'{row.validation_accuracy:.2%} | {row.test_accuracy:.2%} | {row.test_spread:.2%} | {row.epochs:.1f} | '
        f'{row.seconds:.0f} |'
        for row in comparison(main_job.trials).itertuples()
    ]
    assert re.findall(r'^\| \d .*', PAGE, re.M) == lines
    of_seed_0 = [line.removeprefix('| 0 ') for line in lines if line.startswith('| 0 ')]
    assert re.findall(r'^\| (?:autonl|random|evolution) .*', (ROOT / 'README.md').read_text(), re.M) == of_seed_0


def test_its_means_are_those_of_the_rows(main_job):
    for row in strategy_means(comparison(main_job.trials)).itertuples():
        assert f'{row.estimate:.2%}' in PAGE


def test_its_counts_of_trainings_that_learned_are_what_its_own_code_prints():
    (code,) = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    printed = re.findall(r'(.+): (\d+) of (\d+) learned', run_program('-c', code).stdout)
    assert [name for name, _, _ in printed] == ['row 1', 'row 2, not row 1', 'neither']
    (row_1, of_row_1), row_2, neither = (counts for _, *counts in printed)
    assert row_1 == of_row_1
    said = ' '.join(PAGE.split())
    assert f'All {row_1} trainings' in said
    assert f'{" of ".join(row_2)} did' in said
    assert f'either row {" of ".join(neither)}' in said
    assert f'all {row_1} trainings' in (ROOT / 'docs' / 'results' / 'learning.md').read_text()
