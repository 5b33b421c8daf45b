"""Where files may be written, and that they are there whole or not at all."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from search_space.whole_file import check_folder, check_writable, write_whole


def circle(folder):
    (folder / 'a').symlink_to('b')
    (folder / 'b').symlink_to('a')
    return folder / 'a'


def pipe(folder):
    os.mkfifo(folder / 'pipe')
    return folder / 'pipe'


NO_FILES = {
    'nothing': (lambda folder: '', 'the name of no file'),
    'a folder': (lambda folder: folder, 'is a folder, not a file'),
    'a device': (lambda folder: '/dev/null', 'a device, a pipe or a socket'),
    'a full device': (lambda folder: '/dev/full', 'a device, a pipe or a socket'),
    'a pipe': (pipe, 'a device, a pipe or a socket'),
    'a link to a device': (lambda folder: (folder / 'x').symlink_to('/dev/null') or folder / 'x', 'a device'),
    'links in a circle': (circle, 'cannot be written'),
    'in no folder': (lambda folder: folder / 'nowhere' / 'x', 'there is no folder'),
    'in a file': (lambda folder: Path(__file__, 'x'), 'there is no folder'),
    'in /proc': (lambda folder: '/proc/x', 'cannot be written'),
    'with a NUL': (lambda folder: 'a\0b', 'a NUL'),
    'with too long a name': (lambda folder: folder / ('x' * 300), 'cannot be written'),
}


@pytest.mark.parametrize('case', NO_FILES)
@pytest.mark.parametrize('act', [check_writable, lambda path: write_whole(path, b'new')], ids=['check', 'write'])
def test_what_is_no_regular_file_in_a_place_that_takes_one_is_refused_and_left_alone(case, act, tmp_path):
    make, message = NO_FILES[case]
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir()), os.lstat('/dev/null').st_mode, os.lstat('/dev/full').st_mode
    with pytest.raises(OSError, match=message):
        act(path)
    assert (sorted(tmp_path.iterdir()), os.lstat('/dev/null').st_mode, os.lstat('/dev/full').st_mode) == before


NO_FOLDERS = {
    'nothing': (lambda folder: '', 'the name of no file and no folder'),
    'a file': (lambda folder: Path(__file__), 'cannot be a folder'),
    'below a file': (lambda folder: Path(__file__, 'x', 'y'), 'cannot be a folder'),
    'a device': (lambda folder: '/dev/full', 'cannot be a folder'),
    'in /proc': (lambda folder: '/proc/x', 'cannot be written'),
    'links in a circle': (circle, 'cannot be'),
}


@pytest.mark.parametrize('case', NO_FOLDERS)
def test_what_can_be_no_folder_of_files_is_refused(case, tmp_path):
    make, message = NO_FOLDERS[case]
    with pytest.raises(OSError, match=message):
        check_folder(make(tmp_path))


@pytest.mark.parametrize('name', ['.', 'new', 'new/newer'])
def test_a_folder_that_can_be_is_not_made_by_asking(name, tmp_path):
    check_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_permissions_stay(tmp_path):
    (tmp_path / 'file').write_text('old')
    (tmp_path / 'file').chmod(0o640)
    (tmp_path / 'link').symlink_to('file')
    write_whole(tmp_path / 'link', b'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'file').read_text() == 'new'
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_does_not_fit_leaves_the_one_that_was_there(tmp_path):
    """By the limit on a file's size, the one full disk that a test can have anywhere."""
    (tmp_path / 'file').write_text('old')
    code = 'import sys; from search_space.whole_file import write_whole; write_whole(sys.argv[1], bytes(100_000))'
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'file')],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f'{tmp_path}/file cannot be written: File too large' in done.stderr
    assert (tmp_path / 'file').read_text() == 'old'
    assert len(list(tmp_path.iterdir())) == 1
