"""A trial that is ended at any moment, and run again: it goes on, and ends as if nothing had been."""

import http.server
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import small_trial
import torch
from small_trial import RETRAIN, SEARCH, run, start, write_parameters

from trials.__main__ import _earlier_result
from trials.identity import contents
from trials.parameters import TrialParameters
from trials.run import run_trial, save_trial
from trials.training.checkpoint import EpochCheckpoint, checkpoint_path
from trials.training.tensor_file import read_saved


def outcome(folder: Path) -> tuple:
    """What a trial left, but for its seconds."""
    trial = json.loads((folder / 'trial.json').read_text())
    del trial['result']['seconds']
    trajectories = folder / 'trajectories.csv'
    return trial, (folder / 'network.pt').read_bytes(), trajectories.read_bytes() if trajectories.exists() else None


@pytest.mark.slow
@pytest.mark.parametrize('parameters', [SEARCH, RETRAIN], ids=['search', 'retraining'])
def test_a_trial_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path, parameters):
    arguments = ['--parameters', str(write_parameters(tmp_path / 'parameters.json', parameters)), '--out']
    assert run(tmp_path, *arguments, str(tmp_path / 'undisturbed')) == 0
    started = time.monotonic()
    assert run(tmp_path, *arguments, str(tmp_path / 'again')) == 0  # the first one's process had to be made first
    seconds = time.monotonic() - started
    moments, killed, gone_on_from = random.Random(0), tmp_path / 'killed', 0
    while gone_on_from < 3:
        process = start(tmp_path, *arguments, str(killed))
        process.join(moments.uniform(0, 1) * seconds)
        process.kill()
        process.join()
        left = bool(list(killed.glob('*.ckpt')))
        gone_on_from += left
        seconds *= 1 if left else 0.8 if process.exitcode == 0 else 1.2  # as busy as the machine is now
    (killed / 'trial.json').unlink(missing_ok=True)
    both = [start(tmp_path, *arguments, str(killed)) for _ in range(2)]  # as when a trial outlives NNI's manager
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert 'going on after epoch' in (tmp_path / 'err.txt').read_text()
    assert outcome(killed) == outcome(tmp_path / 'undisturbed') == outcome(tmp_path / 'again')
    assert not list(killed.glob('*.ckpt'))
    assert not list(killed.glob('.*'))


class Nni(http.server.BaseHTTPRequestHandler):
    """What a trial hears of NNI: its parameters, and whether it takes a result."""

    def do_GET(self):
        self._answer(200, {'type': 'parameter', 'parameter': json.dumps({'parameter_id': 0, **self.server.asked})})

    def do_PUT(self):
        command = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        metric = json.loads(command['metric']) if command['type'] == 'metric' else {}
        if metric.get('type') == 'FINAL' and self.server.deaf:
            return  # the connection ends without an answer, as when the manager is killed
        if metric:
            self.server.heard.append((metric['type'], json.loads(metric['value'])))
        self._answer(200, {})

    def _answer(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_result_that_nni_did_not_hear_is_reported_when_the_trial_is_started_again(tmp_path):
    with http.server.ThreadingHTTPServer(('localhost', 0), Nni) as server:
        server.asked = {'parameters': {**RETRAIN, 'epochs': 1, 'dataset/canvases': 100}}
        server.deaf, server.heard = True, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        nni = {'NNI_PLATFORM': 'local', 'NNI_TRIAL_JOB_ID': tmp_path.name, 'NNI_OUTPUT_DIR': str(tmp_path)}
        nni |= {'NNI_SYS_DIR': str(tmp_path), 'NNI_TRIAL_COMMAND_CHANNEL': f'http://localhost:{server.server_port}'}
        command = [sys.executable, '-m', 'trials', 'run']
        assert subprocess.run(command, env={**os.environ, **nni}, check=False, capture_output=True).returncode == 1
        left = json.loads((tmp_path / 'trial.json').read_text())
        assert left['parameters'] == server.asked['parameters']
        server.deaf, server.heard = False, []
        again = subprocess.run(command, env={**os.environ, **nni}, check=False, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert [kind for kind, _ in server.heard] == ['PERIODICAL', 'FINAL']  # no epoch was trained
        assert server.heard[-1][1] == left['result']
        server.shutdown()


class Ended(Exception):
    """What ends a training from within, at its third epoch."""


@pytest.mark.parametrize(
    'parameters',
    [
        SEARCH,
        RETRAIN,
        {**RETRAIN, 'ema_decay': 0.9},
        {**RETRAIN, 'optimizer': 'rmsprop-tf', 'schedule': 'staircase', 'mixup': 0.2},
        {**SEARCH, 'class': 'nni.nas.strategy.GumbelDARTS', 'class/warmup_epochs': None, 'class/drawn_share': None},
    ],
    ids=['search', 'retraining', 'moving average', 'mixup', 'GumbelDARTS'],
)
@pytest.mark.slow
def test_a_training_goes_on_as_if_it_had_not_been_ended(tmp_path, parameters):
    trial = TrialParameters.from_flat({name: value for name, value in parameters.items() if value is not None})
    reports, path = [], tmp_path / 'trial.ckpt'

    def end(metrics):
        if metrics['epoch'] == 3:
            raise Ended

    with small_trial.small_data():
        result, network = run_trial(trial, reports.append)
        with pytest.raises(Ended):
            run_trial(trial, end, checkpoint=EpochCheckpoint(path))
        reports_again = []
        again, network_again = run_trial(trial, reports_again.append, checkpoint=EpochCheckpoint(path))
    assert again.pop('seconds') > 0
    del result['seconds']
    assert again == result
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, network_again.state_dict()[name])
    for report in reports + reports_again:
        del report['seconds']
    assert json.dumps(reports_again, sort_keys=True) == json.dumps(reports, sort_keys=True)  # in which NaN is NaN


def test_of_other_parameters_it_is_another_checkpoint(tmp_path):
    assert checkpoint_path(tmp_path, SEARCH) == checkpoint_path(tmp_path, dict(reversed(SEARCH.items())))
    assert checkpoint_path(tmp_path, SEARCH) != checkpoint_path(tmp_path, SEARCH | {'seed': 1})


SKELETON = Path(__file__).parents[2] / 'search_space' / 'skeletons' / 'cued.yaml'


@pytest.mark.parametrize(
    ('old', 'new', 'same'),
    [
        ('', '# a comment\n', True),
        ('head_channels: 128', 'head_channels:   128', True),
        ('head_channels: 128', 'head_channels: 64', False),
        ('head_channels: 128', 'head_channels: 128\nactivation: relu6', False),
        ('bn_momentum: 0.1 ', 'bn_momentum: 0.2 ', False),
    ],
)
def test_of_another_skeleton_in_the_same_file_it_is_another_checkpoint(old, new, same, tmp_path):
    file, parameters = tmp_path / 'mine.yaml', {**SEARCH, 'skeleton': str(tmp_path / 'mine.yaml')}
    text = SKELETON.read_text()
    assert old in text
    file.write_text(text)
    before = checkpoint_path(tmp_path, parameters)
    file.write_text(text.replace(old, new, 1))
    assert (checkpoint_path(tmp_path, parameters) == before) == same


@pytest.mark.parametrize('name', ['class/latency', 'initial', 'teacher'])
def test_what_is_in_a_file_that_a_parameter_names_is_part_of_the_trial(name, tmp_path):
    folder = tmp_path / 'given'
    folder.mkdir()
    (folder / 'network.pt').write_bytes(b'weights')
    for value in (folder, folder / 'network.pt'):
        parameters = {**SEARCH, name: str(value)}
        before = checkpoint_path(tmp_path, parameters)
        assert checkpoint_path(tmp_path, parameters) == before
        (folder / 'network.pt').write_bytes(value.name.encode())
        assert checkpoint_path(tmp_path, parameters) != before


def left_by_an_ended_trial(path: Path, parameters=RETRAIN) -> bytes:
    """What a trial leaves as its checkpoint that is ended in its third epoch."""

    def end(metrics):
        if metrics['epoch'] == 3:
            raise Ended

    with small_trial.small_data(), pytest.raises(Ended):
        run_trial(TrialParameters.from_flat(parameters), end, checkpoint=EpochCheckpoint(path))
    return path.read_bytes()


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged_anywhere_is_set_aside(tmp_path, caplog):
    """Empty, cut off, something else, or of a flipped bit at whatever place."""
    path = tmp_path / 'trial.ckpt'
    whole = left_by_an_ended_trial(path)
    content = torch.load(path, weights_only=True)
    draw = random.Random(0)
    flips = [draw.randrange(len(whole)) for _ in range(60)]
    damaged = [b'', b'half of it', whole[:-500], whole[: len(whole) // 2]]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :] for at in flips]
    set_aside = 0
    for one in damaged:
        path.write_bytes(one)
        caplog.clear()
        checkpoint = EpochCheckpoint(path)
        if checkpoint.fit_arguments() == {}:
            set_aside += 1
            (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert warning.startswith(f'training starts anew, the checkpoint is set aside as {path}.set-aside: ')
            assert '\n' not in warning
            assert not path.exists()
            assert Path(f'{path}.set-aside').read_bytes() == one
        else:  # a bit that nothing reads
            assert_same(checkpoint._content, content)
    assert set_aside > len(damaged) // 2


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize('content', [{'epoch': 3, 'object': Path('/')}, {'epoch': 3}, [1], {'epoch': 'x'}])
def test_what_is_no_checkpoint_of_a_training_is_set_aside(tmp_path, content, caplog):
    path = tmp_path / 'trial.ckpt'
    torch.save(content, path)
    assert EpochCheckpoint(path).fit_arguments() == {}
    assert not path.exists()
    assert 'weights_only' not in caplog.text


@pytest.mark.parametrize('parameters', [SEARCH, RETRAIN], ids=['search', 'retraining'])
@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_set_aside_and_the_trial_starts_anew(parameters, tmp_path, caplog):
    path, file = tmp_path / 'trial.ckpt', tmp_path / 'mine.yaml'
    file.write_text(SKELETON.read_text().replace('head_channels: 128', 'head_channels: 64'))
    left_by_an_ended_trial(path, {**parameters, 'skeleton': str(file)})
    trial = TrialParameters.from_flat(parameters)
    with small_trial.small_data():
        result, network = run_trial(trial, lambda metrics: None)
        again, network_again = run_trial(trial, lambda metrics: None, checkpoint=EpochCheckpoint(path))
    assert again.pop('seconds') > 0
    del result['seconds']
    assert again == result
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, network_again.state_dict()[name])
    assert f'set aside as {path}.set-aside: it is of another network, by its ' in caplog.text


def test_a_result_of_a_skeleton_that_was_edited_since_is_not_reported_again(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(SKELETON.read_text())
    parameters = {**RETRAIN, 'skeleton': str(file)}
    save_trial(tmp_path, parameters, {'default': 0.5}, torch.nn.Linear(1, 1), contents(parameters))
    assert _earlier_result(tmp_path, parameters) == {'default': 0.5}
    assert _earlier_result(tmp_path, {**parameters, 'seed': 1}) is None
    file.write_text(SKELETON.read_text().replace('head_channels: 128', 'head_channels: 64'))
    assert _earlier_result(tmp_path, parameters) is None


@pytest.mark.parametrize('parameters', [SEARCH, RETRAIN], ids=['search', 'retraining'])
def test_a_loss_that_is_not_finite_ends_the_trial_with_one_line(tmp_path, parameters):
    file = write_parameters(
        tmp_path / 'parameters.json', parameters, learning_rate=1000, optimizer='sgd', weight_decay=0
    )
    assert run(tmp_path, '--parameters', str(file), '--out', str(tmp_path / 'out')) == 1
    *_, last = (tmp_path / 'err.txt').read_text().splitlines()
    failure = json.loads((tmp_path / 'out' / 'failure.json').read_text())
    assert failure['type'] == 'FloatingPointError'
    assert last == f'python -m trials: {failure["error"]}'
    for part in (' is NaN at step', 'learning rates: ', 'last checkpoint: '):
        assert part in last
    assert not (tmp_path / 'out' / 'trial.json').exists()


def test_a_later_epoch_that_is_not_finite_leaves_the_checkpoint_before_it(tmp_path):
    trial = TrialParameters.from_flat(SEARCH | {'learning_rate': 20, 'optimizer': 'sgd', 'weight_decay': 0})
    checkpoint = EpochCheckpoint(tmp_path / 'trial.ckpt')
    with small_trial.small_data(), pytest.raises(FloatingPointError, match=f'last checkpoint: {checkpoint.path}'):
        run_trial(trial, lambda metrics: None, checkpoint=checkpoint)
    state = torch.load(checkpoint.path, weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))


@pytest.mark.slow
def test_a_full_disk_costs_no_more_than_the_files(tmp_path):
    """A limit of the size of a file: the history is written, a checkpoint and the network are not."""
    file = write_parameters(tmp_path / 'parameters.json')
    assert run(tmp_path, '--parameters', str(file), '--out', str(tmp_path / 'out'), limit=100_000) == 1
    *reports, result = (tmp_path / 'out.txt').read_text().splitlines()
    assert len(reports) == SEARCH['epochs']
    assert 0 <= json.loads(result)['default'] <= 1
    warning, last = (tmp_path / 'err.txt').read_text().splitlines()
    assert warning.startswith('python -m trials: there is no checkpoint of epoch 1: ')
    assert last.startswith('python -m trials: ')
    assert 'network.pt cannot be written' in last
    left = {path.name for path in (tmp_path / 'out').iterdir()}
    assert left == {'trajectories.csv', 'metrics.csv', 'tensorboard', 'failure.json'}


def run_nni_trial(home: Path, name: str, limit: int = 0, last_epoch: int = 0) -> int:
    """A trial as NNI's manager runs it, through files: its parameters are there, and there it reports."""
    folder = home / 'trials' / name
    folder.mkdir(parents=True)
    parameters = json.loads(write_parameters(folder / 'trial-parameters.json').read_text())
    (folder / 'parameter.cfg').write_text(json.dumps({'parameter_id': 0, 'parameters': parameters}))
    environment = {
        **os.environ,
        'NNI_PLATFORM': 'local',
        'NNI_EXP_ID': 'experiment',
        'NNI_TRIAL_JOB_ID': name,
        'NNI_SYS_DIR': str(folder),
        'NNI_OUTPUT_DIR': str(folder),
    }
    command = [sys.executable, small_trial.__file__, str(folder), str(limit), str(last_epoch), 'run']
    tests = Path(__file__).parents[1]
    environment['PYTHONPATH'] = os.pathsep.join(map(str, (tests.parent, tests)))
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.mark.slow
def test_a_trial_that_nni_runs_again_goes_on_and_reports_its_result_on_a_full_disk(tmp_path):
    assert run_nni_trial(tmp_path, 'FIRST', last_epoch=2) == -signal.SIGKILL
    assert run_nni_trial(tmp_path, 'SECOND', limit=100_000) == 0
    folder = tmp_path / 'trials' / 'SECOND'
    said = (folder / 'err.txt').read_text()
    assert 'going on after epoch 2' in said
    assert said.splitlines()[-1].startswith('python -m trials: the result is reported, but its files are not there: ')
    metrics = (folder / '.nni' / 'metrics').read_text()
    assert metrics.count('PERIODICAL') == 1 + SEARCH['epochs']
    assert metrics.count('FINAL') == 1


def test_a_file_of_tensors_that_is_packed_or_no_file_is_not_read(tmp_path):
    """Packed zeros of a gigabyte are a file of a megabyte, and /dev/zero never ends."""
    torch.save({'a': torch.zeros(100_000)}, tmp_path / 'sound.pt')
    with zipfile.ZipFile(tmp_path / 'sound.pt') as sound, zipfile.ZipFile(tmp_path / 'packed.pt', 'w', 8) as packed:
        for name in sound.namelist():
            packed.writestr(name, sound.read(name))
    assert read_saved(tmp_path / 'sound.pt').keys() == {'a'}
    with pytest.raises(ValueError, match='it holds more than its size'):
        read_saved(tmp_path / 'packed.pt')
    os.mkfifo(tmp_path / 'pipe.pt')
    for name in ('/dev/zero', tmp_path / 'pipe.pt', tmp_path):
        with pytest.raises(ValueError, match='not a regular file'):
            read_saved(Path(name))
