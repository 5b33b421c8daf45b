"""Files that are there whole or not at all, whatever ends the program that writes them; and where they may be written.

One rule for every output of a command, asked before anything is computed: a regular file or a folder, links followed,
in a place that takes a new file.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

__all__ = ['check_folder', 'check_writable', 'write_whole']


def check_writable(path: str | Path) -> Path:
    """Says now that :func:`write_whole` could not write ``path``, where making its content takes long.

    Returns:
        The file that would be written: ``path`` with links followed.

    Raises:
        OSError: it is no regular file, there is no such folder, or nothing can be written to it.
    """
    target, _ = _file(path)
    _try_folder(path, target.parent)
    return target


def check_folder(path: str | Path) -> Path:
    """Says now that files could not be written to the folder ``path``, which need not be there yet. Makes nothing.

    Returns:
        ``path`` with links followed.

    Raises:
        OSError: something else is there, or it cannot be made, or nothing can be written to it.
    """
    target = _target(path)
    there = next(folder for folder in (target, *target.parents) if _mode(folder) is not None)
    if not there.is_dir():
        raise NotADirectoryError(f'{path} cannot be a folder: {there} is none')
    _try_folder(path, there)
    return target


def _file(path: str | Path) -> tuple[Path, int | None]:
    """The file that ``path`` stands for, and its mode if it is there."""
    target = _target(path)
    mode = _mode(target)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f'{path} is a folder, not a file')
    if mode is not None and not stat.S_ISREG(mode):
        raise FileExistsError(f'{path} cannot be written: it is a device, a pipe or a socket, not a file')
    if not target.parent.is_dir():
        folder = target.parent if Path(path).is_symlink() else Path(path).parent
        raise FileNotFoundError(f'{path} cannot be written: there is no folder {folder}')
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(f'{path} cannot be written: it is read-only')
    return target, mode


def _target(path: str | Path) -> Path:
    if not os.fspath(path):
        raise FileNotFoundError("'' is the name of no file and no folder")
    if '\0' in os.fspath(path):
        raise FileNotFoundError(f'{os.fspath(path)!r} is the name of no file: it has a NUL in it')
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):  # RuntimeError: how Python before 3.13 says that links go round in a circle
        raise FileNotFoundError(f'{path} cannot be written: its links lead nowhere') from None


def _mode(path: Path) -> int | None:
    """What is at ``path``; None where nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OSError(f'{path} cannot be written: {error.strerror}') from None


def _try_folder(path: str | Path, folder: Path) -> None:
    """Really makes a file in ``folder``: what permissions say is not all, as of root, of ``/proc``, of a full disk."""
    trial = folder / f'.{secrets.token_hex(8)}'
    try:
        with trial.open('xb') as file:
            file.write(b'x')
            file.flush()
    except OSError as error:
        raise type(error)(f'{path} cannot be written: {error.strerror}') from None
    finally:
        _remove(trial)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:  # it was never made, in a folder that takes none
        return


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` through a file beside it, which takes its place once it is complete.

    A link is followed, and a file that was there keeps its permissions.

    Raises:
        OSError: as :func:`check_writable`, or the disk is full; what was at ``path`` is as it was.
    """
    target, mode = _file(path)
    beside = target.with_name(f'.{target.name}.{secrets.token_hex(8)}')  # not the process id: containers share a few
    try:
        with beside.open('xb') as file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise OSError(f'{path} cannot be written: {error.strerror}') from None
    finally:
        _remove(beside)
