"""The main job, through run.sh and nnictl: what is wrong ends it, and it may be interrupted."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from nnictl_experiment import ROOT, nni_experiment, processes_of, trial_of
from python_environment import environment_at

from trials.installation import stamp_of

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
    while not any(map(trial_of, processes_of(str(home)))):
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
