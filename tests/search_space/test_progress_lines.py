"""How far a command is: a bar on a terminal, a line a minute elsewhere."""

import re
from pathlib import Path

import pytest

from search_space import progress as module
from search_space.progress import progress

ROOT = Path(__file__).parents[2]


class EachTakesASecond(list):
    """Things, and the clock that they take their time by."""

    now = 0

    def __iter__(self):
        for thing in super().__iter__():
            self.now += 1
            yield thing

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ('total', 'of'), [(None, ' of 150'), (1_000_000, ' of 1,000,000')], ids=['as many as there are', 'as was said']
)
def test_in_a_file_it_is_a_line_a_minute(total, of, monkeypatch, capsys):
    things = EachTakesASecond(range(150))
    monkeypatch.setattr(module, 'time', things)
    assert list(progress(things, 'images', total)) == list(range(150))
    said = capsys.readouterr()
    assert said.out == ''
    assert said.err == f'images: 59{of}\nimages: 119{of}\n'


def test_of_what_has_no_length_it_is_the_count_alone(monkeypatch, capsys):
    things = EachTakesASecond(range(70))
    monkeypatch.setattr(module, 'time', things)
    list(progress(iter(things), 'images'))
    assert capsys.readouterr().err == 'images: 59\n'


def test_no_command_draws_a_bar_by_another_way():
    users = set()
    for folder in ('search_space', 'strategies', 'trials', 'analysis', 'benchmarks'):
        for file in (ROOT / folder).rglob('*.py'):
            if re.search(r'\btqdm\(', file.read_text()):
                users.add(str(file.relative_to(ROOT)))
    assert users == {'search_space/progress.py', 'analysis/__main__.py'}  # the latter says its own line a minute
