"""An experiment is done when what it had planned is done, whatever NNI calls it."""

import pytest
from records import Records, sample

from analysis.__main__ import main

ARGUMENTS = {
    'strategies': {'random': {'class': 'nni.nas.strategy.Random'}, 'autonl': {'class': 'strategies.AutoNL'}},
    'budget': 8,  # epochs: autonl's search 2, each retraining 2
    'retrain': {'epochs': 2},
    'test_runs': 1,
}
DONE = {
    ('random', 'retrain', 0),
    ('random', 'retrain', 1),
    ('random', 'retrain', 2),
    ('random', 'retrain', 3),
    ('autonl', 'search', 0),
    ('autonl', 'retrain', 0),
    ('autonl', 'retrain', 1),
    ('autonl', 'retrain', 2),
    ('random', 'test', 1000),
    ('autonl', 'test', 1000),
}


def experiment(folder, done=DONE, failed=(), arguments=ARGUMENTS, **params):
    records = Records(folder, arguments=arguments, **params)
    for number, (strategy, stage, seed) in enumerate(sorted(failed)):
        records.start(f'f{number}', strategy, stage, seed, **sample())
        records.left(f'f{number}', 'failure.json', '{"error": "there is no folder nowhere"}')
        records.left(f'f{number}', 'trial.stderr', 'there is no folder nowhere')
        records.event(f'f{number}', 'FAILED')
    for number, (strategy, stage, seed) in enumerate(sorted(done)):
        records.start(f't{number}', strategy, stage, seed, **sample())
        test = {'test_accuracy': 0.9} if stage == 'test' else {}
        records.final(f't{number}', default=0.9, macs=30, params=7, epochs=2, seconds=3.5, **test)
        records.event(f't{number}', 'SUCCEEDED')
    return records


def test_what_was_planned_and_done_is_said_and_status_0_where_all_is(tmp_path, capsys):
    assert main(['table', str(experiment(tmp_path / 'e').folder)]) == 0
    out = capsys.readouterr().out
    assert 'Experiment e: DONE' in out
    assert '\nrandom: retrainings 4 of 4, tests 1 of 1\n' in out
    assert '\nautonl: search 1 of 1, retrainings 3 of 3, tests 1 of 1\n' in out


RANDOM = {one for one in DONE if one[0] == 'random'}
MISSING = {
    'a test': (DONE - {('random', 'test', 1000)}, (), 'random: a test'),
    'a search and what follows': (
        RANDOM,
        {('autonl', 'search', 0)},
        'autonl: the search and every retraining and a test',
    ),
    'a retraining that was given up': (
        DONE - {('random', 'retrain', 2)},
        {('random', 'retrain', 2)},
        'random: a retraining;',
    ),
    'everything': (set(), {('random', 'retrain', 0)}, 'random: every retraining and a test; autonl: the search and'),
}


@pytest.mark.parametrize('case', MISSING)
def test_what_is_missing_is_status_1_and_one_line_with_the_first_reason_and_its_log(case, tmp_path, capsys):
    done, failed, lacking = MISSING[case]
    records = experiment(tmp_path / 'e', done, failed)
    assert main(['table', str(records.folder)]) == 1
    line, again = capsys.readouterr().err.splitlines()
    assert lacking in line
    if failed:
        assert 'there is no folder nowhere' in line
        assert line.endswith('environments/local-env/trials/f0/trial.stderr')
    assert 'bash run.sh resume e' in again


def test_a_trial_that_failed_and_was_done_at_the_second_try_is_not_missing(tmp_path):
    assert main(['table', str(experiment(tmp_path / 'e', failed={('random', 'retrain', 2)}).folder)]) == 0


def test_a_strategy_that_tried_all_there_is_has_nothing_missing_but_one_that_failed_has(tmp_path, capsys):
    records = experiment(tmp_path / 'e', DONE - {('random', 'retrain', 3)})
    assert main(['table', str(records.folder)]) == 0
    assert 'random: retrainings 3 of 4' in capsys.readouterr().out
    (records.folder / 'log').mkdir()
    (records.folder / 'log' / 'dispatcher.log').write_text(
        '[2026-11-27 15:10:30] ERROR (strategies/random) strategy random failed; the others go on\n'
    )
    assert main(['table', str(records.folder)]) == 1
    line, _ = capsys.readouterr().err.splitlines()
    assert 'random: what it would have tried before it failed' in line
    assert 'strategy random failed' in line
    assert line.endswith('log/dispatcher.log')


def test_where_no_trial_was_started_the_log_of_the_manager_says_why(tmp_path, capsys):
    records = experiment(tmp_path / 'e', done=())
    (records.folder / 'log').mkdir()
    (records.folder / 'log' / 'nnimanager.log').write_text(
        '[2026-11-27 15:10:30] INFO (main) Start\n[2026-11-27 15:10:31] ERROR (NNIManager) Not enough GPUs\n'
    )
    assert main(['table', str(records.folder), '--wait']) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert 'no trial was started in it; the first reason: (NNIManager) Not enough GPUs; see' in line


ODD = {
    'no strategies': {'strategies': None},
    'strategies that are a list': {'strategies': ['random']},
    'a budget that is a text': {'budget': 'much'},
    'a recipe that is none': {'retrain': 3},
    'tests without a number': {'test_runs': 'x'},
    'a skeleton that is a number': {'skeleton': 3},
    'a seed that is none': {'seed': {'a': 1}},
}


@pytest.mark.parametrize('case', ODD)
def test_a_configuration_of_another_version_is_shown_as_far_as_it_goes(case, tmp_path, capsys):
    records = experiment(tmp_path / 'e', arguments={**ARGUMENTS, **ODD[case]})
    main(['table', str(records.folder)])
    assert 'random' in capsys.readouterr().out
    assert main(['export', str(records.folder), '--out', str(tmp_path / 'out')]) == 0


@pytest.mark.parametrize(
    'params',
    [
        {'trialConcurrency': 'x'},
        {'trainingService': {'platform': 'remote'}},
        {'trainingService': {'platform': 'remote', 'machineList': [3, {'host': 5}]}},
        {'trainingService': None},
        {'experimentName': {'a': [1]}},
        {'trialCodeDirectory': 7},
    ],
)
def test_odd_keys_of_nnis_own_do_not_end_it(params, tmp_path, capsys):
    records = experiment(tmp_path / 'e', **params)
    assert main(['table', str(records.folder), '--wait']) == 0
    assert main(['export', str(records.folder), '--out', str(tmp_path / 'out')]) == 0


@pytest.mark.slow
def test_a_report_of_what_is_odd_is_written(tmp_path):
    odd = {'trialConcurrency': 'x', 'trainingService': None, 'experimentName': {'a': [1]}}
    records = experiment(tmp_path / 'e', arguments={**ARGUMENTS, **ODD['a recipe that is none']}, **odd)
    assert main(['report', str(records.folder), '--out', str(tmp_path / 'out')]) == 0
