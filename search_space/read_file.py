"""Reads a file that somebody brings: a regular one, of a size that a file of its kind may have, as text or JSON."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from .rules import one_line, shown

__all__ = ['parse_json', 'read_bytes', 'read_json', 'read_text']

LARGEST_TEXT = 2**17
"""Bytes of YAML: what is shipped has a tenth of it, and PyYAML reads some 50 kB a second."""

LARGEST_JSON = 2**26
"""Bytes of JSON: the latency table of the largest space that is allowed has a quarter of it."""


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        ValueError: it is no such file, or cannot be read; the message is one line that begins with the path.
    """
    try:
        # A pipe without a writer would keep open() waiting, and /dev/zero never ends.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, 'O_CLOEXEC', 0))
        with open(descriptor, 'rb') as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f'{path}: a device, a pipe or a folder, not a regular file')
            content = file.read(min(most, os.fstat(descriptor).st_size) + 1)
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None
    except ValueError as error:
        raise ValueError(f'{one_line(path)}: {error}' if 'null' in str(error) else str(error)) from None
    if len(content) > most:
        raise ValueError(f'{path}: more than the {most:,} bytes that such a file may have')
    return content


def read_text(path: str | Path, most: int = LARGEST_TEXT) -> str:
    """The text of a regular file, UTF-8.

    Raises:
        ValueError: as :func:`read_bytes`, or it is not text.
    """
    try:
        return read_bytes(path, most).decode('utf-8-sig')
    except UnicodeDecodeError:
        raise ValueError(f'{path}: not a text file') from None


def read_json(path: str | Path, most: int = LARGEST_JSON) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: as :func:`read_text`, or as :func:`parse_json`.
    """
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, is nested too deeply or has a key twice; the message begins with ``where``.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as error:
        raise ValueError(f'{where}, line {error.lineno}: not JSON ({error.msg})') from None
    except RecursionError:
        raise ValueError(f'{where}: not JSON that can be read: nested too deeply') from None
    except ValueError as error:  # a number of 5,000 digits, bytes that are no text, a key twice
        raise ValueError(f'{where}: not JSON that can be read: {one_line(error, 200)}') from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key {shown(next(key for key in keys if keys.count(key) > 1))} twice')
    return content
