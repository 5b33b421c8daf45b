"""CPU seconds of a trial's start: ``python benchmarks/speed/trial_start.py``.

A trial has to import PyTorch, Lightning and NNI before its first step. Here fresh interpreters do so, one after the
other in each round: a part of it, all of it, and all of it with Python's garbage collection left on.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.speed.paired import paired  # noqa: E402
from search_space.entry_point import Parser, whole_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.rules import whole  # noqa: E402

WITHOUT_COLLECTION = 'from search_space.slow_imports import slow_imports\nwith slow_imports():\n    import '
PROGRAMS = {
    'PyTorch': WITHOUT_COLLECTION + 'torch',
    'and Lightning': WITHOUT_COLLECTION + 'pytorch_lightning',
    'all of a trial': WITHOUT_COLLECTION + 'trials.run',
    'all, garbage collected': 'import trials.run',
    'the help': 'import trials.__main__ as main\nmain.parser().format_help()',
}


def cpu_seconds(program: str) -> float:
    """Of a fresh interpreter that runs ``program``."""
    before = os.times()
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = Parser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rounds', type=whole_argument(whole(1, 1000)), default=10, help='of each (default: 10)')
    rounds = parser.parse_args().rounds
    seconds = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            seconds[name].append(cpu_seconds(program))
    for name, values in seconds.items():
        print(f'{name:24}{statistics.median(values):6.2f} s')
    ratio, low, high = paired(seconds['all, garbage collected'], seconds['all of a trial'])
    print(f'garbage collected / not {ratio:6.2f} [{low:.2f}, {high:.2f}]')


if __name__ == '__main__':
    sys.exit(run_command('trial_start.py', main))
