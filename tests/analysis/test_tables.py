"""Reading experiments: unfinished ones, resumed ones, ones with failures, and what in them cannot be read."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from records import CHOICES, sample

from analysis import (
    best_so_far,
    columns,
    comparison,
    frames,
    lightnl_positions,
    pareto_front,
    supernet_accuracy,
    time_use,
    trials,
)


def test_the_best_network_is_the_most_accurate_and_of_those_the_cheapest(records):
    records.trained('a', 0.90, 30, sample())
    records.trained('b', 0.95, 20, sample(row02__lightnl='present'))
    records.trained('c', 0.95, 10, sample(row01__lightnl='present', row01__lightnl_stride=1))
    records.trained('d', 0.99, 10, sample(), stage='test', test_accuracy=0.8)
    records.trained('e', 0.97, 10, sample(), stage='test', test_accuracy=0.9)
    (row,) = comparison(trials(records.experiment)).itertuples()
    assert (row.strategy, row.lightnl, row.macs, row.validation_accuracy) == ('random', '1: 0.125/1', 10, 0.95)
    assert (row.test_accuracy, row.test_runs) == (pytest.approx(0.85), 2)
    assert row.test_spread == pytest.approx(0.1)
    assert (row.epochs, row.seconds, row.trials, row.failed) == (6, 10.5, 5, 0)


def test_what_the_workers_time_went_into_adds_up(records):
    records.start('a')  # a second later than the clock's start, as every event is a second after the one before
    records.epoch('a', 0)
    records.event('b', 'RUNNING')
    records.epoch('a', 1, seconds=0.25)
    records.event('b', 'FAILED')
    records.epoch('a', 2, seconds=1.5)
    records.final('a', default=0.9, macs=1, params=1, epochs=2, seconds=1.5)
    records.event('a', 'SUCCEEDED')
    read = frames(records.experiment)
    (row,) = time_use(read, {records.experiment.id: 2}).itertuples()
    assert (row.wall_clock, row.workers) == (3, 2)
    assert row.training == pytest.approx(1.5 / 6)
    assert row.idle == pytest.approx(1 - (3 + 1) / 6)
    assert row.training + row.trial_overhead + row.idle == pytest.approx(1)
    assert row.not_training == pytest.approx(row.trial_overhead + row.idle)
    assert (row.trial_start, row.trial_end) == (0.75, 1)


def test_time_is_used_only_by_trials_that_have_ended(records):
    records.start('a')
    assert time_use(frames(records.experiment), {records.experiment.id: 2}).empty


def test_an_unfinished_experiment_with_failures_is_read(records):
    records.start('a', 'autonl', 'search', **{'class/margin': 1, 'dataset/classes': 5})
    records.start('b', 'random', seed=1, **sample())
    records.event('b', 'FAILED')
    frame = trials(records.experiment).set_index('trial')
    assert frame.status.to_dict() == {'a': 'RUNNING', 'b': 'FAILED'}
    assert frame.ended.isna().to_dict() == {'a': True, 'b': False}
    assert not [column for column in frame if column.startswith(('class/', 'dataset/'))]
    table = comparison(frame.reset_index()).set_index('strategy')
    assert table.failed.to_dict() == {'autonl': 0, 'random': 1}
    assert table.validation_accuracy.isna().all()


def test_an_experiment_without_trials_has_empty_frames_with_all_columns(records):
    read = frames(records.experiment)
    assert list(read.trials) == list(columns.TRIALS)
    assert list(read.metrics) == list(columns.METRICS)
    assert list(read.trajectories) == list(columns.TRAJECTORIES)
    assert comparison(read.trials).empty
    assert best_so_far(read.trials).empty


def test_columns_have_the_types_that_are_documented(records):
    records.trained('a', 0.9, 30, sample())
    records.start('b')
    frame = trials(records.experiment)
    for name, (kind, meaning) in columns.TRIALS.items():
        assert str(frame[name].dtype) == kind, name
        assert meaning
    labels = list(frame)[len(columns.TRIALS) :]
    assert labels == sorted(CHOICES)
    assert {str(frame[label].dtype) for label in labels} == {'string', 'Float64', 'Int64'}


def test_a_trial_that_was_tried_again_is_told_from_its_first_attempt(records):
    for trial in ('a', 'b', 'c'):
        records.start(trial, seed=0 if trial != 'b' else 1, **sample())
    assert trials(records.experiment).attempt.tolist() == [1, 1, 2]


def test_the_reason_of_a_failure_is_what_the_trial_says(records):
    records.start('a')
    records.left('a', 'failure.json', json.dumps({'error': 'data.root:\n no such folder', 'type': 'ValueError'}))
    records.event('a', 'FAILED')
    assert trials(records.experiment).failure.tolist() == ['data.root: no such folder']


def test_without_it_the_reason_is_the_last_line_of_what_it_printed(records):
    for trial in ('a', 'b', 'c'):
        records.start(trial)
        records.event(trial, 'FAILED' if trial != 'c' else 'USER_CANCELED')
    records.left('a', 'trial.stderr', 'Traceback ...\nMemoryError: too large\n\n')
    records.left('b', 'failure.json', 'half a fi')
    read = frames(records.experiment)
    assert read.trials.failure.tolist() == [
        'FAILED; the last it said: MemoryError: too large',
        'FAILED',
        'USER_CANCELED',
    ]
    assert read.unreadable.what.tolist() == ['failure.json of trial b']


def test_a_name_of_a_trial_leads_to_no_file_outside_its_experiment(records):
    (records.folder.parent / 'failure.json').write_text('{"error": "secret"}')
    trial = '../../../..'
    records.start(trial)
    records.event(trial, 'FAILED')
    (records.folder / 'environments' / 'e' / 'trials').mkdir(parents=True)
    assert trials(records.experiment).failure.tolist() == ['FAILED']


def test_a_resumed_experiment_is_one_and_what_ran_at_its_interruption_has_no_end(records):
    records.trained('a', 0.8, 30, sample())
    records.start('b', seed=1, **sample())
    records.trained('c', 0.9, 30, sample(row01__lightnl='present'))  # after it; NNI's parameter ids start again at 0
    frame = trials(records.experiment).set_index('trial')
    assert frame.validation_accuracy.dropna().to_dict() == {'a': 0.8, 'c': 0.9}
    assert frame.lightnl.tolist() == ['none', 'none', '1: 0.125/2']
    assert 'recorded no end' in frame.failure['b']


def test_a_success_without_a_result_says_so(records):
    records.start('a')
    records.event('a', 'SUCCEEDED')
    assert trials(records.experiment).failure.tolist() == ['it ended without a result']


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        ('not JSON', 'it is not a JSON object'),
        ('"0.5"', 'it is not a JSON object'),
        (json.dumps(json.dumps({'default': 0.5})), 'it does not say of which epoch it is'),
    ],
)
def test_a_report_that_cannot_be_read_is_named(records, data, reason):
    records.start('a')
    records.metric('a', 'PERIODICAL', data)
    records.epoch('a', 1, train_loss=0.5)
    read = frames(records.experiment)
    assert read.unreadable[['what', 'reason']].to_numpy().tolist() == [['a report of trial a', reason]]
    assert len(read.metrics) == 1


def test_trials_without_parameters_and_reports_without_a_trial_are_named(records):
    records.event('a', 'RUNNING')
    records.event('b', 'RUNNING', {'x': 1})
    records.epoch('c', 1)
    read = frames(records.experiment)
    assert read.trials.trial.tolist() == ['a', 'b']
    assert sorted(read.unreadable.what) == ['a report of trial c', 'trial a', 'trial b']


def test_metrics_are_a_row_per_epoch_without_the_sign_of_life_before_the_first(records):
    records.start('a')
    for epoch in (0, 1, 2):
        records.epoch('a', epoch, train_loss=1.0 - epoch / 10, learning_rate=0.1)
    read = frames(records.experiment)
    assert read.metrics.epoch.tolist() == [1, 2]
    assert read.metrics.train_loss.tolist() == [0.9, 0.8]
    assert read.metrics.learning_rate.tolist() == [0.1, 0.1]
    assert read.trials.last_epoch.tolist() == [2]


def test_trajectories_are_a_row_per_epoch_and_gate(records):
    records.start('a', 'autonl', 'search')
    gates = {'row01/lightnl': (0.5, 0.4, 1.0), 'row02/se': (0.3, 0.1, 1.0), 'row02/se#2': (0.1, 0.2, 0.0)}
    for epoch in (1, 2):
        values = {}
        for name, numbers in gates.items():
            values |= dict(zip((f'norm/{name}', f'threshold/{name}', f'gate/{name}'), numbers))
        records.epoch('a', epoch, train_loss=1.0, **values)
    read = frames(records.experiment)
    assert len(read.trajectories) == 6
    assert read.trajectories.iloc[-1][['label', 'index', 'norm', 'threshold', 'gate']].tolist() == [
        'row02/se',
        2,
        0.1,
        0.2,
        0,
    ]
    assert list(read.metrics) == list(columns.METRICS)


def test_networks_of_the_same_lightnl_have_rows_of_their_own_in_the_order_of_trials():
    texts = ['2: 0.25/1', None, '1: 0.125/2, 2: 0.25/1', 'none', '2: 0.25/1']
    frame = pd.DataFrame({'experiment': 'e', 'trial': list('abcde'), 'strategy': 's', 'stage': 'test'})
    found = lightnl_positions(frame.assign(lightnl=texts))[['trial', 'row', 'ratio', 'stride']].values.tolist()
    assert found == [['a', 2, 0.25, 1], ['c', 1, 0.125, 2], ['c', 2, 0.25, 1], ['e', 2, 0.25, 1]]


def test_lightnl_positions_are_what_the_skeleton_says(records):
    chosen = {
        'row01/lightnl': 'present',
        'row01/lightnl_stride': 1,
        'row04/lightnl': 'present',
        'row04/lightnl_ratio': 0.25,
    }
    records.trained('a', 0.9, 30, {**sample(), **chosen})
    records.trained('b', 0.9, 30, sample())
    frame = trials(records.experiment)
    assert frame.lightnl.tolist() == ['1: 0.125/1, 4: 0.25/2', 'none']
    assert lightnl_positions(frame)[['row', 'ratio', 'stride']].to_numpy().tolist() == [[1, 0.125, 1], [4, 0.25, 2]]


def test_a_skeleton_that_is_not_here_is_named(records):
    params = json.loads(records.database.execute('select params from ExperimentProfile').fetchone()[0])
    params['tuner']['classArgs']['skeleton'] = 'elsewhere.yaml'
    records.database.execute('update ExperimentProfile set params = ?', [json.dumps(params)])
    records.database.commit()
    records.trained('a', 0.9, 30, sample())
    read = frames(records.experiment)
    assert read.trials.lightnl.isna().all()
    assert read.unreadable.what.tolist() == ['the column lightnl']


def test_what_a_strategy_has_spent_counts_its_search_and_not_its_tests(records):
    records.trained('a', 0.7, 9, sample(), stage='search', strategy='autonl')
    records.trained('b', 0.8, 9, sample(), strategy='autonl')
    records.trained('c', 0.6, 9, sample(), strategy='autonl')
    records.trained('d', 0.9, 9, sample(), stage='test', strategy='autonl')
    best = best_so_far(trials(records.experiment))
    assert best.trial.tolist() == ['b', 'c']
    assert best.epochs.tolist() == [4, 6]
    assert best.seconds.tolist() == [7.0, 10.5]
    assert best.best_accuracy.tolist() == [0.8, 0.8]


def test_the_supernets_word_is_paired_with_the_same_network_trained_from_scratch(records):
    other = sample(row01__lightnl='present')
    records.trained('a', 0.7, 9, {}, stage='search', strategy='autonl', **other)
    records.trained('b', 0.8, 9, other, strategy='autonl')
    records.trained('c', 0.6, 9, other)
    records.trained('d', 0.1, 9, sample())
    (pair,) = supernet_accuracy(trials(records.experiment)).itertuples()
    assert (pair.supernet_accuracy, pair.retrained_accuracy, pair.retrainings) == (0.7, pytest.approx(0.7), 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_the_pareto_front_holds_whatever_nothing_is_better_than(points):
    frame = pd.DataFrame(points, columns=['macs', 'validation_accuracy'])
    front = pareto_front(frame)
    on_front = set(zip(front.macs, front.validation_accuracy))
    for macs, accuracy in points:
        better = any((m <= macs and a >= accuracy) and (m, a) != (macs, accuracy) for m, a in points)
        assert ((macs, accuracy) in on_front) == (not better)
    assert len(on_front) == len(front)


def test_the_order_of_trials_of_other_strategies_changes_nothing(records):
    for number in range(6):
        records.trained(f't{number}', number / 10, 9, sample(), strategy='random' if number % 2 else 'autonl')
    frame = trials(records.experiment)
    apart = best_so_far(frame[frame.strategy == 'random'])
    together = best_so_far(frame)
    assert_frame_equal(together[together.strategy == 'random'].reset_index(drop=True), apart)
