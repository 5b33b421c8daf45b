"""Strategies of the user's own that do harm when they are imported or made: one line each, and the others go on."""

import time

import pytest
from nni.nas.strategy import Random

from search_space import load_skeleton, nni_search_space
from strategies.experiment import own_strategy
from strategies.experiment.comparison import Comparison

STARTS_A_PROCESS = """
import subprocess, sys, time
code = "import time, pathlib\\nwhile True: pathlib.Path({beat!r}).touch(); time.sleep(0.05)"
subprocess.Popen([sys.executable, '-c', code])
time.sleep(300)
"""

BAD = {
    'hangs': STARTS_A_PROCESS,
    'dies': 'import os; os._exit(0)',
    'interrupts': 'raise KeyboardInterrupt',
    'hangs_when_made': '        import time; time.sleep(300)',
}
FLOODS = 'import sys\nfor stream in (sys.stdout, sys.stderr): print("x" * 10**7, file=stream)\n'
CLASS = (
    'from nni.nas.strategy import Random\nclass Mine(Random):\n    def __init__(self):\n        super().__init__()\n'
)


@pytest.mark.slow
def test_a_strategy_that_does_harm_is_one_line_and_the_others_go_on(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setattr(own_strategy, 'LIMIT_SECONDS', 4.0)
    monkeypatch.syspath_prepend(tmp_path)
    beat = tmp_path / 'beat'
    for name, text in BAD.items():
        text = text.format(beat=str(beat))
        (tmp_path / f'{name}.py').write_text(CLASS + text if name == 'hangs_when_made' else text + '\n' + CLASS)
    (tmp_path / 'floods.py').write_text(FLOODS + CLASS)
    strategies = {name: {'class': f'{name}.Mine'} for name in (*BAD, 'floods')}
    strategies |= {'random': {'class': 'nni.nas.strategy.Random'}}
    space = nni_search_space(load_skeleton('cued').choices())
    comparison = Comparison('cued', strategies, 4, {'epochs': 2}, manager=lambda: None, search_space=space)
    assert list(comparison.strategies) == ['floods', 'random']
    assert all(isinstance(strategy, Random) for strategy in comparison.strategies.values())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(BAD)
    for name, line in zip(BAD, lines, strict=True):
        assert line.startswith(f'strategies.{name}: it ')
        assert line.endswith('; the others go on')
        assert ('within 4 seconds' in line) == name.startswith('hangs')
    # What a strategy has started is gone with it.
    assert beat.exists()
    beat.unlink()
    time.sleep(0.5)
    assert not beat.exists()


@pytest.mark.slow
def test_a_strategy_that_leaves_a_process_behind_is_made_all_the_same(tmp_path, monkeypatch):
    """One in a session of its own, which holds what the strategy was asked through."""
    monkeypatch.syspath_prepend(tmp_path)
    leaves = 'import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(40)\n    os._exit(0)\n'
    (tmp_path / 'leaves.py').write_text(leaves + CLASS)
    arguments = {
        'skeleton': 'cued',
        'budget': 4,
        'retrain': {'epochs': 2},
        'strategies': {'l': {'class': 'leaves.Mine'}},
    }
    own_strategy.try_strategy('l', arguments)
