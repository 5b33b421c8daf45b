"""The ground truth's experiment under NNI, on two of its networks: created, killed, resumed, collected."""

import time

import pandas as pd
import psutil
import pytest
import requests
import yaml
from nnictl_experiment import ROOT, nni_experiment

from benchmarks.ground_truth.table import RESULTS
from search_space import load_skeleton, nni_search_space

pytestmark = [pytest.mark.slow, pytest.mark.experiment]
TRAININGS = 6


def small_experiment() -> dict:
    """Two networks from three seeds; as the configuration of a file in the project's root."""
    configuration = yaml.safe_load((ROOT / 'benchmarks' / 'ground_truth' / 'experiment.yaml').read_text())
    del configuration['searchSpaceFile']
    choices = {label: candidates[:1] for label, candidates in load_skeleton('cued-160').choices().items()}
    configuration['searchSpace'] = nni_search_space(choices | {'row02/kernel': (3, 5)})
    configuration['trialCodeDirectory'] = configuration['tuner']['codeDirectory'] = '.'
    configuration['tuner']['classArgs']['seeds'] = 3
    configuration['tuner']['classArgs']['recipe'] |= {'dataset/canvases': 100, 'epochs': 1}
    return configuration


def wait_for(what, seconds: float = 300):
    """The first value of ``what()`` that is true."""
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, 'it never came to that'
        time.sleep(0.2)
    return value


def test_it_is_killed_and_resumed_and_its_table_has_every_training_once(tmp_path):
    with nni_experiment(tmp_path / 'home', small_experiment()) as experiment:

        def finished() -> list:
            return list(experiment.folder.glob('environments/*/trials/*/trial.json'))

        def status() -> str:
            try:
                answer = requests.get(f'http://localhost:{experiment.port}/api/v1/nni/check-status', timeout=20)
                return answer.json()['status']
            except (requests.RequestException, ValueError):
                return ''

        wait_for(finished)
        manager = next(p for p in experiment.processes() if p.name() == 'node')
        manager.kill()
        psutil.wait_procs([manager], timeout=20)
        experiment.resume()
        wait_for(lambda: status() == 'DONE')

        out = tmp_path / 'networks.csv'
        collected = experiment.command('-m', 'benchmarks.ground_truth', 'collect', experiment.id, '--out', str(out))
        assert f'{TRAININGS} of 480 trainings' in collected.stdout, collected.stderr
    table = pd.read_csv(out, comment='#')
    assert sorted(zip(table.seed, table['row02/kernel'])) == [(seed, kernel) for seed in range(3) for kernel in (3, 5)]
    assert table[list(RESULTS)].notna().all(axis=None)
    # What ran when the manager was killed, two, is run again, and may be here too while NNI does so; one may have been
    # taken for another at the start, and one result come too late.
    assert len(finished()) <= TRAININGS + 4
