"""A real experiment: the same frames however it is read, its report, and a notebook on it."""

import pytest
from html_page import Page
from pandas.testing import assert_frame_equal
from test_notebooks import execute

from analysis import Experiment, RunningExperiment, frames, read
from analysis.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.experiment]


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
