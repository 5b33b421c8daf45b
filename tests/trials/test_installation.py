"""What run.sh makes of a machine's Pythons, of a .venv that is broken, and of want of disk or network."""

import os
import shutil
import subprocess
import sys

import pytest
from nnictl_experiment import ROOT
from python_environment import environment_at

from trials import installation


@pytest.fixture
def clone(tmp_path):
    """A clone that holds nothing but what is run before anything is installed."""
    folder = tmp_path / 'clone'
    (folder / 'trials').mkdir(parents=True)
    for name in ('run.sh', 'pyproject.toml', 'trials/installation.py'):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run_sh(clone, *arguments, **environment):
    return subprocess.run(
        ['bash', 'run.sh', *arguments],
        cwd=clone,
        env={**os.environ, 'PYTHON': '', **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\n{text}\n')
    (folder / name).chmod(0o755)


@pytest.mark.parametrize('python', ['python3.99', '/bin/false', 'no such python'])
def test_a_python_that_does_not_fit_is_named_in_one_line(python, clone):
    done = run_sh(clone, PYTHON=python)
    assert done.returncode == 2
    assert done.stderr == (
        f'run.sh: no Python of 3.11 to 3.14 is called {python}: install one, or name it with PYTHON=...\n'
    )


def test_where_python3_does_not_fit_one_that_does_is_found(clone, tmp_path):
    program(tmp_path / 'bin', 'python3', 'exit 1')
    program(tmp_path / 'bin', 'python3.14', f'echo found "$@" >&2; exec "{sys.executable}" "$@"')
    (clone / 'trials' / 'installation.py').write_text('raise SystemExit(7)')
    done = run_sh(clone, PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    assert done.returncode == 7
    assert 'found trials/installation.py' in done.stderr


def test_what_is_installed_is_not_installed_again_nor_asked_for_on_the_network(clone):
    environment_at(clone / '.venv')
    (clone / '.venv' / installation.stamp_of('').name).touch()
    command = [sys.executable, 'trials/installation.py']
    done = subprocess.run(
        command, cwd=clone, env={**os.environ, 'PIP_INDEX_URL': 'http://127.0.0.1:9'}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')


@pytest.fixture
def here(monkeypatch, tmp_path):
    """The module, with its .venv in a folder of the test's."""
    monkeypatch.setattr(installation, 'ROOT', tmp_path)
    monkeypatch.setattr(installation, 'VENV', tmp_path / '.venv')
    return installation


@pytest.mark.slow
def test_an_environment_that_lacks_pip_is_made_anew(here):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', here.VENV], check=True)
    here._make_environment()
    assert subprocess.run([here.VENV / 'bin' / 'python', '-m', 'pip', '--version'], check=False).returncode == 0


def test_without_what_makes_environments_nothing_is_left_and_it_says_what_to_install(here, tmp_path, monkeypatch):
    program(tmp_path / 'bin', 'python3', 'mkdir -p "$3/bin"; exit 1')  # as on Debian: half of it, then an error
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'bin' / 'python3'))
    version = '.'.join(map(str, sys.version_info[:2]))
    with pytest.raises(here.CannotInstall, match=f'apt install python{version}-venv'):
        here._make_environment()
    assert not here.VENV.exists()


def test_a_folder_of_that_name_that_is_no_environment_is_left_alone(here):
    here.VENV.mkdir()
    (here.VENV / 'mine').touch()
    with pytest.raises(here.CannotInstall, match='is there and no virtual environment: move it away'):
        here._make_environment()
    assert (here.VENV / 'mine').exists()


def test_a_disk_that_is_too_small_is_named_with_what_is_needed_before_anything_is_made(here, monkeypatch):
    monkeypatch.setattr(here, 'GIB', {False: (2e9, 1e9)})
    with pytest.raises(here.CannotInstall, match=r'GiB free, and the installation needs (2|3)0{9}\.1'):
        here._check_disk(False)
    assert not here.VENV.exists()


def test_cpu_says_where_its_wheels_come_from(clone):
    done = run_sh(clone, '--cpu', PYTHON=sys.executable, CPU_WHEELS='')
    assert done.returncode == 2
    assert done.stderr.startswith('run.sh: --cpu needs CPU_WHEELS=')
    assert not (clone / '.venv').exists()


def test_what_pip_cannot_do_is_its_reason_in_one_line_and_the_rest_in_a_log(here, monkeypatch, tmp_path):
    here.VENV.symlink_to(sys.prefix)
    monkeypatch.setattr(here, 'LOG', tmp_path / 'log')
    with pytest.raises(here.CannotInstall) as error:
        here._pip('--no-index', '--target', str(tmp_path / 'x'), 'no-such-package-anywhere')
    assert str(error.value).startswith('Could not find a version that satisfies the requirement no-such-package')
    assert str(error.value).endswith(f'all that pip said: {tmp_path}/log')
    assert 'No matching distribution' in (tmp_path / 'log').read_text()


def test_progress_in_a_file_is_a_line_a_minute(capsys, monkeypatch):
    progress = installation._Progress()
    clock = iter(range(0, 100_000, 5))
    monkeypatch.setattr(installation.time, 'monotonic', lambda: progress.started + next(clock))
    for number in range(60):
        progress.read(f'Collecting a{number}\n')
        progress.read(f'  Downloading a{number}.whl (1.5 MB)\n')
    progress.read('Installing collected packages: a1, a2\n')
    lines = capsys.readouterr().out.splitlines()
    assert 8 <= len(lines) <= 12
    assert lines[-1] == '10 min: 60 packages are there (90 MB); unpacking them'
