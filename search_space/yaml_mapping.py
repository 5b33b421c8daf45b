"""Reads YAML files, the package's and its users': a mapping, or one clear line of what is wrong with the file."""

from __future__ import annotations

import os
import reprlib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

__all__ = ['find_yaml', 'read_mapping', 'shipped']


class _Loader(yaml.SafeLoader):
    """``yaml.safe_load``'s loader, which lets a key that is there twice pass: the later one would win, unsaid."""

    def construct_mapping(self, node, deep=False):
        merge = 'tag:yaml.org,2002:merge'
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(problem=f'the key {key!r} twice', problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def shipped(folder: str) -> list[str]:
    """Names of the YAML files in one of the package's folders."""
    files = (resources.files(__package__) / folder).iterdir()
    return sorted(file.name.removesuffix('.yaml') for file in files if file.name.endswith('.yaml'))


def find_yaml(name_or_path: str | Path, folder: str) -> tuple[str, str] | None:
    """The text of a shipped file by its name, or of a user's by its path, and what to call it; None if it is neither.

    Raises:
        ValueError: a file that is not text, or cannot be read.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in shipped(folder):
        return (resources.files(__package__) / folder / f'{name}.yaml').read_text('utf-8'), name
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        return None
    try:
        return path.read_text('utf-8'), name
    except UnicodeDecodeError:
        raise ValueError(f'{path}: not a text file') from None
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None


def read_mapping(text: str, where: str, what: str) -> dict[str, Any]:
    """The mapping that ``text`` is.

    Args:
        text: YAML.
        where: what errors call the file.
        what: what the file should hold, for the errors.

    Raises:
        ValueError: ``text`` is not YAML, or not a mapping.
    """
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        at = f', line {mark.line + 1}' if mark else ''
        problem = getattr(error, 'problem', None) or getattr(error, 'reason', None) or 'unreadable'
        raise ValueError(f'{where}{at}: not valid YAML ({problem})') from None
    if not isinstance(data, dict):
        shown = 'an empty file' if data is None else reprlib.repr(data)
        raise ValueError(f'{where}: {what}, not {shown}')
    return data
