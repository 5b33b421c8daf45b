"""Reading experiments: unfinished ones, ones with failures, and ones that cannot be read."""

import json
import sqlite3

import pytest

from analysis import Experiment, comparison, trials
from analysis.__main__ import main
from search_space import load_skeleton

CHOICES = load_skeleton('cued').choices()
ARGUMENTS = {
    'skeleton': 'cued',
    'strategies': {'random': {}, 'autonl': {}},
    'budget': 4,
    'retrain': {'epochs': 2},
    'search': {'epochs': 3},
}
SCHEMA = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
"""


class Records:
    """Writes an experiment's database as NNI does."""

    def __init__(self, folder, tuner='strategies.tuner.StrategyTuner'):
        (folder / 'db').mkdir(parents=True)
        self.experiment, self._clock = Experiment(folder), 0
        self._database = sqlite3.connect(folder / 'db' / 'nni.sqlite')
        self._database.executescript(SCHEMA)
        if tuner:
            params = json.dumps({'tuner': {'className': tuner, 'classArgs': ARGUMENTS}})
            self._database.execute("insert into ExperimentProfile values (?, 'x', 0, 0, null, '', 0, 1)", [params])
        self._database.commit()

    def event(self, trial, event, parameters=None):
        self._clock += 1000
        data = parameters and json.dumps({'parameter_id': 0, 'parameters': parameters})
        row = [self._clock, trial, event, data]
        self._database.execute("insert into TrialJobEvent values (?, ?, ?, ?, '', 0, '', '')", row)
        self._database.commit()

    def final(self, trial, **result):
        row = [self._clock, trial, json.dumps(json.dumps(result))]
        self._database.execute("insert into MetricData values (?, ?, '0', 'FINAL', 0, ?)", row)
        self._database.commit()

    def trained(self, trial, accuracy, macs, sample, stage='retrain', **result):
        parameters = {'strategy': 'random', 'stage': stage, 'seed': 0, **sample}
        self.event(trial, 'RUNNING', parameters)
        self.final(trial, default=accuracy, macs=macs, params=7, epochs=2, seconds=3.5, **result)
        self.event(trial, 'SUCCEEDED')


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / 'experiment')


def sample(**chosen):
    first = {label: candidates[0] for label, candidates in CHOICES.items()}
    return first | {label.replace('__', '/'): value for label, value in chosen.items()}


def test_the_best_network_is_the_most_accurate_and_of_those_the_cheapest(records):
    records.trained('a', 0.90, 30, sample())
    records.trained('b', 0.95, 20, sample(row02__lightnl='present'))
    records.trained('c', 0.95, 10, sample(row01__lightnl='present', row01__lightnl_stride=1))
    records.trained('d', 0.99, 10, sample(), stage='test', test_accuracy=0.8)
    records.trained('e', 0.97, 10, sample(), stage='test', test_accuracy=0.9)
    row = comparison(records.experiment).loc['random']
    assert (row.lightnl, row.macs, row.validation_accuracy) == ('1: 0.125/1', 10, 0.95)
    assert (row.test_accuracy, row.test_runs) == (pytest.approx(0.85), 2)
    assert row.test_spread == pytest.approx(0.1)
    assert (row.epochs, row.seconds, row.trials, row.failed) == (6, 10.5, 5, 0)


def test_an_unfinished_experiment_with_failures_is_read(records):
    records.event('a', 'RUNNING', {'strategy': 'autonl', 'stage': 'search', 'seed': 0, 'class/margin': 1})
    records.event('b', 'RUNNING', {'strategy': 'random', 'stage': 'retrain', 'seed': 1, **sample()})
    records.event('b', 'FAILED')
    frame = trials(records.experiment).set_index('trial')
    assert frame.status.to_dict() == {'a': 'RUNNING', 'b': 'FAILED'}
    assert frame.ended.isna().to_dict() == {'a': True, 'b': False}
    table = comparison(records.experiment)
    assert table.failed.to_dict() == {'autonl': 0, 'random': 1}
    assert table.validation_accuracy.isna().all()


def test_an_experiment_without_trials_is_an_empty_table(records):
    assert comparison(records.experiment).empty


def refusal(folder, capsys):
    assert main(['table', str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_an_experiment_that_does_not_exist_is_refused(tmp_path, monkeypatch, capsys):
    assert "no experiment 'nowhere'" in refusal('nowhere', capsys)


def test_an_experiment_of_another_tuner_is_refused(tmp_path, capsys):
    records = Records(tmp_path / 'other', tuner='random.Tuner')
    assert 'was not run by strategies.tuner.StrategyTuner' in refusal(records.experiment.folder, capsys)


def test_an_experiment_that_was_never_started_is_refused(tmp_path, capsys):
    records = Records(tmp_path / 'empty', tuner=None)
    assert 'it was never started' in refusal(records.experiment.folder, capsys)


def test_a_damaged_database_is_refused(tmp_path, capsys):
    (tmp_path / 'db').mkdir()
    (tmp_path / 'db' / 'nni.sqlite').write_bytes(b'not a database' * 100)
    assert 'its database cannot be read' in refusal(tmp_path, capsys)
