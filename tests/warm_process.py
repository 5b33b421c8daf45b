"""Programs in a process of their own that has PyTorch, NNI and Lightning imported, as these take seconds to.

What a program starts without them, that it starts at all, and what is read of the environment while they are imported
is tested elsewhere: with a fresh interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).parents[1]

processes = multiprocessing.get_context('forkserver')
"""Whose processes are forked from one that has imported everything."""

processes.set_forkserver_preload(
    [
        'trials.__main__',
        'trials.run',
        'strategies.autonl.strategy',
        'strategies.experiment.comparison',
        'analysis.__main__',
        'analysis.report',
        'torch.utils.tensorboard',
    ]
)


class Program:
    """``python COMMAND``, started: a file, or ``-m`` and a module, or ``-c`` and a program's text; and its arguments.

    Args:
        command: the words after ``python``.
        cwd: the folder it runs in.
        environment: all of it; by default that of this process.
    """

    def __init__(self, *command: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None):
        self._command, self._said = command, tempfile.TemporaryDirectory()
        environment = dict(os.environ if environment is None else environment)
        arguments = ([str(word) for word in command], cwd, environment, Path(self._said.name))
        self._process = processes.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    def end(self, timeout: float = 600) -> CompletedProcess[str]:
        """Wait for it, and what it left.

        Raises:
            TimeoutError: it has not ended in ``timeout`` seconds; it is killed.
        """
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self.kill()
        out, err = (Path(self._said.name, name).read_text() for name in ('out', 'err'))
        self._said.cleanup()
        if late:
            raise TimeoutError(f'{self._command} did not end in {timeout} s: {err}')
        return CompletedProcess(self._command, self._process.exitcode, out, err)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.join()


def run_program(*command: object, timeout: float = 600, **where) -> CompletedProcess[str]:
    """A :class:`Program`, to its end."""
    return Program(*command, **where).end(timeout)


def _run(command: list[str], cwd: Path, environment: dict[str, str], said: Path) -> None:
    for descriptor, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if command[0] == '-c':
        command[0] = str(said / 'program.py')
        Path(command[0]).write_text(command.pop(1))
    status = 0
    try:
        if command[0] == '-m':
            sys.argv = ['', *command[2:]]
            for name in (command[1], f'{command[1]}.__main__'):  # it is run anew, though it was imported
                if not hasattr(sys.modules.get(name), '__path__'):
                    sys.modules.pop(name, None)
            runpy.run_module(command[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).resolve().parent))  # as Python does
            runpy.run_path(command[0], run_name='__main__')
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.exit(status)
