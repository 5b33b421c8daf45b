"""Every command asks first whether its output can be written: one line, nothing is made, and devices stay devices."""

import os
from pathlib import Path

import pytest

import analysis.__main__
import search_space.__main__
import trials.__main__

FILES = {
    'draw': (search_space.__main__.main, ['draw', 'unread', '--out']),
    'latency': (search_space.__main__.main, ['latency', 'cued', '--out']),
    'export': (trials.__main__.main, ['export', 'trained', '--format', 'torch', '--out']),
    'evaluate': (trials.__main__.main, ['evaluate', 'unread', '--per-class']),
    'confusion': (trials.__main__.main, ['evaluate', 'unread', '--confusion']),
    'plot': (analysis.__main__.main, ['plot', 'timeline', 'unread', '--out']),
}
FOLDERS = {
    'prepare': (trials.__main__.main, ['prepare', 'image-folder', '--folder', 'images', '--out']),
    'import': (trials.__main__.main, ['import', 'unread', '--network', 'autonl-s', '--out']),
    'run': (trials.__main__.main, ['run', '--parameters', 'unread', '--out']),
    'report': (analysis.__main__.main, ['report', 'unread', '--out']),
    'analysis export': (analysis.__main__.main, ['export', 'unread', '--out']),
}
NO_FILE = ['', '/dev/full', 'folder.svg', 'circle.svg', 'device.svg', 'nowhere/x.svg', '/proc/x.svg']
NO_FOLDER = ['', '/dev/full', 'file', 'circle.svg', 'device.svg', 'file/x', '/proc/x']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what is no file, and what is no folder."""
    monkeypatch.chdir(tmp_path)
    for name in ('folder.svg', 'images', 'trained'):
        (tmp_path / name).mkdir()
    for name in ('file', 'trained/network.pt', 'trained/trial.json'):
        (tmp_path / name).write_text('x')
    (tmp_path / 'circle.svg').symlink_to('circle.svg')
    (tmp_path / 'device.svg').symlink_to('/dev/full')
    return tmp_path


@pytest.mark.parametrize(
    ('command', 'out'), [(c, o) for c in FILES for o in NO_FILE] + [(c, o) for c in FOLDERS for o in NO_FOLDER]
)
def test_an_output_that_cannot_be_is_said_before_anything_is_read(command, out, folder, capsys):
    main, arguments = (FILES | FOLDERS)[command]
    before = sorted(folder.rglob('*'))
    try:
        status = main([*arguments, out])
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert status in (1, 2), line
    assert printed.out == ''
    assert (str(Path(out)) if out else "''") in line
    assert 'unread' not in line
    assert sorted(folder.rglob('*')) == before
    assert not os.path.isfile('/dev/full')


@pytest.mark.parametrize('path', ['', 'a\0b'])
@pytest.mark.parametrize(
    'arguments',
    [
        ['check'],
        ['run', '--parameters'],
        ['evaluate'],
        ['export', '--format', 'torch'],
        ['import', '--network', 'autonl-s', '--out', 'imported'],
        ['prepare', 'image-folder', '--out', 'copy', '--folder'],
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_no_name_of_this_folder(arguments, path, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        trials.__main__.main([*arguments, path])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f'{path!r} is the name of no file and no folder')
