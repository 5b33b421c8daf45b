"""Files that are there whole or not at all, whatever ends the program that writes them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ['check_writable', 'write_whole']


def check_writable(path: str | Path) -> None:
    """Says now that :func:`write_whole` could not write ``path``, where making its content takes long.

    Raises:
        OSError: there is no such folder, or nothing can be written to it.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder, not a file')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path} cannot be written: there is no folder {path.parent}')
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f'{path} cannot be written: no permission to write to {path.parent}')


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` through a file beside it, which takes its place once it is complete.

    Raises:
        OSError: as :func:`check_writable`, or the disk is full; what was at ``path`` is as it was.
    """
    check_writable(path)
    path = Path(path)
    beside = path.with_name(f'.{path.name}.{secrets.token_hex(8)}')  # not the process id: containers share a few
    try:
        with beside.open('xb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(f'{path} cannot be written: {error.strerror}') from None
    finally:
        beside.unlink(missing_ok=True)
