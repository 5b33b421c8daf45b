"""One trial in two processes, as on two GPUs, against the same trial in one."""

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import torch
import training_together
from warm_process import Program, run_program

from search_space import build, load_skeleton
from trials.parameters import TrialParameters
from trials.run import save_trial
from trials.training.devices import SyncedBatchNorm

ROOT = Path(__file__).parents[3]
STAGES = ('retrain', 'search', 'search under a budget', 'search from weights')
NETWORK = {label: candidates[0] for label, candidates in load_skeleton('cued').choices().items()}
RETRAIN = {**training_together.TRIAL, **NETWORK}
ON_TWO = {**RETRAIN, 'dataset/canvases': 100, 'devices': 2}


@pytest.fixture(scope='module')
def by_two(tmp_path_factory):
    """What each of two processes that trained together has, by stage."""
    folder = tmp_path_factory.mktemp('together')
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        together = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(server.getsockname()[1])}
    script = str(ROOT / 'tests' / 'trials' / 'training' / 'training_together.py')
    processes = [
        Program(script, folder, environment={**os.environ, **together, 'LOCAL_RANK': str(rank)}) for rank in range(2)
    ]
    try:
        for process in processes:
            done = process.end()
            assert done.returncode == 0, done.stderr
    finally:
        for process in processes:  # which wait for each other, where they decide differently
            process.kill()
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.fixture(scope='module')
def by_one():
    return training_together.everything(1)


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.parametrize('stage', STAGES)
def test_two_processes_give_the_weights_of_one(by_one, by_two, stage, rank):
    one, two = by_one[stage]['weights'], by_two[rank][stage]['weights']
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f'{name}: {m}')


@pytest.mark.slow
def test_a_search_from_weights_is_another_one(by_one):
    """It did start from them: noise of the drawn weights is not what the tests above compare."""
    own, from_weights = (by_one[stage]['weights'] for stage in ('search', 'search from weights'))
    assert any(not torch.allclose(own[name], value, rtol=1e-3) for name, value in from_weights.items())


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_two_processes_estimate_the_statistics_that_one_estimates(by_one, by_two, rank):
    one, two = by_one['retrain']['recalibrated'], by_two[rank]['retrain']['recalibrated']
    assert any(not torch.allclose(value, by_one['retrain']['weights'][name]) for name, value in one.items())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f'{name}: {m}')


@pytest.mark.slow
@pytest.mark.parametrize('stage', STAGES[1:])
def test_two_processes_find_the_network_that_one_finds(by_one, by_two, stage):
    assert by_two[0][stage]['sample'] == by_two[1][stage]['sample'] == by_one[stage]['sample']
    assert 'absent' in by_one[stage]['sample'].values()  # gates have closed: there was something to get wrong


@pytest.mark.slow
@pytest.mark.parametrize('stage', STAGES)
def test_metrics_are_those_of_all_images_and_not_of_one_process(by_one, by_two, stage):
    assert by_two[0][stage]['metrics'] == pytest.approx(by_one[stage]['metrics'], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_two_processes_go_on_from_one_checkpoint_as_if_they_had_not_been_ended(by_two, rank):
    whole, resumed = by_two[rank]['ended'], by_two[rank]['resumed']
    assert (whole['epochs'], resumed['epochs']) == (3, 1)
    for name, weight in by_two[rank]['retrain']['weights'].items():
        assert torch.equal(whole['weights'][name], weight)
        assert torch.equal(resumed['weights'][name], weight)


@pytest.mark.slow
def test_a_trial_on_two_devices_reports_once_and_leaves_one_network(tmp_path):
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(ON_TWO))
    trial = run_program('-m', 'trials', 'run', '--parameters', file, '--out', tmp_path)
    assert trial.returncode == 0, trial.stderr
    epoch, result = (json.loads(line) for line in trial.stdout.splitlines())
    assert epoch['epoch'] == 1
    assert json.loads((tmp_path / 'trial.json').read_text())['result'] == result
    assert (tmp_path / 'network.pt').exists()


@pytest.mark.slow
def test_a_trial_on_two_devices_starts_from_the_network_that_it_is_given(tmp_path):
    skeleton = load_skeleton('cued')
    given = build(skeleton, NETWORK)
    save_trial(tmp_path / 'given', RETRAIN, {}, given)
    file = tmp_path / 'parameters.json'
    named = {'initial': str(tmp_path / 'given'), 'teacher': str(tmp_path / 'given'), 'learning_rate': 1e-9}
    file.write_text(json.dumps({**ON_TWO, **named}))
    trial = run_program('-m', 'trials', 'run', '--parameters', file, '--out', tmp_path / 'out')
    assert trial.returncode == 0, trial.stderr
    assert trial.stderr.count('100.0% of the weights start as those of') == 1
    assert json.loads(trial.stdout.splitlines()[0])['teacher_loss'] > 0
    left = torch.load(tmp_path / 'out' / 'network.pt', weights_only=True)
    for name, weight in given.named_parameters():
        torch.testing.assert_close(left[name], weight, rtol=0, atol=1e-5)


KILLED = """
import sys
from small_trial import be_killed_after
from trials.__main__ import main

be_killed_after(1)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_trial_on_two_devices_that_was_given_a_network_goes_on_as_if_it_had_not_been_killed(tmp_path):
    save_trial(tmp_path / 'given', RETRAIN, {}, build(load_skeleton('cued'), NETWORK))
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps({**ON_TWO, 'epochs': 2, 'ema_decay': 0.9, 'initial': str(tmp_path / 'given')}))
    arguments = ['run', '--parameters', str(file), '--out']
    assert run_program('-m', 'trials', *arguments, tmp_path / 'undisturbed').returncode == 0
    assert run_program('-c', KILLED, *arguments, tmp_path / 'killed').returncode == -signal.SIGKILL
    assert len(list((tmp_path / 'killed').glob('*.ckpt'))) == 1
    again = run_program('-m', 'trials', *arguments, tmp_path / 'killed')
    assert again.returncode == 0, again.stderr
    assert 'going on after epoch 1' in again.stderr
    left = [json.loads((tmp_path / name / 'trial.json').read_text()) for name in ('undisturbed', 'killed')]
    for trial in left:
        del trial['result']['seconds']
    assert left[0] == left[1]
    undisturbed, killed = (
        torch.load(tmp_path / name / 'network.pt', weights_only=True) for name in ('undisturbed', 'killed')
    )
    for name, weight in undisturbed.items():
        assert torch.equal(killed[name], weight), name


@pytest.mark.slow
def test_a_network_that_cannot_be_started_from_ends_a_trial_on_two_devices_with_one_line(tmp_path):
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps({**ON_TWO, 'initial': str(tmp_path / 'nowhere')}))
    trial = run_program('-m', 'trials', 'run', '--parameters', file, '--out', tmp_path / 'out')
    assert trial.returncode == 2
    (line,) = trial.stderr.splitlines()
    assert line.startswith(f'python -m trials: trial parameter initial: {tmp_path / "nowhere"}')


@pytest.mark.slow
def test_a_trial_ends_with_the_process_that_fails():
    wait = (
        'import time; from trials.training.launch import other_processes\nwith other_processes({}, 2): time.sleep(300)'
    )
    trial = run_program('-c', wait, timeout=200)
    assert trial.returncode == 1
    assert 'process 1 of the trial ended with status 1' in trial.stderr


@pytest.mark.slow
def test_the_other_process_ends_with_one_that_is_killed():
    wait = (
        'import time; from trials.training.launch import other_processes\n'
        f'with other_processes({ON_TWO}, 2): time.sleep(300)'
    )
    trial = Program('-c', wait)
    until = time.monotonic() + 60
    while not (others := psutil.Process(trial.pid).children()):
        assert time.monotonic() < until
        time.sleep(0.05)
    (other,) = others
    trial.kill()
    other.wait(timeout=200)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_a_trial_on_two_devices_with_one_line(tmp_path):
    file = tmp_path / 'parameters.json'
    file.write_text(
        json.dumps({**ON_TWO, 'batch_size': 8, 'learning_rate': 1000, 'optimizer': 'sgd', 'weight_decay': 0})
    )
    trial = run_program('-m', 'trials', 'run', '--parameters', file, '--out', tmp_path)
    assert trial.returncode == 1, trial.stderr
    (last,) = trial.stderr.splitlines()
    assert re.match('python -m trials: the .+ is NaN at step', last)
    assert f'python -m trials: {json.loads((tmp_path / "failure.json").read_text())["error"]}' == last


def test_a_batch_that_does_not_divide_among_devices_is_refused():
    with pytest.raises(ValueError, match=r'batch_size must be a multiple of devices \(3\), not 64'):
        TrialParameters.from_flat({**RETRAIN, 'devices': 3})


def test_synced_batch_norm_is_batch_norm_in_a_process_alone():
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(SyncedBatchNorm(3)(x), torch.nn.BatchNorm2d(3)(x))
