"""The main job, through nnictl, at a small budget."""

import copy
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import requests
import torch
import yaml
from nnictl_experiment import ROOT, nni_experiment, processes_of
from python_environment import environment_at

from analysis import Experiment, trials
from search_space import build, load_skeleton
from trials.installation import stamp_of

SKELETON = load_skeleton('cued')
pytestmark = [pytest.mark.slow, pytest.mark.experiment]


def test_what_is_wrong_to_the_tuner_ends_the_experiment_with_its_reason_and_leaves_no_process(configuration, tmp_path):
    """nnictl asks nobody who knows, so that the experiment is created."""
    wrong = copy.deepcopy(configuration)
    wrong['tuner']['classArgs']['strategies']['random']['class'] = 'nni.nas.strategy.Randm'
    with nni_experiment(tmp_path, wrong) as experiment:
        _, left = psutil.wait_procs(processes_of(str(tmp_path)), timeout=120)
        assert not left
        assert "did you mean 'Random'?" in (experiment.folder / 'log' / 'dispatcher.log').read_text()


def test_what_is_wrong_to_nni_starts_nothing(configuration, tmp_path):
    wrong = {**configuration, 'trialCodeDirectory': 'nowhere'}
    with pytest.raises(AssertionError, match='nowhere" is not a directory'), nni_experiment(tmp_path, wrong):
        pass


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


def test_run_sh_can_be_interrupted_and_goes_on_to_its_report(configuration, tmp_path):
    """In a folder with a space, with one strategy and one trial of a few steps, and its test."""
    clone = tmp_path / 'a clone'
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns('.*', 'report-*', 'build', '__pycache__'))
    environment_at(clone / '.venv')
    (clone / '.venv' / stamp_of('').name).touch()
    arguments = configuration['tuner']['classArgs']
    recipe = arguments['retrain'] | {'dataset/canvases': 128, 'batch_size': 16}
    small = {'strategies': {'random': {'class': 'nni.nas.strategy.Random'}}, 'retrain': recipe, 'budget': 1}
    tuner = configuration['tuner'] | {'classArgs': {**arguments, **small, 'test_runs': 1}}
    (clone / 'small.yaml').write_text(yaml.safe_dump(configuration | {'tuner': tuner}))
    home = tmp_path / 'home'
    environment = {**os.environ, 'HOME': str(home), 'PYTHON': sys.executable, 'PYTHONPATH': str(clone)}
    environment.pop('PORT', None)

    def run_sh(*arguments):
        out = (tmp_path / 'said').open('w')
        command = ['bash', 'run.sh', *arguments]
        options = {'cwd': clone, 'env': environment, 'stdout': out, 'stderr': subprocess.STDOUT}
        return subprocess.Popen(command, start_new_session=True, **options)

    running = run_sh('small.yaml')
    until = time.monotonic() + 300
    while not any('NNI_TRIAL_JOB_ID' in process.environ() for process in processes_of(str(home))):
        assert time.monotonic() < until, (tmp_path / 'said').read_text()
        time.sleep(0.1)
    for _ in range(3):
        os.killpg(running.pid, signal.SIGINT)  # as the terminal does, to all of the group
        time.sleep(0.2)
    assert running.wait(120) == 130
    said = (tmp_path / 'said').read_text()
    assert 'Traceback' not in said
    assert not processes_of(str(home))
    experiment = re.search(r'\nStopping experiment (\w+); to go on: bash run.sh resume \1 ', said)[1]

    assert run_sh('resume', experiment).wait(600) == 0, (tmp_path / 'said').read_text()
    said = (tmp_path / 'said').read_text()
    assert re.search(r'its web UI: http://127\.0\.0\.1:\d+/[0-9a-f]{16}/', said)
    assert f'Experiment {experiment}: DONE' in said
    assert '<html' in (clone / f'report-{experiment}' / 'report.html').read_text()
    assert not processes_of(str(home))
