"""Result sets: several experiments together, saved, read again on another machine."""

import json

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


def test_the_shipped_result_set_is_a_real_experiments_and_small(main_job):
    assert set(main_job.experiments.status) == {'DONE'}
    assert {'search', 'retrain', 'test'} == set(main_job.trials.stage)
    assert len(main_job.trajectories)
    assert main_job.unreadable.empty
    assert sum(file.stat().st_size for file in shipped().iterdir()) < 500_000
    for file in shipped().iterdir():
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


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda folder: (folder / 'experiments.json').write_text('[1'), 'experiments.json: not the description'),
        (lambda folder: (folder / 'experiments.json').write_text('{"format": 9, "experiments": []}'), 'description'),
        (lambda folder: (folder / 'trials.csv').unlink(), 'trials.csv: it cannot be read'),
        (lambda folder: (folder / 'metrics.csv').write_text('a,b\n1,2\n'), 'metrics.csv: the column epoch is missing'),
        (lambda folder: (folder / 'metrics.csv').write_bytes(b'\xff\xfe\x00'), 'metrics.csv: it cannot be read'),
        (lambda folder: (folder / 'trajectories.csv').write_text(''), 'trajectories.csv: it cannot be read'),
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
