"""Programs in a process of their own that has PyTorch, NNI and Lightning imported, as these take seconds to.

What a program starts without them, and that it starts at all, is tested elsewhere: with a fresh interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).parents[1]

_processes = multiprocessing.get_context('forkserver')
_processes.set_forkserver_preload(
    [
        'trials.__main__',
        'trials.run',
        'strategies.autonl.strategy',
        'strategies.experiment.comparison',
        'analysis.__main__',
        'torch.utils.tensorboard',
    ]
)


def run_program(*command: str, cwd: Path = ROOT, timeout: float = 600) -> CompletedProcess[str]:
    """``python COMMAND``, to its end: a file and its arguments, or ``-m``, a module and its arguments.

    Raises:
        TimeoutError: it has not ended in ``timeout`` seconds; it is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, 'out'), Path(folder, 'err')
        process = _processes.Process(target=_run, args=([str(word) for word in command], cwd, out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f'{command} did not end in {timeout} s: {err.read_text()}')
        return CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


def _run(command: list[str], cwd: Path, out: Path, err: Path) -> None:
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.chdir(cwd)
    status = 0
    try:
        if command[0] == '-m':
            sys.argv = ['', *command[2:]]
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
