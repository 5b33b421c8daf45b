"""How far an experiment is, in the unit of its budget."""

import pytest
from records import ARGUMENTS, sample

from analysis import trials
from analysis.__main__ import spent, total_budget


@pytest.mark.parametrize(
    ('unit', 'done', 'total'),
    [('epochs', 2 + 2 + 1, 2 * (4 + 3 * 2)), ('seconds', 3.5, 2 * 4), ('trials', 2, 2 * (4 + 3))],
)
def test_progress_is_what_was_spent_of_all_budgets(records, unit, done, total):
    records.trained('a', 0.9, 30, sample())
    records.trained('b', 0.9, 30, sample(), stage='test', test_accuracy=0.8)
    records.start('c', seed=1, **sample())
    records.epoch('c', 0)
    records.epoch('c', 1, train_loss=1.0)
    assert spent(trials(records.experiment), unit) == done
    assert total_budget({**ARGUMENTS, 'budget_unit': unit, 'test_runs': 3}) == total
