"""Databases of experiments, written as NNI writes them."""

import json
import sqlite3

from analysis import Experiment
from search_space import load_skeleton

CHOICES = load_skeleton('cued').choices()
ARGUMENTS = {
    'skeleton': 'cued',
    'seed': 0,
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

    def __init__(self, folder, tuner='strategies.tuner.StrategyTuner', seed=0, arguments=None, **params):
        (folder / 'db').mkdir(parents=True)
        self.experiment, self.folder, self._clock = Experiment(folder), folder, 1_800_000_000_000
        self.database = sqlite3.connect(folder / 'db' / 'nni.sqlite', isolation_level=None)
        self.database.executescript(SCHEMA)
        if tuner:
            params = {'trialConcurrency': 2, 'experimentName': 'a test', **params}
            params.setdefault('trialCodeDirectory', '/srv/somebody/code')
            params['tuner'] = {'className': tuner, 'classArgs': {**ARGUMENTS, 'seed': seed, **(arguments or {})}}
            row = [json.dumps(params), folder.name, str(folder)]
            self.database.execute('insert into ExperimentProfile values (?, ?, 9, 0, null, ?, 0, 1)', row)

    def event(self, trial, event, parameters=None):
        self._clock += 1000
        data = parameters and json.dumps({'parameter_id': 0, 'parameters': parameters})
        row = [self._clock, trial, event, data]
        self.database.execute("insert into TrialJobEvent values (?, ?, ?, ?, '', 0, '', '')", row)

    def start(self, trial, strategy='random', stage='retrain', seed=0, **parameters):
        self.event(trial, 'RUNNING', {'strategy': strategy, 'stage': stage, 'seed': seed, **parameters})

    def metric(self, trial, kind, data):
        row = [self._clock, trial, kind, data]
        self.database.execute("insert into MetricData values (?, ?, '0', ?, 0, ?)", row)

    def epoch(self, trial, epoch, **numbers):
        self.metric(trial, 'PERIODICAL', json.dumps(json.dumps({'default': 0.0, 'epoch': epoch, **numbers})))

    def final(self, trial, **result):
        self.metric(trial, 'FINAL', json.dumps(json.dumps(result)))

    def trained(self, trial, accuracy, macs, sample, stage='retrain', strategy='random', **result):
        self.start(trial, strategy, stage, **sample)
        self.final(trial, default=accuracy, macs=macs, params=7, epochs=2, seconds=3.5, **result)
        self.event(trial, 'SUCCEEDED')

    def left(self, trial, name, text):
        """A file that the trial left in its folder."""
        folder = self.folder / 'environments' / 'local-env' / 'trials' / trial
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def sample(**chosen):
    """The first candidates, and what is said of ``row01__lightnl`` and the like."""
    first = {label: candidates[0] for label, candidates in CHOICES.items()}
    return first | {label.replace('__', '/'): value for label, value in chosen.items()}
