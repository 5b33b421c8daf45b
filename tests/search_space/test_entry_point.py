"""How a command ends: one line, the exit status of its kind, and a traceback in a file only where nobody foresaw it."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from search_space import entry_point

ENDS = {
    'as it should': (lambda: None, 0, ''),
    'with a status of its own': (lambda: 3, 3, ''),
    'wrong input': (ValueError('rows: no such row\nat all'), 2, 'program: rows: no such row at all'),
    'no such file': (FileNotFoundError(errno.ENOENT, 'No such file', 'a.yaml'), 2, 'program: a.yaml: No such file'),
    'a full disk': (OSError('x cannot be written: the disk is full'), 1, 'program: x cannot be written: .+'),
    'a number that is none': (FloatingPointError('the loss is NaN'), 1, 'program: the loss is NaN'),
    'no memory': (MemoryError(), 1, 'program: there is not enough memory'),
    'interrupted': (KeyboardInterrupt(), 130, 'program: interrupted'),
    'a name with terminal codes': (ValueError('strategy \x1b[31mred\x07'), 2, r'program: strategy \\x1b\[31mred\\x07'),
    'a text that cannot be encoded': (ValueError('file \udcff'), 2, r'program: file \\udcff'),
    'a message without end': (ValueError('x' * 10**6), 2, r'program: x+\.\.\. \(1,000,009 characters\)'),
    'what nobody foresaw': (KeyError('row'), 70, r"program: KeyError: 'row'; please report it, with .+"),
}


@pytest.mark.parametrize(('end', 'status', 'line'), ENDS.values(), ids=ENDS)
def test_a_command_ends_in_at_most_one_line(end, status, line, capsys, tmp_path):
    def command():
        if isinstance(end, BaseException):
            raise end
        return end()

    assert entry_point.run('program', command, tmp_path) == status
    out, err = capsys.readouterr()
    assert out == ''
    assert re.fullmatch(f'{line}\n' if line else '', err), err[:3000]


@pytest.mark.parametrize('folder', [None, 'new/folder', '/proc/none'])
def test_the_traceback_of_what_nobody_foresaw_is_in_the_file_that_the_line_names(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert entry_point.run('program', lambda: {}['row'], folder and Path(folder)) == entry_point.UNFORESEEN
    file = Path(capsys.readouterr().err.strip().rpartition('with ')[2])
    assert "lambda: {}['row']" in file.read_text()
    assert (file.parent == Path(folder or '').absolute()) == (folder == 'new/folder') or file.parent == Path(folder)
    file.unlink()


def test_a_page_that_the_terminal_cannot_show_is_shown_as_it_can_be():
    environment = {'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': str(Path(__file__).parents[2])}
    command = [sys.executable, '-m', 'search_space', 'describe', 'autonl-s']
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, '')
    assert r'224\xd7224' in ended.stdout
