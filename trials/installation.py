"""``python3 trials/installation.py EXTRAS``: what ``run.sh`` installs into ``.venv``, whole or made anew.

It runs before anything is installed, so it imports nothing but Python's own modules. What was installed is noted in
``.venv``: a second run needs no network.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
LOG = VENV / 'installation.log'

GIB = {False: (7.0, 3.5), True: (2.5, 1.0)}
"""Without and with ``--cpu``: what .venv takes, and what pip downloads before."""

TORCH = ('torch', 'torchvision')


class CannotInstall(Exception):
    """Why, in one line."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('extras', nargs='?', default='', help='such as [test]')
    parser.add_argument('--cpu', action='store_true', help='PyTorch without CUDA, from the address in CPU_WHEELS')
    args = parser.parse_args()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which run.sh has kept waiting
        with (ROOT / 'pyproject.toml').open() as lock:
            _wait_for_others(lock)
            install(args.extras, args.cpu)
    except KeyboardInterrupt:
        print('\nrun.sh: interrupted; the same command again goes on with the installation', file=sys.stderr)
        return 130
    except (CannotInstall, OSError) as error:
        print(f'run.sh: {error}', file=sys.stderr)
        return 2
    return 0


def install(extras: str, cpu: bool) -> None:
    """Make ``.venv`` hold this package with ``extras``, if it does not yet.

    Raises:
        CannotInstall: for want of disk, network, a part of Python, or CPU wheels.
    """
    stamp = stamp_of(extras)
    if stamp.exists() and _runs(VENV / 'bin' / 'python', 'pass'):
        return
    wheels = os.environ.get('CPU_WHEELS', '')
    if cpu and not wheels:
        raise CannotInstall(
            '--cpu needs CPU_WHEELS=, the address (or a folder) of PyTorch\'s CPU wheels: what the page "Get started" '
            'of pytorch.org gives as --index-url for CPU'
        )
    _check_disk(cpu)
    _make_environment()
    print('Installing into .venv; the second run needs no network', flush=True)
    if cpu:
        place = ['--no-index', '--find-links', wheels] if Path(wheels).is_dir() else ['--index-url', wheels]
        _pip(*_requirements(TORCH), *place)
    _pip('--editable', f'{ROOT}{extras}')
    stamp.touch()


def stamp_of(extras: str) -> Path:
    """The file that says that this package, as ``pyproject.toml`` has it, is installed with ``extras``."""
    return VENV / f'installed{extras}-{hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()[:12]}'


def _wait_for_others(lock) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('Another run.sh installs here; waiting for it', flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _runs(python: Path, code: str) -> bool:
    """Does ``python`` run ``code`` to its end?"""
    try:
        return subprocess.run([python, '-c', code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _check_disk(cpu: bool) -> None:
    """Raises CannotInstall where .venv, or what pip downloads first, will not fit."""
    installed, downloaded = GIB[cpu]
    there = sum(file.lstat().st_size for file in VENV.rglob('*') if not file.is_symlink()) / 2**30
    needed = {ROOT: max(0.0, installed - there) + 0.1, Path(tempfile.gettempdir()): downloaded}
    for folder in needed:
        together = sum(more for other, more in needed.items() if other.stat().st_dev == folder.stat().st_dev)
        free = shutil.disk_usage(folder).free / 2**30
        if there < 1 and free < together:
            raise CannotInstall(
                f'the disk of {folder} has {free:.1f} GiB free, and the installation needs {together:.1f}'
            )


def _make_environment() -> None:
    """Make .venv where there is none that works; one without pip is what a failed try leaves on Debian."""
    if _runs(VENV / 'bin' / 'python', 'import pip'):
        return
    if VENV.exists() and not (VENV / 'pyvenv.cfg').is_file():
        raise CannotInstall(f'{VENV} is there and no virtual environment: move it away')
    shutil.rmtree(VENV, ignore_errors=True)
    made = subprocess.run([sys.executable, '-m', 'venv', VENV], capture_output=True, text=True, check=False)
    if made.returncode or not _runs(VENV / 'bin' / 'python', 'import pip'):
        shutil.rmtree(VENV, ignore_errors=True)
        version = f'{sys.version_info[0]}.{sys.version_info[1]}'
        raise CannotInstall(
            f'{sys.executable} makes no virtual environment; on Debian and Ubuntu: apt install python{version}-venv'
        )


def _requirements(names: tuple[str, ...]) -> list[str]:
    """What ``pyproject.toml`` says of these packages."""
    import tomllib

    dependencies = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']['dependencies']
    return [line for line in dependencies if re.match(r'[\w-]+', line)[0] in names]


def _pip(*arguments: str) -> None:
    """``pip install ARGUMENTS``, with one line that says how far it is; all that it says goes to a log.

    Raises:
        CannotInstall: with pip's reason.
    """
    command = [VENV / 'bin' / 'python', '-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off']
    progress, errors = _Progress(), []
    with LOG.open('a') as log:
        pip = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in pip.stdout:
            log.write(line)
            progress.read(line)
            errors += [line.strip()] * line.startswith('ERROR:')
    progress.end()
    if pip.wait():
        reason = errors[0].removeprefix('ERROR: ') if errors else f'pip ended with status {pip.returncode}'
        raise CannotInstall(f'{reason}; all that pip said: {LOG}')


class _Progress:
    """How far pip is: a line that is written over at a terminal, and one a minute elsewhere."""

    def __init__(self):
        self.started, self.packages, self.megabytes = time.monotonic(), 0, 0.0
        self._terminal, self._said = sys.stdout.isatty(), time.monotonic()

    def read(self, line: str) -> None:
        """A line that pip has printed."""
        if line.startswith('Collecting '):
            self.packages += 1
        if size := re.search(r'\(([\d.]+) (kB|MB|GB)\)', line):
            self.megabytes += float(size[1]) * {'kB': 1e-3, 'MB': 1.0, 'GB': 1e3}[size[2]]
        if line.startswith('Installing collected packages'):
            self._say(f'{self.packages} packages are there ({self.megabytes:,.0f} MB); unpacking them', at_once=True)
        else:
            self._say(f'{self.packages} packages, {self.megabytes:,.0f} MB')

    def _say(self, text: str, at_once: bool = False) -> None:
        now = time.monotonic()
        text = f'{(now - self.started) / 60:.0f} min: {text}'
        if self._terminal:
            print(f'\r{text:<70}', end='', flush=True)
        elif at_once or now - self._said >= 60:
            print(text, flush=True)
            self._said = now

    def end(self) -> None:
        if self._terminal:
            print()


if __name__ == '__main__':
    sys.exit(main())
