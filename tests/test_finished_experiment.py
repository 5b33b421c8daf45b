"""The main job at a small budget, through nnictl to its end: what it leaves, and what the analysis makes of that."""

import io
import json

import pandas as pd
import pytest
import requests
import torch
from executed_notebook import execute
from html_page import Page
from nnictl_experiment import nni_experiment
from pandas.testing import assert_frame_equal

from analysis import Experiment, RunningExperiment, frames, read, trials
from analysis.__main__ import main
from search_space import build, load_skeleton

SKELETON = load_skeleton('cued')
pytestmark = [pytest.mark.slow, pytest.mark.experiment]


@pytest.fixture(scope='module')
def finished_experiment(tmp_path_factory, configuration):
    """The main job at a small budget, DONE but not stopped yet; its table as printed."""
    with nni_experiment(tmp_path_factory.mktemp('home'), configuration) as experiment:
        table = experiment.command('-m', 'analysis', 'table', experiment.id, '--wait')
        yield experiment, table


@pytest.fixture(scope='module')
def frame(finished_experiment):
    return trials(Experiment(finished_experiment[0].folder))


def test_it_ends_done_with_a_table_of_all_strategies(finished_experiment):
    experiment, table = finished_experiment
    assert table.returncode == 0, table.stdout + table.stderr
    assert f'Experiment {experiment.id}: DONE' in table.stdout
    values = experiment.command('-m', 'analysis', 'table', experiment.id, '--csv')
    frame = pd.read_csv(io.StringIO(values.stdout), index_col='strategy')
    assert set(frame.index) == {'autonl', 'random', 'evolution'}
    assert frame.failed.eq(0).all()
    assert frame.epochs.between(2.0, 2.6).all()
    assert (
        frame[['lightnl', 'macs', 'params', 'validation_accuracy', 'test_accuracy', 'seconds']].notna().all(axis=None)
    )


def test_the_web_ui_knows_it_behind_its_prefix_only(finished_experiment):
    experiment, _ = finished_experiment
    status = requests.get(f'http://localhost:{experiment.port}/{experiment.prefix}/api/v1/nni/check-status', timeout=10)
    assert status.json()['status'] == 'DONE'
    assert requests.get(f'http://localhost:{experiment.port}/api/v1/nni/check-status', timeout=10).status_code == 404


def test_every_trial_ran_the_parameters_that_nni_has_recorded_for_it(finished_experiment):
    experiment, _ = finished_experiment
    recorded = {}
    for event in Experiment(experiment.folder).trial_events():
        if event['data']:
            recorded[event['trialJobId']] = json.loads(event['data'])['parameters']
    assert len(recorded) == 9
    for trial, parameters in recorded.items():
        (file,) = experiment.folder.glob(f'environments/*/trials/{trial}/trial.json')
        assert json.loads(file.read_text())['parameters'] == parameters


def test_tensorboard_of_the_web_ui_opens_on_the_history_of_a_trial(finished_experiment):
    experiment, _ = finished_experiment
    trials = list(experiment.folder.glob('environments/*/trials/*/trial.json'))
    for file in trials:
        opened = experiment.folder / 'trials' / file.parent.name / 'output' / 'tensorboard'
        assert list(opened.glob('events.out.tfevents.*'))
    assert len(trials) == 9


def test_every_trial_reports_under_its_own_parameters_at_its_start_and_every_epoch(finished_experiment):
    records = Experiment(finished_experiment[0].folder)
    ids = {
        event['trialJobId']: str(json.loads(event['data'])['parameter_id'])
        for event in records.trial_events()
        if event['data']
    }
    reported = {trial: [] for trial in ids}
    for metric in records.metrics():
        assert metric['parameterId'] == ids[metric['trialJobId']]
        reported[metric['trialJobId']].append((metric['type'], metric['data'].get('epoch')))
    assert all(r == [('PERIODICAL', 0), ('PERIODICAL', 1), ('FINAL', None)] for r in reported.values()), reported


def test_strategies_see_no_test_data_before_the_end(frame):
    assert frame[frame.stage != 'test'].test_accuracy.isna().all()
    assert frame[frame.stage == 'test'].test_accuracy.notna().all()
    assert frame[frame.stage == 'test'].started.min() > frame[frame.stage != 'test'].started.max()


def test_labels_are_the_spaces_own(frame):
    assert {column for column in frame.columns if '/' in column} == set(SKELETON.choices())
    for row in frame.to_dict('records'):
        SKELETON.check_sample({label: row[label] for label in SKELETON.choices()})


def test_the_network_of_the_search_is_the_one_that_is_retrained(frame):
    own = frame[(frame.strategy == 'autonl') & (frame.stage != 'test')]
    assert own.stage.tolist() == ['search', 'retrain']
    assert own[list(SKELETON.choices())].nunique().eq(1).all()


def test_a_trial_repeated_outside_nni_gives_the_same_result_and_weights(finished_experiment, tmp_path):
    experiment, _ = finished_experiment
    file = next(
        file
        for file in sorted(experiment.folder.glob('environments/*/trials/*/trial.json'))
        if json.loads(file.read_text())['parameters']['stage'] == 'test'
    )
    again = experiment.command('-m', 'trials', 'run', '--parameters', str(file), '--out', str(tmp_path))
    assert again.returncode == 0, again.stderr
    of_nni, repeated = (json.loads(path.read_text())['result'] for path in (file, tmp_path / 'trial.json'))
    of_nni.pop('seconds'), repeated.pop('seconds')
    assert repeated == of_nni
    first, second = (torch.load(path / 'network.pt', weights_only=True) for path in (file.parent, tmp_path))
    for name, weight in first.items():
        assert torch.equal(weight, second[name])


def test_a_trial_leaves_the_weights_of_its_network(finished_experiment):
    experiment, _ = finished_experiment
    for file in experiment.folder.glob('environments/*/trials/*/trial.json'):
        record = json.loads(file.read_text())
        source = record['result'] if record['parameters']['stage'] == 'search' else record['parameters']
        network = build(SKELETON, {label: source[label] for label in SKELETON.choices()})
        network.load_state_dict(torch.load(file.parent / 'network.pt', weights_only=True))


@pytest.fixture(scope='module')
def of_folder(finished_experiment):
    return read(finished_experiment[0].folder)


def test_its_frames_are_all_there(of_folder):
    assert of_folder.unreadable.empty
    assert set(of_folder.trials.stage) == {'search', 'retrain', 'test'}
    assert of_folder.trials.failure.isna().all()
    assert of_folder.metrics[['train_loss', 'train_accuracy']].notna().all(axis=None)
    assert set(of_folder.metrics.trial) == set(of_folder.trials.trial)


def test_read_over_rest_it_is_the_same(finished_experiment, of_folder):
    experiment, _ = finished_experiment
    url = f'http://127.0.0.1:{experiment.port}/{experiment.prefix}'
    over_rest = frames(RunningExperiment(url))
    for name in ('metrics', 'trajectories', 'unreadable'):
        assert_frame_equal(getattr(over_rest, name), getattr(of_folder, name))
    assert_frame_equal(over_rest.trials, of_folder.trials)
    assert read(url).experiments.status.tolist() == ['DONE']
    assert RunningExperiment(url).trial_file(of_folder.trials.trial[0], 'trial.json').startswith('{')
    assert RunningExperiment(url).trial_file(of_folder.trials.trial[0], 'nothing.json') is None


def test_read_by_its_id_it_is_the_same(finished_experiment, of_folder, tmp_path):
    experiment, _ = finished_experiment
    exported = experiment.command('-m', 'analysis', 'export', experiment.id, '--out', str(tmp_path / 'saved'))
    assert exported.returncode == 0, exported.stderr
    assert_frame_equal(read(tmp_path / 'saved').trials, of_folder.trials)
    for file in (tmp_path / 'saved').iterdir():
        assert experiment.environment['HOME'] not in file.read_text()


def test_its_report_is_whole(finished_experiment, tmp_path):
    folder = finished_experiment[0].folder
    assert main(['report', str(folder), '--out', str(tmp_path)]) == 0
    page = Page.of(tmp_path / 'report.html')
    assert page.mistakes == []
    assert 'No trial failed.' in page.text
    assert Experiment(folder).id in page.text


def test_a_notebook_runs_on_it(finished_experiment, tmp_path):
    folder = finished_experiment[0].folder
    assert Experiment(folder).id in execute('inspect_search', tmp_path, AUTONL_EXPERIMENTS=str(folder))
