"""What run.sh asks of the machine before it starts an experiment, and what it leaves of one that does not start."""

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from nnictl_experiment import ROOT, processes_of
from python_environment import environment_at

from trials import run_experiment
from trials.installation import stamp_of


@pytest.fixture
def run(tmp_path):
    """Runs ``python -m trials.run_experiment`` in a home of its own; what it says, and its status."""

    def run(*arguments, python=sys.executable, **environment):
        return subprocess.run(
            [str(python), '-m', 'trials.run_experiment', *arguments],
            cwd=ROOT,
            env={**os.environ, 'HOME': str(tmp_path), 'PYTHONPATH': str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def one_line_of(done, status=2):
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    return line


REFUSED = {
    'no file': ([''], {}, "'' is the name of no file"),
    'an unknown option': (['--port=1'], {}, 'unrecognized arguments'),
    'a port below 1': ([], {'PORT': '-1'}, "PORT must be a whole number from 1 to 65534, not '-1'"),
    'a port that is no number': ([], {'PORT': '８０８０'}, 'PORT must be a whole number'),
    'a home that cannot be': ([], {'HOME': '/proc/nobody'}, 'name another folder with HOME='),
    'a home that is another for every program': ([], {'HOME': 'relative'}, 'HOME must be a whole path (/...), not rel'),
    'no program kill': ([], {'PATH': '/nowhere'}, 'the program kill is missing'),
    'no id to resume': (['--resume', '../x'], {}, "'../x' is no id of an experiment"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_work_is_refused_in_one_line_before_anything_starts(case, run, tmp_path):
    arguments, environment, message = REFUSED[case]
    assert message in one_line_of(run(*arguments, **environment))
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named_where_it_was_asked_for_and_passed_by_where_not(run, monkeypatch):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f'port {port} is in use: name another with PORT=' in one_line_of(run(PORT=str(port)))
        monkeypatch.setattr(run_experiment, 'FIRST_PORT', port)
        assert run_experiment._free_port() > port


def test_from_a_folder_with_a_space_python_is_called_by_a_link_without_one(tmp_path):
    folder = environment_at(tmp_path / 'with space')
    code = 'from trials.run_experiment import _plain_python; print(_plain_python())'
    environment = {**os.environ, 'HOME': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    python = subprocess.run(
        [folder / 'bin' / 'python', '-c', code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert shlex.quote(python) == python
    prefix = subprocess.check_output([python, '-c', 'import sys; print(sys.prefix)'], text=True).strip()
    assert Path(prefix).resolve() == folder
    assert stat.S_IMODE(Path(python).parent.parent.parent.stat().st_mode) == 0o700


def test_a_link_is_not_trusted_where_others_can_change_it(tmp_path):
    folder = environment_at(tmp_path / 'with space')
    at_home = tmp_path / '.cache' / 'autonl-nni' / 'environments'
    at_home.mkdir(parents=True)
    at_home.chmod(0o777)
    code = 'from trials.run_experiment import _plain_python; print(_plain_python())'
    environment = {**os.environ, 'HOME': str(tmp_path), 'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    python = subprocess.check_output([folder / 'bin' / 'python', '-c', code], env=environment, text=True).strip()
    assert Path(python).parent.parent.parent == tmp_path / f'autonl-nni-{os.getuid()}'


def nnictl_that(folder, does):
    (folder / 'bin' / 'nnictl').write_text(
        f'import os, subprocess, sys, time\nprint("Experiment ID: abc", flush=True)\n{does}\n'
    )


LIKE_NNI_AND_FAILS = """
subprocess.Popen(['sleep', '600'], start_new_session=True)
print('[x] (nni.experiment) Create experiment failed: Tuner did not connect in 10 seconds.')
print('Traceback (most recent call last):', *range(70), sep='\\n')
sys.exit(1)"""


@pytest.mark.slow
def test_a_start_that_fails_is_tried_three_times_and_the_last_line_says_why_and_nothing_is_left(run, tmp_path):
    folder = environment_at(tmp_path / 'machine')
    nnictl_that(folder, LIKE_NNI_AND_FAILS)
    done = run(python=folder / 'bin' / 'python')
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    reason = f'Tuner did not connect in 10 seconds. (its log: {tmp_path}/nni-experiments/abc/log)'
    assert lines == [
        f'NNI did not start: {reason}; once more (2 of 3)',
        f'NNI did not start: {reason}; once more (3 of 3)',
        f'run.sh: NNI did not start in 3 tries: {reason}',
    ]
    assert not processes_of(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('delay', [0.1, 0.2, 0.4, 0.8])
def test_interrupted_while_its_programs_start_it_ends_without_a_traceback(delay, tmp_path):
    clone = tmp_path / 'a clone'  # with a space: Python starts once more there
    shutil.copytree(ROOT / 'trials', clone / 'trials')
    shutil.copytree(ROOT / 'search_space', clone / 'search_space')
    for name in ('run.sh', 'pyproject.toml'):
        shutil.copy(ROOT / name, clone)
    (clone / 'trials' / 'check.py').write_text('import time\ntime.sleep(600)')  # it comes first, and must not be over
    environment_at(clone / '.venv')
    (clone / '.venv' / stamp_of('').name).touch()
    environment = {**os.environ, 'HOME': str(tmp_path), 'PYTHON': sys.executable, 'PYTHONPATH': str(clone)}
    said = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    command = ['bash', 'run.sh', '/nowhere.yaml']
    with subprocess.Popen(command, cwd=clone, env=environment, start_new_session=True, **said) as running:
        time.sleep(delay)
        os.killpg(running.pid, signal.SIGINT)  # as the terminal does, to all of the group
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 130, out
    assert 'Traceback' not in out
    assert not processes_of(str(tmp_path))


@pytest.mark.slow
def test_interrupted_while_nnictl_starts_it_leaves_nothing_however_often_it_is_pressed(tmp_path):
    folder = environment_at(tmp_path / 'machine')
    nnictl_that(folder, "subprocess.Popen(['sleep', '600'], start_new_session=True)\ntime.sleep(600)")
    environment = {**os.environ, 'HOME': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    command = [folder / 'bin' / 'python', '-m', 'trials.run_experiment']
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not any(process.name() == 'sleep' for process in processes_of(str(tmp_path))):
            assert time.monotonic() < until
            time.sleep(0.05)
        for _ in range(3):
            running.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.split('\n') == ['', 'Stopping; no experiment had started', '']
    _, left = psutil.wait_procs(processes_of(str(tmp_path)), timeout=5)
    assert not left
