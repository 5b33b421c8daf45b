"""The hours of an experiment, as a command."""

import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from warm_process import run_program

RECIPE = {'dataset': 'cued-digits', 'batch_size': 8, 'learning_rate': 0.01, 'devices': 2}
ARGUMENTS = {
    'skeleton': 'cued',
    'budget': 20,
    'max_macs': 1_700_000,
    'test_runs': 3,
    'strategies': {
        'autonl': {'class': 'strategies.AutoNL', 'warmup_epochs': 2},
        'random': {'class': 'nni.nas.strategy.Random'},
    },
    'retrain': {**RECIPE, 'epochs': 4, 'optimizer': 'rmsprop-tf', 'schedule': 'staircase', 'mixup': 0.2},
    'search': {**RECIPE, 'epochs': 5, 'held_out': 0.25},
}


def hours(folder: Path, *options: str, **changes) -> CompletedProcess:
    file = folder / 'experiment.yaml'
    tuner = {'classArgs': ARGUMENTS | changes}
    file.write_text(yaml.safe_dump({'trialConcurrency': 2, 'trialGpuNumber': 2, 'tuner': tuner}))
    return run_program('benchmarks/speed/hours.py', str(file), '--steps', '2', '--warmup', '1', *options)


def test_the_hours_are_those_of_all_passes_at_the_measured_images_per_second(tmp_path):
    done = hours(tmp_path, '--images', '1000000')
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in done.stdout.splitlines()[2:-1]:
        name, speed, passes, taken = re.split(r'\s{2,}', line.strip())
        rows[name] = [float(value.replace(',', '')) for value in (speed, passes, taken)]
    assert {name: passes for name, (_, passes, _) in rows.items()} == {
        'autonl: search, warm-up': 1.5,
        'autonl: search, both kinds of steps': 2.25,
        'autonl: 3 retrainings': 12,  # the search costs (2 * 5 - 2) * 0.75 = 6 of the 20 epochs
        'autonl: 3 test runs': 12,
        'random: 5 retrainings': 20,
        'random: 3 test runs': 12,
    }
    for speed, passes, taken in rows.values():
        assert taken == pytest.approx(passes * 1e6 / speed / 3600, rel=0.05)
    total, at_once = re.match(r'([\d.,]+) device hours; ([\d.,]+) hours with 4', done.stdout.splitlines()[-1]).groups()
    assert float(total) == pytest.approx(sum(taken for _, _, taken in rows.values()), rel=0.01)
    assert float(at_once) == pytest.approx(float(total) / 4, rel=0.01)


def test_what_is_missing_is_one_line_and_status_2(tmp_path):
    done = hours(tmp_path)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'hours.py: how many images the training part of cued-digits has, --images has to say\n'
