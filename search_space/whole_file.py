"""Files that are there whole or not at all, whatever ends the program that writes them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ['write_whole']


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` through a file beside it, which takes its place once it is complete.

    Raises:
        OSError: the file cannot be written; what was at ``path`` is as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder')
    beside = path.with_name(f'.{path.name}.{os.getpid()}')
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
