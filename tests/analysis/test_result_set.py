"""Result sets: several experiments together, saved, read again on another machine."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from pandas.testing import assert_frame_equal
from records import Records, sample

from analysis import columns, read, shipped
from analysis.__main__ import main

NAMES = ('experiments', 'trials', 'metrics', 'trajectories', 'unreadable')


def small(folder, seed=0):
    records = Records(folder, seed=seed)
    records.trained('a', 0.9, 30, sample(), stage='search', strategy='autonl')
    records.trained('b', 0.8, 20, sample(row01__lightnl='present'), strategy='autonl')
    records.epoch('b', 1, train_loss=0.1 + 0.2, **{'norm/row01/lightnl': 1 / 3, 'gate/row01/lightnl': 1.0})
    records.metric('b', 'PERIODICAL', 'half')
    records.start('c')
    records.event('c', 'FAILED')
    records.left(
        'c', 'failure.json', json.dumps({'error': 'a "comma", a\ttab; \u00e4 and /srv/somebody/code/x.py: no'})
    )
    return records.experiment.folder


@pytest.mark.parametrize('of', ['records', 'shipped'])
def test_saved_frames_are_read_again_as_they_were(tmp_path, of):
    results = read(small(tmp_path / 'one') if of == 'records' else shipped())
    results.save(tmp_path / 'saved')
    again = read(tmp_path / 'saved')
    for name in NAMES:
        assert_frame_equal(getattr(results, name), getattr(again, name))


def test_several_experiments_are_one_after_another(tmp_path):
    folders = [small(tmp_path / f'seed{seed}', seed) for seed in range(2)]
    together, apart = read(*folders), [read(folder) for folder in folders]
    assert together.experiments.seed.tolist() == [0, 1]
    for name in NAMES:
        assert len(getattr(together, name)) == sum(len(getattr(one, name)) for one in apart) > 0
    assert together.trials.groupby('experiment').experiment_seed.unique().map(list).to_dict() == {
        'seed0': [0],
        'seed1': [1],
    }


def test_an_experiment_counts_once(tmp_path):
    folder = small(tmp_path / 'one')
    read(folder).save(tmp_path / 'saved')
    with pytest.raises(ValueError, match='experiment one is given twice'):
        read(folder, tmp_path / 'saved')


def test_nothing_that_is_saved_says_which_machine_it_was(tmp_path):
    records = Records(
        tmp_path / 'one',
        experimentWorkingDirectory='/srv/somebody/nni-experiments',
        searchSpaceFile='/srv/somebody/code/search_space/choices/cued.json',
        nniManagerIp='192.168.0.7',
        trainingService={'platform': 'remote', 'machineList': [{'host': 'big', 'user': 'me', 'password': 'secret'}]},
    )
    records.start('c')
    records.left('c', 'failure.json', json.dumps({'error': f'/srv/somebody/code/x.py and {records.folder}/log: no'}))
    records.event('c', 'FAILED')
    results = read(records.folder)
    (configuration,) = results.experiments.configuration
    assert configuration['trialCodeDirectory'] == '.'
    assert configuration['searchSpaceFile'] == 'search_space/choices/cued.json'
    assert configuration['trainingService'] == {'platform': 'remote'}
    assert results.trials.failure.tolist() == ['./x.py and EXPERIMENT/log: no']
    for file in results.save(tmp_path / 'saved'):
        for private in ('somebody', 'secret', '192.168', str(tmp_path)):
            assert private not in file.read_text()


@pytest.mark.parametrize('name', ['main-job', 'fashion-mnist'])
def test_a_shipped_result_set_is_that_of_real_experiments_and_small(name):
    results = read(shipped(name))
    assert set(results.experiments.status) == {'DONE'}
    assert results.experiments.seed.tolist() == [0, 1, 2]
    assert {'search', 'retrain', 'test'} == set(results.trials.stage)
    assert len(results.trajectories)
    assert results.unreadable.empty
    assert sum(file.stat().st_size for file in shipped(name).iterdir()) < 500_000
    for file in shipped(name).iterdir():
        assert not {'/root', '/home', '/tmp', '/work'} & set(
            file.read_text().replace('"', ' ').replace(',', ' ').split()
        )


def test_columns_of_the_shipped_result_set_are_the_documented_ones(main_job):
    for name in NAMES:
        documented = list(getattr(columns, name.upper()))
        assert list(getattr(main_job, name))[: len(documented)] == documented


@pytest.fixture
def saved(tmp_path):
    read(small(tmp_path / 'one')).save(tmp_path / 'saved')
    return tmp_path / 'saved'


def cut(file, lines):
    file.write_text(''.join(file.read_text().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda folder: (folder / 'experiments.json').write_text('[1'), 'experiments.json, line 1: not JSON'),
        (lambda folder: (folder / 'experiments.json').write_text('{"format": 9, "experiments": []}'), 'description'),
        (lambda folder: (folder / 'trials.csv').unlink(), 'trials.csv: it cannot be read'),
        (lambda folder: (folder / 'metrics.csv').write_text('a,b\n1,2\n'), 'metrics.csv: the column epoch is missing'),
        (lambda folder: (folder / 'metrics.csv').write_bytes(b'\xff\xfe\x00'), 'metrics.csv: it cannot be read'),
        (lambda folder: (folder / 'trajectories.csv').write_text(''), 'trajectories.csv: the column epoch is missing'),
        (lambda folder: cut(folder / 'trials.csv', 2), 'trials.csv: 1 rows of 3: it was cut off'),
        (lambda folder: cut(folder / 'trials.csv', 1), 'trials.csv: 0 rows of 3: it was cut off'),
    ],
)
def test_a_damaged_result_set_is_refused_in_one_line(saved, damage, message, tmp_path, capsys):
    damage(saved)
    assert main(['report', str(saved), '--out', str(tmp_path / 'out')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / 'out').exists()


def test_export_writes_what_read_gives(tmp_path, capsys):
    assert main(['export', str(small(tmp_path / 'one')), '--out', str(tmp_path / 'saved')]) == 0
    assert 'bytes to' in capsys.readouterr().out
    assert_frame_equal(read(tmp_path / 'saved').trials, read(tmp_path / 'one').trials)


@pytest.mark.parametrize(
    'damage',
    [lambda row: row[: len(row) // 2], lambda row: row.replace('0.8', '0.x8'), lambda row: f'{row},more'],
    ids=['cut in the middle', 'a number that is none', 'a cell too many'],
)
def test_a_damaged_row_is_noted_and_the_others_are_shown(saved, damage):
    header, search, retrained, failed = (saved / 'trials.csv').read_text().splitlines()
    (saved / 'trials.csv').write_text('\n'.join([header, search, damage(retrained), failed]) + '\n')
    results = read(saved)
    assert results.trials.trial.tolist() == ['a', 'c']
    assert 'trials.csv, line 3' in results.unreadable.what.tolist()


def test_a_copied_experiment_is_the_same_one(tmp_path):
    folder = small(tmp_path / 'one')
    shutil.copytree(folder, tmp_path / 'from gpu box')
    assert read(tmp_path / 'from gpu box').experiments.experiment.tolist() == ['one']
    with pytest.raises(ValueError, match='experiment one is given twice'):
        read(folder, tmp_path / 'from gpu box')


def test_killed_while_it_wrote_its_database_it_is_read_as_before_and_left_alone(tmp_path):
    """The journal is there, and the database half written, as at a kill."""
    folder = small(tmp_path / 'one')
    before = read(folder).trials
    code = """if True:
        import os, sqlite3, sys
        database = sqlite3.connect(sys.argv[1], isolation_level=None)
        database.execute('pragma cache_size = 1')
        database.execute('begin')
        database.executemany("insert into TrialJobEvent (trialJobId, event, data) values (?, 'RUNNING', ?)",
                             [(f'x{n}', 'x' * 4000) for n in range(200)])
        os._exit(9)
    """
    subprocess.run([sys.executable, '-c', code, folder / 'db' / 'nni.sqlite'], check=False)
    assert (folder / 'db' / 'nni.sqlite-journal').stat().st_size
    left = {file: file.read_bytes() for file in (folder / 'db').iterdir()}
    assert_frame_equal(read(folder).trials, before)
    assert {file: file.read_bytes() for file in (folder / 'db').iterdir()} == left


SECRET = 'hunter2-very-secret'
PRIVATE = {
    'a password of a machine': {
        'trainingService': {'platform': 'remote', 'machineList': [{'host': 'big.lan', 'password': SECRET}]}
    },
    'one of several services': {'trainingService': [{'platform': 'local'}, {'platform': 'aml', 'x': SECRET}]},
    'a key of a storage': {'sharedStorage': {'storageType': 'AzureBlob', 'storageAccountKey': SECRET}},
    'a token in the command': {'trialCommand': f'TOKEN={SECRET} python3 -m trials run'},
    'an option of the command': {'trialCommand': f'python3 -m trials run --token {SECRET}'},
    'an unknown key': {'apiKey': SECRET},
    'a folder': {'searchSpaceFile': f'/srv/{SECRET}/code/cued.json'},
    'an argument of a class of somebody': {
        'arguments': {'strategies': {'random': {'class': 'mine.Strategy', 'token': SECRET}}}
    },
    'a folder in a recipe': {'arguments': {'retrain': {'epochs': 2, 'dataset/folder': f'/srv/{SECRET}/images'}}},
    'an unknown key of the tuner': {'arguments': {'hidden': SECRET}},
}


@pytest.mark.parametrize('case', PRIVATE)
def test_what_is_not_known_to_be_harmless_is_in_no_file(case, tmp_path):
    records = Records(tmp_path / 'one', **PRIVATE[case])
    records.start('c')
    said = f'cannot log in with {SECRET} to http://me:{SECRET}@big.lan/x, see /srv/{SECRET}/code/x.py'
    records.left('c', 'failure.json', json.dumps({'error': said}))
    records.event('c', 'FAILED')
    for command in ('export', 'report') if case == 'a token in the command' else ('export',):
        assert main([command, str(records.folder), '--out', str(tmp_path / command)]) == 0
        for file in (tmp_path / command).iterdir():
            text = file.read_text()
            assert f'://me:{SECRET}' not in text
            assert f'/srv/{SECRET}' not in text
            if case.startswith(('a folder', 'an unknown key of the tuner')):
                text = text.replace(f'with {SECRET} to', '')  # the configuration holds it as no secret
            assert SECRET not in text, file
    assert 'cannot log in with' in (tmp_path / 'export' / 'trials.csv').read_text()


@pytest.mark.parametrize('directory', [{'of': 'nobody'}, [1], 5, None])
def test_a_code_directory_that_is_no_text_is_no_reason_not_to_export(directory, tmp_path):
    records = Records(tmp_path / 'one', trialCodeDirectory=directory)
    records.trained('a', 0.9, 30, sample())
    assert main(['export', str(records.folder), '--out', str(tmp_path / 'saved')]) == 0
    assert 'nobody' not in (tmp_path / 'saved' / 'experiments.json').read_text()


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@x', "'quoted", '\x1b[31mred', 'a\nb'])
def test_a_name_is_no_formula_to_a_spreadsheet_and_no_code_to_a_terminal(name, tmp_path, capsys):
    records = Records(tmp_path / 'one')
    records.trained('a', 0.9, 30, sample(), strategy=name)
    read(records.folder).save(tmp_path / 'saved')
    text = (tmp_path / 'saved' / 'trials.csv').read_text()
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.startswith(('=', '+', '-', '@'))]
    assert_frame_equal(read(tmp_path / 'saved').trials, read(records.folder).trials)
    main(['table', str(records.folder)])
    captured = capsys.readouterr()
    for printed in (text, captured.out, captured.err):
        assert not set(printed) - {'\n'} & {chr(code) for code in range(32)}
