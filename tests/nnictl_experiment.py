"""Experiments of NNI, run for real in a home of their own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parent.parent
STARTS = 3
"""NNI waits 3 seconds for its web server and 10 for the tuner: beside other tests a later start may be what does it."""


@dataclass
class RunningExperiment:
    """An experiment under nnictl, in a home of its own."""

    id: str
    port: int
    prefix: str
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.environment['HOME']) / 'nni-experiments' / self.id

    def command(self, *arguments: str, seconds: float = 600, **kwargs) -> subprocess.CompletedProcess:
        """Run ``python ARGUMENTS`` in the project and in this home."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **kwargs,
        )

    def nnictl(self, *arguments: str) -> subprocess.CompletedProcess:
        return nnictl(self.environment, *arguments)

    def resume(self) -> None:
        """``nnictl resume``, once more where NNI did not start."""
        for _ in range(STARTS):
            resumed = self.nnictl('resume', self.id, '--port', str(self.port))
            if 'Web portal URLs' in resumed.stdout:
                return
            if not _did_not_start(resumed):
                break
        raise AssertionError(resumed.stdout + resumed.stderr)

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.environment['HOME'])


def nnictl(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(Path(sys.executable).parent / 'nnictl'), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def processes_of(home: str) -> list[psutil.Process]:
    """Processes that were started in ``home``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get('HOME') == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def trial_of(process: psutil.Process) -> str | None:
    """NNI's id of the trial that a process is of; None of another one, or where it has ended in the meantime."""
    try:
        return process.environ().get('NNI_TRIAL_JOB_ID')
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return None


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('', 0))
        return server.getsockname()[1]


@contextmanager
def nni_experiment(home: Path, configuration: dict, prefix: str = 'a-word-that-is-the-lock'):
    """The experiment of ``configuration``, from ``nnictl create`` to ``nnictl stop``; no process is left behind."""
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, 'HOME': str(home), 'PATH': f'{scripts}{os.pathsep}{os.environ["PATH"]}'}
    config = ROOT / f'.{home.name}-{os.getpid()}.yaml'  # beside experiment.yaml, whose paths are relative to it
    config.write_text(yaml.safe_dump(configuration))
    lock = ['--url_prefix', prefix] if prefix else []
    try:
        for _ in range(STARTS):
            port = free_port()
            created = nnictl(environment, 'create', '--config', str(config), '--port', str(port), *lock)
            match = re.search(r'nnictl stop (\w+)"', created.stdout)
            if match or not _did_not_start(created):
                break
            _end_all(environment)
        assert match, created.stdout + created.stderr
        yield RunningExperiment(match[1], port, prefix, environment)
    finally:
        config.unlink()
        left = _end_all(environment)
    assert not left, f'left behind: {left}'


def _did_not_start(done: subprocess.CompletedProcess) -> bool:
    return 'Create experiment failed' in done.stdout + done.stderr


def _end_all(environment: dict[str, str]) -> list[psutil.Process]:
    """End the experiments of a home; what had to be killed."""
    nnictl(environment, 'stop', '--all')
    _, left = psutil.wait_procs(processes_of(environment['HOME']), timeout=30)
    for process in left:
        process.kill()
    return left
