"""The tuner's state machine, against a manager that answers at once and trials that end as the test says."""

import random
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_space import load_skeleton, macs, nni_search_space
from strategies.engine import TrialRequest
from strategies.tuner import StrategyTuner

SKELETON = load_skeleton('cued')
RANDOM = {'class': 'nni.nas.strategy.Random'}
EVOLUTION = {'class': 'nni.nas.strategy.RegularizedEvolution', 'population_size': 2, 'sample_size': 1}
AUTONL = {'class': 'strategies.AutoNL', 'warmup_epochs': 1}
ALL = {'autonl': AUTONL, 'random': RANDOM, 'evolution': EVOLUTION}


@pytest.fixture(autouse=True)
def _quick_polling(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(time, 'sleep', lambda seconds: sleep(min(seconds, 0.002)))
    monkeypatch.setattr('strategies.comparison.GRACE_SECONDS', {True: 0.05, False: 0.01})


class Manager:
    """NNI's manager, to the tuner."""

    def __init__(self):
        self.done = threading.Event()

    def has_started(self, parameter_id):
        return True

    def why_failed(self, parameter_id):
        return 'the log of its trial'

    def end_experiment(self):
        self.done.set()

    stop_experiment = end_experiment


class Experiment:
    """Plays NNI's dispatcher: asks the tuner for trials, ends them in a random order, some of them badly."""

    def __init__(self, strategies=ALL, budget=8.0, concurrency=2, fails=lambda parameters, attempt: False, known=()):
        self.manager = Manager()
        self.tuner = StrategyTuner(
            skeleton='cued',
            strategies=strategies,
            budget=budget,
            retrain={'epochs': 2},
            search={'epochs': 3},
            test_runs=2,
            manager=lambda: self.manager,
        )
        self.tuner.update_search_space(nni_search_space(SKELETON.choices()))
        self.tuner.import_data([{'parameter': p, 'value': v} for p, v in known])
        self.concurrency, self.fails = concurrency, fails
        self.started: list[dict] = []
        self.finished: list[tuple[dict, dict]] = []
        self.running: dict[int, dict] = {}
        self.most_running = 0
        self._lock, self._ids = threading.Lock(), 0

    def _send(self, parameter_id, parameters):
        with self._lock:
            assert parameter_id not in self.running
            self.running[parameter_id] = parameters
            self.started.append(parameters)
            self.most_running = max(self.most_running, len(self.running))

    def _ask(self, count):
        ids = list(range(self._ids, self._ids + count))
        self._ids += count
        assert self.tuner.generate_multiple_parameters(ids, st_callback=self._send) == []

    def result(self, parameters):
        if parameters['stage'] == 'search':
            sample = {label: candidates[0] for label, candidates in SKELETON.choices().items()}
            return {'default': 0.5, 'epochs': 4.0, 'macs': 1, 'params': 1, 'seconds': 1.0, **sample}
        sample = {label: parameters[label] for label in SKELETON.choices()}
        accuracy = random.Random(str(sorted(parameters.items()))).random()
        return {'default': accuracy, 'epochs': 2, 'macs': macs(SKELETON)(sample), 'params': 1, 'seconds': 1.0}

    def run(self, order=None, seconds=20.0, stop_after=None):
        order = order or random.Random(0)
        attempts: dict[str, int] = {}
        self._ask(self.concurrency)
        until = time.monotonic() + seconds
        while not self.manager.done.is_set() and (stop_after is None or len(self.finished) < stop_after):
            assert time.monotonic() < until, f'deadlock: {self.running}'
            with self._lock:
                ids = sorted(self.running)
            if not ids:
                time.sleep(0.002)
                continue
            parameter_id = order.choice(ids)
            with self._lock:
                parameters = self.running.pop(parameter_id)
            key = str(sorted(parameters.items()))
            attempts[key] = attempts.get(key, 0) + 1
            if self.fails(parameters, attempts[key]):
                self.tuner.trial_end(parameter_id, False)
            else:
                result = self.result(parameters)
                self.finished.append((parameters, result))
                # NNI tells of a trial's end and of its result in two threads, in either order.
                calls = [
                    lambda p=parameter_id: self.tuner.trial_end(p, True),
                    lambda p=parameter_id, v=parameters, r=result: self.tuner.receive_trial_result(p, v, r),
                ]
                order.shuffle(calls)
                for call in calls:
                    call()
            self._ask(1)
        return self

    def stages(self, strategy):
        return [p['stage'] for p, _ in self.finished if p['strategy'] == strategy]


def test_every_strategy_spends_its_budget_and_its_pick_is_tested():
    experiment = Experiment().run()
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2
    assert experiment.stages('evolution') == ['retrain'] * 4 + ['test'] * 2
    assert experiment.stages('autonl') == ['search'] + ['retrain'] * 2 + ['test'] * 2


def test_the_pick_is_the_network_of_the_best_validation_accuracy():
    experiment = Experiment().run()
    for strategy in ALL:
        own = [(p, r) for p, r in experiment.finished if p['strategy'] == strategy]
        best = max((x for x in own if x[0]['stage'] == 'retrain'), key=lambda x: x[1]['default'])[0]
        for tested in (p for p, _ in own if p['stage'] == 'test'):
            assert all(tested[label] == best[label] for label in SKELETON.choices())
            assert tested['seed'] not in {p['seed'] for p, _ in own if p['stage'] == 'retrain'}


def test_the_found_network_of_a_search_is_what_is_retrained():
    experiment = Experiment({'autonl': AUTONL}).run()
    retrained = [p for p, _ in experiment.finished if p['stage'] == 'retrain']
    assert all(p[label] == c[0] for p in retrained for label, c in SKELETON.choices().items())
    assert [p['seed'] for p in retrained] == [0, 1]


def test_the_search_trial_knows_the_strategy_and_its_arguments():
    experiment = Experiment({'autonl': AUTONL}).run()
    search = experiment.finished[0][0]
    assert search['class'] == 'strategies.AutoNL'
    assert search['class/warmup_epochs'] == 1
    assert search['epochs'] == 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), concurrency=st.integers(1, 8), failing=st.floats(0, 0.6))
def test_no_order_of_results_and_failures_deadlocks_or_exceeds_a_budget(seed, concurrency, failing):
    dice = random.Random(seed)
    experiment = Experiment(concurrency=concurrency, fails=lambda parameters, attempt: dice.random() < failing)
    experiment.run(order=random.Random(seed))
    assert experiment.most_running <= concurrency
    for strategy in ALL:
        spent = sum(r['epochs'] for p, r in experiment.finished if p['strategy'] == strategy and p['stage'] != 'test')
        assert spent <= 8


def test_a_failed_trial_is_tried_once_more():
    experiment = Experiment({'random': RANDOM}, fails=lambda p, attempt: attempt == 1).run()
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2
    assert len(experiment.started) == 12


def test_a_trial_that_fails_again_is_given_up_and_the_others_go_on():
    experiment = Experiment(fails=lambda p, attempt: p['strategy'] == 'autonl').run()
    assert experiment.stages('autonl') == []
    assert [p['stage'] for p in experiment.started if p['strategy'] == 'autonl'] == ['search', 'search']
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2


def test_a_trial_that_ends_well_and_never_reports_counts_as_failed():
    experiment = Experiment({'random': RANDOM})
    experiment.result = lambda parameters: None
    receive = experiment.tuner.receive_trial_result
    experiment.tuner.receive_trial_result = lambda i, p, value: None if value is None else receive(i, p, value)
    experiment.run()
    assert experiment.manager.done.is_set()
    assert len(experiment.started) == 8


def test_results_of_an_earlier_run_are_not_asked_for_again():
    whole = Experiment({'random': RANDOM, 'autonl': AUTONL}).run()
    part = Experiment({'random': RANDOM, 'autonl': AUTONL}).run(stop_after=4)
    rest = Experiment({'random': RANDOM, 'autonl': AUTONL}, known=part.finished).run()
    assert not [p for p in rest.started if p in [q for q, _ in part.finished]]

    def everything(*runs):
        return sorted(str(sorted(p.items())) for run in runs for p, _ in run.finished)

    assert everything(part, rest) == everything(whole)


def test_a_finished_experiment_that_is_resumed_ends_at_once():
    whole = Experiment().run()
    again = Experiment(known=whole.finished).run()
    assert again.started == []


def test_a_free_worker_goes_to_the_strategy_that_has_spent_least():
    comparison = Experiment({'one': RANDOM, 'other': RANDOM}).tuner._comparison
    for name, spent in (('one', 4.0), ('other', 2.0)):
        engine = comparison.engines[name]
        engine.requests.append(TrialRequest(name, {}, result={'epochs': spent}, ended=True))
        engine.requests.append(TrialRequest(name, {}, epochs=2))
        engine.queue.append(engine.requests[-1])
    assert [comparison._next_request().strategy for _ in range(2)] == ['other', 'one']


def test_one_trial_starts_at_a_time():
    experiment = Experiment({'random': RANDOM}, concurrency=3)
    starting = threading.Event()
    experiment.manager.has_started = lambda parameter_id: starting.is_set()
    experiment._ask(3)

    def started(count, seconds):
        until = time.monotonic() + seconds
        while len(experiment.started) < count and time.monotonic() < until:
            time.sleep(0.002)
        return len(experiment.started)

    assert started(2, seconds=1.0) == 1
    starting.set()
    assert started(3, seconds=10.0) == 3


def start(**arguments) -> None:
    arguments = {
        'skeleton': 'cued',
        'strategies': ALL,
        'budget': 8,
        'retrain': {'epochs': 2},
        'search': {'epochs': 3},
        'manager': Manager,
        **arguments,
    }
    space = arguments.pop('space', nni_search_space(SKELETON.choices()))
    StrategyTuner(**arguments).update_search_space(space)


def test_a_search_space_that_is_not_the_skeletons_is_refused():
    space = nni_search_space(SKELETON.choices())
    del space['row01/lightnl']
    with pytest.raises(ValueError, match='row01/lightnl is missing'):
        start(space=space)


@pytest.mark.parametrize('path', ['nni.nas.strategy.Randon', 'nowhere.Random', 'Random'])
def test_an_unknown_strategy_class_is_refused(path):
    with pytest.raises(ValueError, match=f'no strategy class {path!r}'):
        start(strategies={'random': {'class': path}})


def test_the_tuner_starts_without_the_slow_imports():
    code = "import sys, strategies.tuner; sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
