"""``python -m trials.run_experiment``: an experiment from its start to its report; nothing of it is left running.

It is what ``run.sh`` calls. NNI's manager, the tuner and the trials are found by a mark in their environment, whatever
state they are in: so Ctrl-C ends all of them at any moment, also while ``nnictl`` still starts them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from search_space.entry_point import Parser, print_error, run
from trials.home import check_home

__all__ = ['main']

FIRST_PORT = 8080
"""NNI's own default."""

PORTS = 100
"""That are tried from there on, where none was asked for."""

STARTS = 3
"""NNI waits 3 seconds for its web server and 10 for the tuner: on a busy machine a second start often does it."""

STOP_SECONDS = 60.0
"""In which NNI's manager ends its trials and itself; then all of it is killed."""

MARK = 'AUTONL_RUN'
"""The variable that marks the processes of one run."""

_RESUME = 'import sys; from trials.lost_host import resume; resume(sys.argv[1], int(sys.argv[2]), sys.argv[3])'


class _Stopped(BaseException):
    """A signal asked to stop."""


class _Signals:
    """Raises :class:`_Stopped` once, at the first signal; further ones change nothing."""

    def __init__(self):
        self.first: int | None = None
        self.raises = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self)

    def __call__(self, number, frame):
        if self.first is None:
            self.first = number
            if self.raises:
                raise _Stopped


def main(arguments: list[str] | None = None) -> int:
    signals = _Signals()
    parser = Parser(prog='run.sh', description='Run an experiment, to its table and its report.')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('file', nargs='?', default='experiment.yaml', help='by default experiment.yaml')
    what.add_argument('--resume', metavar='ID', help='go on with an experiment that was stopped')
    args = parser.parse_args(arguments)
    experiment = _Run()
    status = 0
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which run.sh has kept waiting
            status = run('run.sh', lambda: experiment.whole(args.file, args.resume))
        finally:
            signals.raises = False
    except _Stopped:
        print(file=sys.stderr)  # after the progress bar
        print_error(experiment.stopping())
        status = 128 + signals.first
    experiment.end_all()
    return status


class _Run:
    """One experiment and the processes that belong to it."""

    def __init__(self):
        self.id: str | None = None
        mark = secrets.token_hex(8)
        self._mark, self._children = mark, []
        # A proxy for the world outside is none for NNI's parts among themselves.
        local = ','.join(
            filter(None, (os.environ.get('no_proxy') or os.environ.get('NO_PROXY'), 'localhost,127.0.0.1'))
        )
        self._environment = {**os.environ, MARK: mark, 'no_proxy': local, 'NO_PROXY': local}
        # NNI's web server listens on all interfaces and asks nobody who they are: the prefix is the only lock it has.
        self._prefix = secrets.token_hex(8)

    def whole(self, file: str, resumed: str | None) -> int:
        """Check, start, wait, report; the exit status.

        Raises:
            ValueError: the machine cannot run it, or NNI does not start.
        """
        if not (file or resumed):
            raise ValueError("'' is the name of no file")
        wanted = _wanted_port()
        _check_machine()
        if (python := _plain_python()) != sys.executable:
            again = ['--resume', resumed] if resumed else [file]
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            os.execv(python, [python, '-m', 'trials.run_experiment', *again])
        if resumed is None:
            checked = self._python('-m', 'trials', 'check', file).wait()
            if checked:
                return checked
        elif not re.fullmatch(r'\w+', resumed, re.ASCII):
            raise ValueError(f'resume: {resumed!r} is no id of an experiment; nnictl experiment list --all shows them')
        port = self._start(file, resumed, wanted)
        print(f'Experiment {self.id}; its web UI: http://127.0.0.1:{port}/{self._prefix}/', flush=True)
        status = self._python('-m', 'analysis', 'table', self.id, '--wait').wait()
        # Of an experiment that did not end well, too.
        reported = self._python('-m', 'analysis', 'report', self.id, '--out', f'report-{self.id}').wait()
        nnictl = shlex.quote(str(Path(sys.executable).with_name('nnictl')))
        print(f'Its web UI again: {nnictl} view {self.id} --port {port}   (without the prefix: see docs/security.md)')
        return status or reported

    def stopping(self) -> str:
        if self.id is None:
            return 'Stopping; no experiment had started'
        return (
            f'Stopping experiment {self.id}; to go on: bash run.sh resume {self.id}   (as it was configured: a change '
            'of its file has no effect)'
        )

    def _start(self, file: str, resumed: str | None, wanted: int | None) -> int:
        for attempt in range(1, STARTS + 1):
            port = wanted if wanted is not None else _free_port()
            if resumed is None:
                nnictl = str(Path(sys.executable).with_name('nnictl'))
                command = (nnictl, 'create', '--config', file, '--port', str(port), '--url_prefix', self._prefix)
            else:
                command = ('-c', _RESUME, resumed, str(port), self._prefix)
            status, output = self._output_of(*command)
            created = re.search(r'nnictl stop (\w+)"', output)
            if status == 0 and (created or resumed):
                self.id = resumed or created[1]
                return port
            reason = _why(output)
            self.end_all()
            if 'Create experiment failed' not in output or attempt == STARTS:
                break
            print_error(f'NNI did not start: {reason}; once more ({attempt + 1} of {STARTS})')
        times = f' in {attempt} tries' if attempt > 1 else ''
        raise ValueError(f'NNI did not start{times}: {reason}')

    def _python(self, *arguments: str, **options) -> subprocess.Popen:
        # In a session of its own: Ctrl-C at the terminal is for this process alone, which ends the others in order.
        child = subprocess.Popen([sys.executable, *arguments], env=self._environment, start_new_session=True, **options)
        self._children.append(child)
        return child

    def _output_of(self, *arguments: str) -> tuple[int, str]:
        """Status and output of ``python ARGUMENTS``. A file, not a pipe: NNI's manager inherits it, and lives on."""
        with tempfile.TemporaryFile() as kept:
            status = self._python(*arguments, stdout=kept, stderr=subprocess.STDOUT).wait()
            kept.seek(0)
            return status, re.sub(r'\x1b\[[0-9;]*m', '', kept.read().decode('utf-8', 'replace'))

    def end_all(self) -> None:
        """End every process of this run: NNI's manager first, which ends the trials, then what is left."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        managers = []
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                if process.name() == 'node':
                    process.terminate()
                    managers.append(process)
        until = time.monotonic() + STOP_SECONDS
        while (left := self._processes()) and managers and time.monotonic() < until:
            psutil.wait_procs(left, timeout=0.5)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _why(output: str) -> str:
    """Of what ``nnictl create`` prints, up to 70 lines, the one that says why it failed; and where its log is."""
    told = re.search(r'failed: 500 (?:Error: )?(.*)', output) or re.search(r'Create experiment failed: (.*)', output)
    if 'Connection refused' in output:
        reason = 'its web server did not answer within some seconds'
    elif told:
        reason = told[1]
    else:
        reason = (output.strip().splitlines() or ['it says nothing'])[-1].removeprefix('ValueError: ')
    started = re.search(r'Experiment ID: (\w+)', output)
    return f'{reason} (its log: {Path.home() / "nni-experiments" / started[1] / "log"})' if started else reason


def _wanted_port() -> int | None:
    """What ``PORT`` names; None where it names none.

    Raises:
        ValueError: it is no port, or not free.
    """
    text = os.environ.get('PORT', '')
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= 65534):
        raise ValueError(f'PORT must be a whole number from 1 to 65534, not {text[:50]!r}')
    if not _is_free(int(text)):
        raise ValueError(f'port {text} is in use: name another with PORT=, or none, and a free one is taken')
    return int(text)


def _free_port() -> int:
    """The first that is free from :data:`FIRST_PORT` on; several machines are told of the one after it, too."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(port) and _is_free(port + 1):
            return port
    raise ValueError(f'no port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free: name one with PORT=')


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(('', port))
        except OSError:
            return False
        return True


def _check_machine() -> None:
    """Raises ValueError for what NNI would find missing only when it runs, or stops."""
    for program in ('kill', 'ps'):
        if shutil.which(program) is None:
            raise ValueError(
                f'the program {program} is missing, and NNI cannot stop its trials without it: install procps'
            )
    check_home()


def _plain_python() -> str:
    """This interpreter by a path that a shell takes as it is: NNI starts the tuner through one, without quotes."""
    if shlex.quote(sys.executable) == sys.executable:
        return sys.executable
    name = hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]
    for folder in (
        Path.home() / '.cache' / 'autonl-nni' / 'environments',
        Path(tempfile.gettempdir()) / f'autonl-nni-{os.getuid()}',
    ):
        link = folder / name
        if shlex.quote(str(link)) != str(link):
            continue
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = folder.lstat()  # where everybody may write, the name may be somebody else's
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
                continue
            if not link.is_symlink() or link.readlink() != Path(sys.prefix):
                link.unlink(missing_ok=True)
                link.symlink_to(sys.prefix, target_is_directory=True)
            return str(link / 'bin' / Path(sys.executable).name)
    raise ValueError(f'NNI cannot be started from {sys.executable}: move the project to a folder without spaces')


if __name__ == '__main__':
    sys.exit(main())
