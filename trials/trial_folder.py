"""What the files that a trial leaves in its folder are called, and what is in its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from search_space.read_file import read_json

__all__ = ['FAILURE', 'RECORD', 'SKELETON', 'WEIGHTS', 'Record', 'read_record']

RECORD = 'trial.json'
"""Of a trial that has ended: :class:`Record`."""

WEIGHTS = 'network.pt'
"""The ``state_dict`` of the network that it trained or found."""

SKELETON = 'skeleton.yaml'
"""The skeleton of the network, where the folder holds it itself."""

FAILURE = 'failure.json'
"""Why a trial failed: ``type`` of the error, and ``error``, one line."""


class Record(NamedTuple):
    """What ``trial.json`` holds.

    Attributes:
        parameters: of the trial, flat, as NNI gave them.
        result: that it reported.
        files: SHA-256 of what was in the files that the parameters name, by the parameter
            (:func:`trials.identity.contents`); empty where it does not say.
    """

    parameters: dict[str, Any]
    result: dict[str, Any]
    files: dict[str, str]


def read_record(file: Path) -> Record:
    """The record of a trial.

    Raises:
        ValueError: there is none, or it is not what a trial leaves; one line that begins with the file.
    """
    content = read_json(file)
    fields = [content.get(name, {}) for name in Record._fields] if isinstance(content, dict) else []
    if not fields or not {'parameters', 'result'} <= content.keys():
        raise ValueError(f'{file}: not what a trial leaves, JSON with the keys parameters and result')
    if not all(isinstance(field, dict) for field in fields):
        raise ValueError(f'{file}: {", ".join(Record._fields)} must be JSON objects')
    return Record(*fields)
