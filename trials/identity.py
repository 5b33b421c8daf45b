"""What tells one trial from another: its parameters, and what is in the files that they name.

A trial's checkpoint, and its result where NNI starts it again, are those of the same trial only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_space.skeleton import Skeleton
from search_space.skeleton_file import load_skeleton
from strategies.experiment.requests import key

from .trial_folder import RECORD, SKELETON, WEIGHTS

__all__ = ['contents', 'identity', 'skeleton_content']


def contents(parameters: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of what is in the files that ``parameters`` name, by the parameter.

    Of a skeleton it is what the file says, whatever its spaces and comments are; of a trial's folder its network and
    its record; of any other file its bytes. Folders of a data set are left out.

    Raises:
        ValueError: the skeleton is not a valid one.
    """
    found = {}
    for name, value in parameters.items():
        if name == 'skeleton':
            found[name] = skeleton_content(load_skeleton(value))
        elif digests := [_digest(file) for file in _files(value)]:
            found[name] = digests[0] if len(digests) == 1 else _sha256(''.join(digests).encode())
    return found


def skeleton_content(skeleton: Skeleton) -> str:
    """SHA-256 of a skeleton's table; a key at its default is as one that is not there."""

    def stated(part: Any) -> dict[str, Any]:
        values = {field.name: (getattr(part, field.name), field.default) for field in dataclasses.fields(part)}
        return {name: value for name, (value, default) in values.items() if value != default}

    table = stated(skeleton) | {'rows': [stated(row) for row in skeleton.rows]}
    return _sha256(json.dumps(table, sort_keys=True).encode())


def identity(parameters: dict[str, Any]) -> str:
    """The same 64 characters for the same trial, whatever the order of its parameters, and for no other.

    Raises:
        ValueError: as :func:`contents`.
    """
    return _sha256(json.dumps([key(parameters), contents(parameters)], sort_keys=True).encode())


def _files(value: Any) -> Iterator[Path]:
    """The files that a parameter names."""
    if isinstance(value, list):
        for item in value:
            yield from _files(item)
    elif isinstance(value, str) and value:
        path = os.path.expanduser(value)
        own = (os.path.join(path, name) for name in (WEIGHTS, RECORD, SKELETON))
        yield from (Path(file) for file in (path, *own) if os.path.isfile(file))


def _digest(file: Path) -> str:
    with file.open('rb') as opened:
        return hashlib.file_digest(opened, 'sha256').hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
