"""``benchmarks/quality/search_seeds.py``, on a task of a few seconds."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from warm_process import run_program

COMMAND = Path(__file__).parents[3] / 'benchmarks' / 'quality' / 'search_seeds.py'
RECIPE = {
    'dataset': 'cued-digits',
    'dataset/canvases': 128,
    'epochs': 2,
    'batch_size': 16,
    'learning_rate': 0.005,
}


@pytest.mark.slow
def test_a_row_a_budget_and_seed_is_printed_and_kept_and_not_computed_twice(tmp_path):
    arguments = {
        'skeleton': 'cued',
        'max_macs': 1.63e6,
        'strategies': {'autonl': {'class': 'strategies.AutoNL', 'warmup_epochs': 1}},
        'retrain': RECIPE | {'epochs': 1},
        'search': RECIPE,
    }
    experiment, table = tmp_path / 'experiment.yaml', tmp_path / 'table.csv'
    experiment.write_text(yaml.safe_dump({'tuner': {'classArgs': arguments}}))

    def run(*budgets: str) -> str:
        options = ['--experiment', experiment, '--csv', table, '--seeds', '1', '--processes', '1', '--retrain']
        done = run_program(COMMAND, *options, *(['--vary', 'target_macs', *budgets] if budgets else []))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert 'target_macs 1660000.0: of 1 at row 1' in run('1.66e6')
    printed = run('1.66e6', '[1.62e6, 1.7e6]')
    rows = pd.read_csv(table)
    assert rows.value.tolist() == [1.66e6, 1.62e6, 1.7e6]
    assert (rows.macs <= rows.value).all()
    assert rows.test_accuracy.between(0, 1).all()
    assert rows.cpu_seconds[0] != rows.cpu_seconds[1] == rows.cpu_seconds[2]  # one search for the two of the front
    assert printed.count('at or below the budget: 1 of 1') == 3
    of_all = [COMMAND, '--csv', table, '--vary', 'target_macs', '--print']
    assert run_program(*of_all).stdout == printed

    experiment.write_text(experiment.read_text().replace('learning_rate: 0.005', 'learning_rate: 0.004'))
    assert 'target_macs 1660000.0: of 1 at row 1' in run('1.66e6')  # and not of the row of the other recipe too
    assert pd.read_csv(table).value.tolist() == [1.66e6, 1.62e6, 1.7e6, 1.66e6]
    run()
    alone = pd.read_csv(table).iloc[-1]
    assert alone.macs <= 1.63e6  # the budget of the experiment
    lines = [line for line in run_program(*of_all).stdout.splitlines() if line.startswith('target_macs ')]
    assert [line.partition(': settings')[0] for line in lines if 'settings' in line] == ['target_macs 1660000.0'] * 2
    assert len(lines) == 5  # no line is of two recipes
    assert all(': of 1 at row 1: ' in line for line in lines)
