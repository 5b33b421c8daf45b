"""The tuner's state machine, against a manager that answers at once and trials that end as the test says."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nni.nas.execution.event import ModelEventType
from nni.nas.strategy.base import Strategy
from numpy.random import RandomState

from search_space import LightNLSpace, load_skeleton, macs, nni_search_space
from strategies import AutoNL
from strategies.experiment.bounded_space import BoundedSpace
from strategies.experiment.requests import TrialRequest
from strategies.experiment.seeds import derived_seed
from strategies.tuner import StrategyTuner

SKELETON = load_skeleton('cued')
SPACE = nni_search_space(SKELETON.choices())
LOW, HIGH = macs(SKELETON).range()
RANDOM = {'class': 'nni.nas.strategy.Random'}
EVOLUTION = {'class': 'nni.nas.strategy.RegularizedEvolution', 'population_size': 2, 'sample_size': 1}
AUTONL = {'class': 'strategies.AutoNL', 'warmup_epochs': 1}
ALL = {'autonl': AUTONL, 'random': RANDOM, 'evolution': EVOLUTION}


@pytest.fixture(autouse=True)
def _quick_polling(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(time, 'sleep', lambda seconds: sleep(min(seconds, 0.002)))
    monkeypatch.setattr('strategies.experiment.workers.GRACE_SECONDS', {True: 0.4, False: 0.01})
    # Not in a process of their own, which takes seconds: test_own_strategy does that.
    monkeypatch.setattr('strategies.experiment.comparison.try_strategy', lambda name, arguments: None)


class Manager:
    """NNI's manager, to the tuner."""

    def __init__(self):
        self.done = threading.Event()
        self.again: dict[int, dict] = {}
        self.failures: list[dict] = []
        self.statuses: dict[int, str] = {}

    def has_started(self, parameter_id):
        return True

    def unfinished(self):
        return self.again

    def last_earlier_id(self):
        return max(self.again, default=-1)

    def failed(self):
        return self.failures

    def status(self, parameter_id):
        return self.statuses.get(parameter_id, 'RUNNING')

    def why_failed(self, parameter_id):
        return 'the log of its trial'

    def end_experiment(self):
        self.done.set()

    stop_experiment = end_experiment


class Experiment:
    """Plays NNI's dispatcher: asks the tuner for trials, ends them in a random order, some of them badly."""

    def __init__(
        self,
        strategies=ALL,
        budget=8.0,
        concurrency=2,
        fails=lambda parameters, attempt: False,
        known=(),
        search_space=None,
        **arguments,
    ):
        self.manager = Manager()
        self.tuner = StrategyTuner(
            skeleton='cued',
            strategies=strategies,
            budget=budget,
            retrain={'epochs': 2},
            search={'epochs': 3},
            test_runs=2,
            manager=lambda: self.manager,
            **arguments,
        )
        self.tuner.update_search_space(search_space or SPACE)
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
            sample |= {
                k.removeprefix('candidates/'): v[0] for k, v in parameters.items() if k.startswith('candidates/')
            }
            return {
                'default': 0.5,
                'epochs': 4.0,
                'macs': macs(SKELETON)(sample),
                'params': 1,
                'seconds': 2.0,
                **sample,
            }
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
        if stop_after is not None:
            self.kill()
        return self

    def kill(self):
        """The tuner's process is gone: its strategies, threads here, have nothing left to wait for."""
        for engine in self.tuner._comparison.engines.values():
            engine.drop_queue()
            engine.close()
            for request in [r for r in engine.requests if not r.ended]:
                engine.finish(request, None)

    def networks(self, strategy, stage='retrain'):
        own = [p for p, _ in self.finished if p['strategy'] == strategy and p['stage'] == stage]
        return [{label: p[label] for label in SKELETON.choices()} for p in own]

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
    assert [p['seed'] for p in retrained] == [derived_seed(0, 'retrain', index) for index in range(2)]


def test_the_search_trial_knows_the_strategy_and_its_arguments():
    experiment = Experiment({'autonl': AUTONL}).run()
    search = experiment.finished[0][0]
    assert search['class'] == 'strategies.AutoNL'
    assert search['class/warmup_epochs'] == 1
    assert search['epochs'] == 3


class Batches(Strategy):
    """A user's own: trains three networks at once, waits for all of them, and does so again."""

    def __init__(self, size: int = 3):
        super().__init__()
        self.size = size

    def _run(self):
        while self.wait_for_resource():
            self.engine.submit_models(*(self.model_space.random() for _ in range(self.size)))
            self.engine.wait_models()


class Freezer(Strategy):
    """A user's own: asks for the largest network, for ever, whatever becomes of it."""

    def _run(self):
        sample = {
            label: max(choice.values, key=lambda v: (v == 'present', v))
            for label, choice in self.model_space.simplify().items()
        }
        while self.wait_for_resource():
            self.engine.submit_models(self.model_space.freeze(sample))


class Raises(Strategy):
    """A user's own, which fails at the result of its second network, or on its way to the third."""

    def __init__(self, in_callback: bool = False):
        super().__init__()
        self.in_callback, self.results = in_callback, 0

    def _initialize(self, model_space, engine):
        engine.register_model_event_callback(ModelEventType.TrainingEnd, self._ended)
        return model_space

    def _ended(self, event):
        self.results += 1
        if self.in_callback and self.results == 2:
            raise RuntimeError('at the result')

    def _run(self):
        for _ in range(2):
            self.wait_for_resource()
            self.engine.submit_models(self.model_space.random())
        if not self.in_callback:
            raise RuntimeError('on the way')


FUZZ = (Phase.explicit, Phase.reuse, Phase.generate)  # threads take their turns as they like: nothing to shrink
OWN = {name: {'class': f'{__name__}.{name}'} for name in ('Batches', 'Freezer', 'Raises')}
FUZZED = {
    'autonl': AUTONL,
    'random': RANDOM,
    'evolution': {**EVOLUTION, 'population_size': 3},
    'own': {**OWN['Batches'], 'size': 1},
    'raises': OWN['Raises'],
}


@settings(max_examples=20, deadline=None, phases=FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    concurrency=st.integers(1, 8),
    failing=st.floats(0, 0.6),
    runs=st.lists(st.integers(0, 12), max_size=3),
    unit=st.sampled_from(['epochs', 'trials']),
)
@pytest.mark.slow
def test_no_order_of_results_failures_and_resumes_deadlocks_or_exceeds_a_budget(seed, concurrency, failing, runs, unit):
    dice, finished = random.Random(seed), []
    budget = {'epochs': 8.0, 'trials': 4}[unit]
    for stop_after in [*runs, None]:
        fails = lambda parameters, attempt: dice.random() < failing  # noqa: E731
        experiment = Experiment(FUZZED, budget, concurrency, fails, known=finished, budget_unit=unit)
        experiment.run(order=dice, stop_after=stop_after)
        assert experiment.most_running <= concurrency
        assert not [p for p in experiment.started if p in [q for q, _ in finished]], 'a finished trial ran again'
        finished += experiment.finished
    assert experiment.manager.done.is_set()
    for strategy in FUZZED:
        own = [r for p, r in finished if p['strategy'] == strategy and p['stage'] != 'test']
        assert (len(own) if unit == 'trials' else sum(r['epochs'] for r in own)) <= budget


@settings(max_examples=15, deadline=None, phases=FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), concurrency=st.integers(1, 4), stop_after=st.integers(1, 11))
@pytest.mark.slow
def test_what_is_asked_for_depends_on_no_order_and_no_resume(seed, concurrency, stop_after):
    strategies = {'random': RANDOM, 'evolution': {**EVOLUTION, 'population_size': 3, 'mutation_prob': 0.5}}
    whole = Experiment(strategies, 12.0, concurrency).run(order=random.Random(0))
    part = Experiment(strategies, 12.0, concurrency).run(order=random.Random(seed), stop_after=stop_after)
    rest = Experiment(strategies, 12.0, concurrency, known=part.finished).run(order=random.Random(seed + 1))

    def everything(*runs):
        return sorted(str(sorted(p.items())) for run in runs for p, _ in run.finished)

    assert everything(part, rest) == everything(whole)


@pytest.mark.parametrize('in_callback', [False, True])
def test_a_strategy_that_fails_leaves_the_others_alone_and_keeps_its_results(in_callback):
    strategies = {'raises': {**OWN['Raises'], 'in_callback': in_callback}, 'random': RANDOM}
    experiment = Experiment(strategies).run()
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2
    assert experiment.stages('raises')[-2:] == ['test'] * 2


def test_a_users_own_strategy_takes_part_by_its_import_path():
    experiment = Experiment({'own': OWN['Batches'], 'random': RANDOM}, budget=12.0).run()
    assert experiment.stages('own') == ['retrain'] * 6 + ['test'] * 2
    assert experiment.stages('random') == ['retrain'] * 6 + ['test'] * 2


TPE = {'class': 'nni.nas.strategy.TPE'}
GRID = {'class': 'nni.nas.strategy.GridSearch'}


@pytest.mark.parametrize('max_macs', [LOW, (LOW + HIGH) / 2, HIGH])
def test_no_strategy_trains_a_network_over_the_macs_budget(max_macs):
    strategies = {'random': RANDOM, 'evolution': {**EVOLUTION, 'population_size': 4}, 'tpe': TPE, 'grid': GRID, **OWN}
    experiment = Experiment(strategies, max_macs=max_macs, concurrency=4).run()
    for parameters, result in experiment.finished:
        assert result['macs'] <= max_macs, parameters
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2
    assert len(experiment.networks('evolution')) >= 3
    assert bool(experiment.networks('Freezer')) == (max_macs == HIGH)


def test_networks_are_drawn_at_random_from_all_that_fit():
    space = BoundedSpace.from_model(LightNLSpace(SKELETON))
    space.cost, space.max_macs = macs(SKELETON), LOW + (HIGH - LOW) / 3
    draws = [space.random(random_state=RandomState(seed)).sample for seed in range(200)]
    assert all(space.cost(sample) <= space.max_macs for sample in draws)
    for label, candidates in SKELETON.choices().items():
        assert {sample[label] for sample in draws} == set(candidates)


def test_a_search_is_told_of_the_macs_budget_where_it_takes_one(monkeypatch):
    class Targeted(AutoNL):
        def __init__(self, *, target_macs: float | None = None, warmup_epochs: int = 1):
            super().__init__(warmup_epochs=warmup_epochs)
            self.target_macs = target_macs

    monkeypatch.setattr(sys.modules[__name__], 'Targeted', Targeted, raising=False)
    path = f'{__name__}.Targeted'
    strategies = {'told': {'class': path}, 'own': {'class': path, 'target_macs': 5}}
    experiment = Experiment(strategies, max_macs=HIGH).run()
    asked = {p['strategy']: p['class/target_macs'] for p, _ in experiment.finished if p['stage'] == 'search'}
    assert asked == {'told': HIGH, 'own': 5}


def test_what_a_search_found_over_the_macs_budget_is_not_trained():
    experiment = Experiment({'autonl': AUTONL, 'random': RANDOM}, max_macs=LOW)
    result = experiment.result
    large = {label: candidates[-1] for label, candidates in SKELETON.choices().items()}
    experiment.result = lambda p: result(p) | ({**large, 'macs': HIGH} if p['stage'] == 'search' else {})
    experiment.run()
    assert experiment.stages('autonl') == ['search']
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2


def test_a_candidate_that_the_search_space_has_lost_is_not_tried():
    space = {label: dict(choice) for label, choice in SPACE.items()}
    space['row01/lightnl']['_value'] = ['present']
    space['row02/lightnl']['_value'] = ['absent']
    space['row01/lightnl_ratio']['_value'] = [0.25]
    experiment = Experiment({**ALL, 'tpe': TPE}, search_space=space).run()
    for strategy in (*ALL, 'tpe'):
        for network in (*experiment.networks(strategy), *experiment.networks(strategy, 'test')):
            assert network['row01/lightnl'] == 'present'
            assert network['row01/lightnl_ratio'] == 0.25
            assert network['row02/lightnl'] == 'absent'
    (search,) = [p for p, _ in experiment.finished if p['stage'] == 'search']
    left = {k: v for k, v in search.items() if k.startswith('candidates/')}
    assert left == {
        'candidates/row01/lightnl': ['present'],
        'candidates/row02/lightnl': ['absent'],
        'candidates/row01/lightnl_ratio': [0.25],
    }


@pytest.mark.parametrize('unit', ['epochs', 'seconds', 'trials'])
def test_a_budget_is_kept_in_its_unit(unit):
    # A trial of the test's takes 2 epochs and 1 second; the search 4 epochs and 2 seconds.
    experiment = Experiment(
        budget={'epochs': 8, 'seconds': 4, 'trials': 4}[unit], budget_unit=unit, concurrency=4
    ).run()
    for strategy in ('random', 'evolution'):
        assert experiment.stages(strategy) == ['retrain'] * 4 + ['test'] * 2
    assert experiment.stages('autonl').count('retrain') == (3 if unit == 'trials' else 2)
    spent = {u: experiment.tuner._comparison.engines['random'].spent(u) for u in ('epochs', 'seconds', 'trials')}
    assert spent == {'epochs': 8, 'seconds': 4, 'trials': 4}


def test_a_search_that_leaves_nothing_for_a_retraining_is_refused():
    with pytest.raises(ValueError, match='more than the budget of 5'):
        start(budget=5, strategies={'autonl': AUTONL})


@pytest.mark.parametrize('result', [0.5, None, {}, {'default': float('nan'), 'macs': 1, 'epochs': 2, 'seconds': 1.0}])
def test_a_result_that_is_not_as_it_should_be_counts_as_a_failure(result):
    experiment = Experiment({'random': RANDOM, 'evolution': EVOLUTION})
    good = experiment.result
    experiment.result = lambda p: result if p['strategy'] == 'random' else good(p)
    experiment.run()
    assert experiment.stages('evolution') == ['retrain'] * 4 + ['test'] * 2
    assert all(
        attempts == 2 for attempts in Counter(str(p) for p in experiment.started if p['strategy'] == 'random').values()
    )


def test_why_a_trial_failed_is_in_the_log(caplog):
    Experiment({'random': RANDOM}, budget=2, fails=lambda p, attempt: p['stage'] == 'retrain').run()
    said = [record.getMessage() for record in caplog.records if 'failed (' in record.getMessage()]
    assert 'the log of its trial' in said[0]
    assert 'tried again' in said[0]
    assert 'given up' in said[1]


def test_results_of_another_experiment_do_not_count():
    other = Experiment({'random': RANDOM}, seed=7).run()
    experiment = Experiment({'random': RANDOM}, known=[({**p, 'epochs': 5}, r) for p, r in other.finished]).run()
    assert experiment.stages('random') == ['retrain'] * 4 + ['test'] * 2


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


@pytest.mark.parametrize('stage', ['retrain', 'test'])
@pytest.mark.parametrize('ends', ['well', 'badly'])
def test_a_trial_that_nni_starts_again_itself_answers_the_request_for_it(ends, stage):
    whole = Experiment({'random': RANDOM}, concurrency=1).run()
    number = next(i for i, (p, _) in enumerate(whole.finished) if p['stage'] == stage)
    parameters, result = whole.finished[number]
    resumed = Experiment({'random': RANDOM}, concurrency=1, known=whole.finished[:number])
    resumed.manager.again, resumed._ids = {7: parameters}, 8
    # Workers under ids of before: their results would be taken for those of earlier trials.
    sent, send = [], resumed._send
    resumed._send = lambda parameter_id, parameters: (sent.append(parameter_id), send(parameter_id, parameters))
    resumed.tuner.generate_multiple_parameters([0, 1], st_callback=resumed._send)

    def end():
        if ends == 'well':
            resumed.tuner.import_data([{'parameter': parameters, 'value': result}])
        resumed.manager.statuses[7] = 'SUCCEEDED' if ends == 'well' else 'FAILED'
        resumed._ask(1)

    ended = threading.Timer(0.2, end)
    ended.start()
    resumed.run()
    ended.join()
    assert sent
    assert min(sent) >= 8
    left = [p for p, _ in whole.finished[number + (ends == 'well') :]]
    assert sorted(map(str, resumed.started)) == sorted(map(str, left))


def test_the_end_of_an_earlier_trial_may_be_told_before_the_comparison_is_made():
    resumed = Experiment({'random': RANDOM})
    comparison, resumed.tuner._comparison = resumed.tuner._comparison, None
    resumed.tuner.trial_end(0, True)
    resumed.tuner._comparison = comparison
    assert resumed.run().stages('random') == ['retrain'] * 4 + ['test'] * 2


def test_what_failed_before_a_resume_counts():
    (parameters, *_), *_ = Experiment({'random': RANDOM}).run().finished
    resumed = Experiment({'random': RANDOM}, fails=lambda p, attempt: p == parameters)
    resumed.manager.failures = [parameters]
    assert resumed.run().started.count(parameters) == 1


def test_a_finished_experiment_that_is_resumed_ends_at_once():
    whole = Experiment().run()
    again = Experiment(known=whole.finished).run()
    assert again.started == []


def test_a_free_worker_goes_to_the_strategy_that_has_spent_least():
    comparison = Experiment({'one': RANDOM, 'other': RANDOM}).tuner._comparison
    for name, spent in (('one', 4.0), ('other', 2.0)):
        engine = comparison.engines[name]
        engine.remember(TrialRequest(name, {}, result={'epochs': spent, 'seconds': 1.0}, ended=True))
        engine.submit_models(comparison._spaces[name].random())
    assert [comparison.next_request().strategy for _ in range(2)] == ['other', 'one']


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
    with pytest.raises(ValueError, match=rf'strategies.random.* {path!r}'):
        start(strategies={'random': {'class': path}})


def test_the_tuner_starts_without_the_slow_imports():
    code = "import sys, strategies.tuner; sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


FAILED_STARTS = {
    'a misspelt key': ({'budgetx': 1}, "unknown key 'budgetx'; did you mean 'budget'?"),
    'a missing key': ({'retrain': None}, 'retrain must be a mapping'),
    'a key that is no argument': ({'manager': 3}, "unknown key 'manager'"),
    'a space that is none': ({'search_space': [1]}, 'a search space is a mapping of labels, not [1]'),
    'a probability of two': (
        {'strategies': {'evolution': {**EVOLUTION, 'mutation_prob': 2}}},
        'mutation_prob must be a number from 0.001 to 1, not 2',
    ),
    'what nobody foresaw': ({'search_space': None}, 'TypeError'),
}


@pytest.mark.parametrize(('change', 'message'), FAILED_STARTS.values(), ids=FAILED_STARTS)
def test_a_start_that_fails_ends_the_experiment_with_a_line_in_its_log(change, message, caplog, monkeypatch):
    arguments = {'skeleton': 'cued', 'strategies': {'random': RANDOM}, 'budget': 4, 'retrain': {'epochs': 2}}
    manager, space = Manager(), change.pop('search_space', SPACE)
    if space is None:
        space = SPACE
        monkeypatch.setattr('strategies.experiment.comparison.macs', None)
    tuner = (
        StrategyTuner(**arguments | change)
        if 'manager' in change
        else StrategyTuner(manager=lambda: manager, **arguments | change)
    )
    tuner._manager = lambda: manager
    with pytest.raises((ValueError, TypeError)):
        tuner.update_search_space(space)
    assert manager.done.wait(5)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == 'ERROR']
    assert line.startswith('the experiment is stopped: ')
    assert message in line
