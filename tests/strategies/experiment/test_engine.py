"""The engine's sums: what it counts as trials come and go is what a recount of all of them would give."""

import functools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from search_space import LightNLSpace, load_skeleton
from strategies.experiment.arguments import BUDGET_UNITS
from strategies.experiment.bounded_space import BoundedSpace
from strategies.experiment.engine import TrialEngine
from strategies.experiment.requests import TrialRequest, key

SPACE = BoundedSpace.from_model(LightNLSpace(load_skeleton('cued')))
DICE = RandomState(0)
EPOCHS = {'search': 12.8, 'retrain': 2}


def request(stage, seed):
    return TrialRequest('own', {'stage': stage, 'seed': seed}, EPOCHS[stage])


def engine(**arguments):
    return TrialEngine(
        'own',
        **{'budget': 1e9, 'unit': 'epochs', **arguments},
        retrain_epochs=2,
        retrain=lambda sample, index: request('retrain', index),
        search=lambda: request('search', 0),
        enqueued=lambda: None,
        macs=lambda sample: 1,
    )


def result(epochs, seconds):
    return {'default': 0.5, 'macs': 1, 'epochs': epochs, 'seconds': seconds}


class Recount:
    """Everything that was asked for and told, and what that comes to by the definition of a budget."""

    def __init__(self):
        self.requests, self.earlier, self.slowest = [], {}, 0.0

    def tell(self, told):
        self.slowest = max(self.slowest, told['seconds'] / told['epochs'])
        return told

    def spent(self, unit, queued, queue):
        answered = {str(r.parameters) for r in self.requests}
        results = [r.result for r in self.requests if r.result is not None]
        results += [told for name, told in self.earlier.items() if name not in answered]
        planned = [r for r in self.requests if r.result is None and (r.attempts or not r.ended)]
        planned = [r.epochs for r in planned if queued or r not in queue]
        if unit == 'trials':
            return len(results) + len(planned)
        return sum(told[unit] for told in results) + sum(planned) * (self.slowest if unit == 'seconds' else 1)


@settings(max_examples=150, deadline=None)
@given(
    known=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5), st.integers(1, 9)), max_size=8),
    steps=st.lists(
        st.tuples(
            st.sampled_from(['train', 'search', 'start', 'end', 'fail', 'retry', 'drop']),
            st.integers(1, 5),
            st.integers(1, 9),
        ),
        min_size=10,
        max_size=40,
    ),
    window=st.sampled_from([None, 1, 3]),
)
@pytest.mark.slow
def test_what_is_spent_is_what_a_recount_of_all_trials_gives(known, steps, window):
    recount, running, own = Recount(), [], engine(window=window)
    for seed, epochs, seconds in known:
        told = request('retrain', seed)
        told.result, told.ended = recount.tell(result(epochs, seconds)), True
        own.remember(told)
        recount.earlier[str(told.parameters)] = told.result
    for step, epochs, seconds in steps:
        if step == 'train':
            own.submit_models(SPACE.random(random_state=DICE))
        elif step == 'search':
            own.submit_search()
        elif step == 'start' and (taken := own.next_request()):
            taken.attempts += 1
            running.append(taken)
        elif step == 'drop':
            own.drop_queue()
        elif running and step == 'retry':
            own.put_back(running.pop())
        elif running and step in ('end', 'fail'):
            own.finish(running.pop(), recount.tell(result(epochs, seconds)) if step == 'end' else None)
        recount.requests = own.requests
        for unit in BUDGET_UNITS:
            for queued in (True, False):
                assert own.spent(unit, queued) == pytest.approx(recount.spent(unit, queued, own.queue))


def instructions(work):
    """How many instructions of Python ``work`` takes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == 'opcode'
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize('unit', BUDGET_UNITS)
@pytest.mark.parametrize('window', [None, 2])
def test_a_decision_is_as_much_work_after_many_trials_as_after_few(unit, window):
    own = engine(unit=unit, window=window)

    def decide(model):
        assert own.idle_worker_available()
        assert own.budget_available()
        own.submit_models(model)
        taken = own.next_request()
        taken.attempts += 1
        own.spent(queued=False)
        own.finish(taken, result(2, 1.0))

    models = [SPACE.random(random_state=DICE) for _ in range(60)]
    counts = [instructions(functools.partial(decide, model)) for model in models]
    assert min(counts[-20:]) == min(counts[10:30])  # the least: the garbage collector's finalizers are counted too


def test_a_sample_has_plain_labels():
    assert {type(label) for label in SPACE.random(random_state=DICE).sample} == {str}


def test_what_nni_passes_on_is_known_again():
    """Its manager writes JSON as JavaScript does: a whole number has no decimal point."""
    sent = {'learning_rate': 1.0, 'class/target_macs': [2e6, 2.5], 'row01/lightnl_ratio': 0.125, 'seed': 1}
    passed_on = {'seed': 1, 'row01/lightnl_ratio': 0.125, 'class/target_macs': [2000000, 2.5], 'learning_rate': 1}
    assert key(sent) == key(passed_on)
    assert key(sent) != key(sent | {'learning_rate': 1.5})
