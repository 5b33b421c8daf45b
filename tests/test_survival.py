"""The main job under disasters: what is killed, hangs, diverges or finds its disk full, with real processes of NNI."""

import copy
import json
import threading
import time
from collections import defaultdict
from types import SimpleNamespace

import psutil
import pytest
from nnictl_experiment import nni_experiment, trial_of

from analysis import Experiment, trials
from strategies.experiment.requests import key
from strategies.tuner import StrategyTuner
from trials.training.checkpoint import checkpoint_path

pytestmark = [pytest.mark.slow, pytest.mark.experiment]
FULL = 8
"""KiB that a file may hold on what stands for a full disk: less than a checkpoint, or the weights of a network."""


def small(configuration: dict, budget: int, **strategies: dict) -> dict:
    """Of ``budget`` trials a strategy, each of them little but its start, and a checkpoint."""
    configuration = copy.deepcopy(configuration)
    arguments = configuration['tuner']['classArgs']
    for recipe, epochs in (('search', 6), ('retrain', 3)):
        arguments[recipe].update({'epochs': epochs, 'batch_size': 16, 'dataset/canvases': 100})
    arguments.update(budget=budget, budget_unit='trials', strategies=strategies)
    arguments.pop('max_macs', None)
    return configuration


class Records:
    """What NNI has on record of an experiment, and which of its processes live."""

    def __init__(self, experiment):
        self.experiment, self.nni = experiment, Experiment(experiment.folder)
        (self.folder,) = experiment.folder.glob('environments/*/trials')

    def parameters(self) -> dict[str, dict]:
        """Of each trial, in the order of their first starts."""
        events = [event for event in self.nni.trial_events() if event['data']]
        return {event['trialJobId']: json.loads(event['data'])['parameters'] for event in reversed(events)}

    def attempts(self) -> dict[str, list]:
        """Of all that was asked for: the rows of its trials, in the order of their first starts."""
        parameters, attempts = self.parameters(), defaultdict(list)
        for row in trials(self.nni).itertuples():
            attempts[key(parameters[row.trial])].append(row)
        return attempts

    def results(self) -> dict[str, dict]:
        parameters = self.parameters()
        return {key(parameters[m['trialJobId']]): m['data'] for m in self.nni.metrics() if m['type'] == 'FINAL'}

    def succeeded(self, strategy: str | None = None, stage: str | None = None) -> int:
        frame = trials(self.nni)
        frame = frame if strategy is None else frame[frame.strategy == strategy]
        frame = frame if stage is None else frame[frame.stage == stage]
        return int((frame.status == 'SUCCEEDED').sum())

    def running(self, stage: str, checkpoint: bool) -> tuple[psutil.Process, str] | None:
        """A process that runs a trial of ``stage``, one that has a ``checkpoint`` if so asked, and the trial."""
        parameters = self.parameters()
        for process in self.experiment.processes():
            trial = trial_of(process)
            if parameters.get(trial, {}).get('stage') == stage and (
                not checkpoint or checkpoint_path(self.folder / 'checkpoints', parameters[trial]).exists()
            ):
                return process, trial
        return None

    def log(self, trial: str) -> str:
        return (self.folder / trial / 'trial.stderr').read_text()


def wait_for(what, seconds: float = 300):
    """The first value of ``what()`` that is true."""
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, 'it never came to that'
        time.sleep(0.1)
    return value


def started(experiment) -> Records:
    wait_for(lambda: list(experiment.folder.glob('environments/*/trials')))
    return Records(experiment)


def the_process(experiment, name: str, argument: str) -> psutil.Process:
    return next(p for p in experiment.processes() if p.name().startswith(name) and argument in p.cmdline())


def undisturbed(records: Records) -> set[str]:
    """What an experiment asks for that has the results of this one, and none of its disasters."""
    arguments, results = records.nni.tuner_arguments(), records.results()
    done, ids, asked = threading.Event(), iter(range(1000)), set()
    manager = SimpleNamespace(
        has_started=lambda _: True, unfinished=dict, failed=list, why_failed=lambda _: '', end_experiment=done.set
    )
    tuner = StrategyTuner(manager=lambda: manager, **arguments)
    tuner.update_search_space(records.nni.profile()['params']['searchSpace'])

    def send(parameter_id, parameters):
        asked.add(key(parameters))
        threading.Thread(target=end, args=(parameter_id, parameters)).start()

    def end(parameter_id, parameters):
        if key(parameters) in results:
            tuner.receive_trial_result(parameter_id, parameters, results[key(parameters)])
        tuner.trial_end(parameter_id, key(parameters) in results)
        ask()

    def ask():
        tuner.generate_multiple_parameters([next(ids)], st_callback=send)

    ask()
    ask()
    assert done.wait(60)
    return asked


RANDOM = {'class': 'nni.nas.strategy.Random'}
EVOLUTION = {'class': 'nni.nas.strategy.RegularizedEvolution', 'population_size': 2, 'sample_size': 2}


@pytest.fixture(scope='module')
def killed(tmp_path_factory, configuration):
    """Killed: the search, a retraining, NNI's manager, the tuner. Resumed, at once, after each of the latter two."""
    autonl = {'class': 'strategies.AutoNL', 'warmup_epochs': 1}
    configuration = small(configuration, 3, autonl=autonl, evolution=EVOLUTION)
    # No prefix: a process that the manager leaves behind would find its successor under the same URL.
    with nni_experiment(tmp_path_factory.mktemp('killed'), configuration, prefix='') as experiment:
        records, ended = started(experiment), {}
        for stage in ('search', 'retrain'):
            process, ended[stage] = wait_for(lambda stage=stage: records.running(stage, checkpoint=True))
            process.kill()
        wait_for(lambda: records.succeeded('autonl', 'search') and records.succeeded('evolution'))
        wait_for(lambda: records.running('retrain', checkpoint=True))
        before = experiment.processes()
        manager = the_process(experiment, 'node', '--port')
        manager.kill()
        psutil.wait_procs([manager], timeout=60)  # until it is reaped it is one that runs, to nnictl
        experiment.resume()
        _, outlived = psutil.wait_procs(before, timeout=60)
        finished = records.succeeded()
        wait_for(lambda: records.succeeded() > finished and records.running('retrain', checkpoint=False))
        tuner = the_process(experiment, 'python', '--exp_params')
        tuner.kill()
        of_error = experiment.command('-m', 'analysis', 'table', experiment.id, '--wait')
        experiment.nnictl('stop', experiment.id)
        left = experiment.processes()
        experiment.resume()
        table = experiment.command('-m', 'analysis', 'table', experiment.id, '--wait')
        yield SimpleNamespace(
            records=records, trials=ended, outlived=outlived, of_error=of_error, left=left, table=table
        )


def test_killed_in_any_part_it_completes(killed):
    assert killed.table.returncode == 0, killed.table.stdout + killed.table.stderr
    assert f'Experiment {killed.records.nni.id}: DONE' in killed.table.stdout
    frame = trials(killed.records.nni)
    assert frame[frame.status == 'SUCCEEDED'].groupby(['strategy', 'stage']).size().to_dict() == {
        ('autonl', 'search'): 1,
        ('autonl', 'retrain'): 2,
        ('autonl', 'test'): 1,
        ('evolution', 'retrain'): 3,
        ('evolution', 'test'): 1,
    }


@pytest.mark.parametrize('stage', ['search', 'retrain'])
def test_a_killed_trial_is_tried_once_more_from_its_checkpoint(killed, stage):
    trial, records = killed.trials[stage], killed.records
    first, second = records.attempts()[key(records.parameters()[trial])]
    assert (first.trial, first.status, second.status) == (trial, 'USER_CANCELED', 'SUCCEEDED')  # as NNI calls it
    assert 'going on after epoch' in records.log(second.trial)


def test_no_finished_trial_is_run_again(killed):
    for attempts in killed.records.attempts().values():
        assert [row.status for row in attempts] == ['USER_CANCELED'] * (len(attempts) - 1) + ['SUCCEEDED']


def test_the_strategies_go_on_with_all_they_had_learned(killed):
    assert set(killed.records.attempts()) == undisturbed(killed.records)


def test_tuner_and_trials_end_with_the_manager(killed):
    assert not killed.outlived


def test_a_killed_tuner_is_an_error_that_says_what_to_do(killed):
    experiment = killed.records.nni.id
    assert killed.of_error.returncode == 1
    assert f'Experiment {experiment}: ERROR' in killed.of_error.stdout
    assert f'nnictl stop {experiment} && nnictl resume {experiment}' in killed.of_error.stderr
    assert not killed.left


@pytest.fixture(scope='module')
def troubled(tmp_path_factory, configuration):
    """The disk is full, a search's loss is infinite; stopped and resumed; then a retraining hangs."""
    diverges = {'class': 'tests.diverging_search.DivergingSearch'}
    configuration = small(configuration, 2, diverges=diverges, random=RANDOM, evolution=EVOLUTION)
    configuration['trialCommand'] = f'ulimit -f {FULL}; exec {configuration["trialCommand"]}'
    configuration['maxTrialDuration'] = '60s'
    with nni_experiment(tmp_path_factory.mktemp('troubled'), configuration) as experiment:
        records = started(experiment)
        wait_for(lambda: records.succeeded() and records.running('retrain', checkpoint=False))
        experiment.nnictl('stop', experiment.id)
        left = experiment.processes()
        experiment.resume()
        hanging, trial = wait_for(lambda: records.running('retrain', checkpoint=False))
        hanging.suspend()
        table = experiment.command('-m', 'analysis', 'table', experiment.id, '--wait')
        yield SimpleNamespace(records=records, left=left, hanging=trial, table=table)


def test_stopped_and_resumed_in_trouble_it_completes(troubled):
    assert not troubled.left
    assert troubled.table.returncode == 1  # it ends, and one search is missing
    assert 'INCOMPLETE; missing: diverges: the search and every retraining and a test; ' in troubled.table.stderr
    frame = trials(troubled.records.nni)
    assert frame[frame.status == 'SUCCEEDED'].groupby(['strategy', 'stage']).size().to_dict() == {
        (strategy, stage): {'retrain': 2, 'test': 1}[stage]
        for strategy in ('random', 'evolution')
        for stage in ('retrain', 'test')
    }
    assert set(troubled.records.attempts()) == undisturbed(troubled.records)


def test_a_search_that_diverges_is_given_up_with_its_reason(troubled):
    frame = trials(troubled.records.nni)
    searches = frame[frame.strategy == 'diverges']
    assert set(searches.status) == {'FAILED'}
    assert len(searches) in (
        2,
        3,
    )  # a third where both had failed before the stop: a resume tries anew
    for trial in searches.trial:
        reason = json.loads((troubled.records.folder / trial / 'failure.json').read_text())
        assert reason['type'] == 'FloatingPointError'
        assert 'is infinite at step 1' in reason['error']
    log = (troubled.records.experiment.folder / 'log' / 'dispatcher.log').read_text()
    # The tuner waits some seconds for a result before it calls a trial failed: the stop may come in between.
    assert log.count('is infinite at step 1') >= len(searches) - 1
    assert 'it is given up' in log
    assert searches.failure.str.contains('the threshold loss is infinite at step 1').all()  # in the report
    assert 'diverges' in troubled.table.stdout


def test_a_trial_over_its_time_limit_is_tried_once_more(troubled):
    records = troubled.records
    attempts = records.attempts()[key(records.parameters()[troubled.hanging])]
    assert [row.trial for row in attempts[:-1]] == [troubled.hanging]
    assert attempts[0].status != 'SUCCEEDED'
    assert attempts[-1].status == 'SUCCEEDED'
    assert 'it ran over maxTrialDuration' in (records.experiment.folder / 'log' / 'dispatcher.log').read_text()


def test_a_full_disk_costs_files_and_no_result(troubled):
    records = troubled.records
    frame = trials(records.nni)
    for trial in frame[frame.status == 'SUCCEEDED'].trial:
        assert 'the result is reported, but its files are not there' in records.log(trial)
        assert not {'network.pt', 'trial.json'} & {file.name for file in (records.folder / trial).iterdir()}
        assert not list((records.folder / trial).glob('.*'))
    assert not list((records.folder / 'checkpoints').iterdir())
