"""Reads YAML files, the package's and its users': a mapping, or one clear line of what is wrong with the file."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .read_file import read_text
from .rules import one_line, shown

__all__ = ['find_yaml', 'read_mapping', 'shipped']

MOST_DEEP = 100
"""Lists and mappings within each other in braces: PyYAML's time for them grows with the square."""

MOST_BITS = 1024
"""Bits of a whole number: a longer one is no number that anything here counts."""

MOST_NODES = 100_000
"""Values of a file once its aliases are written out: a file without aliases has fewer by its size alone."""


class _Loader(yaml.SafeLoader):
    """``yaml.safe_load``'s loader, which lets no key that is there twice pass: the later one would win, unsaid."""

    def fetch_flow_collection_start(self, TokenClass):
        if self.flow_level >= MOST_DEEP:
            raise yaml.scanner.ScannerError(problem='nested too deeply', problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def get_single_data(self):
        node = self.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        return self.construct_document(node)

    def construct_object(self, node, deep=False):
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, IndexError, OverflowError, TypeError):
            # PyYAML lets errors of Python through where a text is not of the type that its tag names.
            raise _problem(f'no value of the type {node.tag.rpartition(":")[2]}', node) from None
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise _problem(shown(value), node)
        return value

    def construct_mapping(self, node, deep=False):
        merge = 'tag:yaml.org,2002:merge'
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [self.construct_object(key, deep=True) for key, _ in pairs if key.tag != merge]
        seen = set()
        for key in keys:
            if key.__hash__ is None:
                raise _problem(f'the key {shown(key)}, which is not a word', node)
            if key in seen:
                raise _problem(f'the key {shown(key)} twice', node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _problem(text: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=text, problem_mark=node.start_mark)


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many nodes ``node`` is, with each alias written out; ``sizes`` are those that are known, 0 while counting."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _problem('an alias within what it stands for', node)
        return sizes[id(node)]
    sizes[id(node)] = 0
    count = 1
    if not isinstance(node, yaml.ScalarNode):
        for child in node.value:
            children = child if isinstance(node, yaml.MappingNode) else (child,)
            count += sum(_check_size(part, sizes) for part in children)
    if count > MOST_NODES:
        raise _problem(f'more than {MOST_NODES:,} values, aliases written out', node)
    sizes[id(node)] = count
    return count


def shipped(folder: str) -> list[str]:
    """Names of the YAML files in one of the package's folders."""
    files = (resources.files(__package__) / folder).iterdir()
    return sorted(file.name.removesuffix('.yaml') for file in files if file.name.endswith('.yaml'))


def find_yaml(name_or_path: str | Path, folder: str) -> tuple[str, str] | None:
    """The text of a shipped file by its name, or of a user's by its path, and what to call it; None if it is neither.

    Raises:
        ValueError: what is there cannot be read, or is not a regular file of text.
    """
    name = str(name_or_path)
    if name in shipped(folder):
        return (resources.files(__package__) / folder / f'{name}.yaml').read_text('utf-8'), name
    if not os.path.lexists(name) or os.path.isdir(name):
        return None
    return read_text(name), name


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
        raise ValueError(f'{where}{at}: not valid YAML ({one_line(problem, 200)})') from None
    except RecursionError:
        raise ValueError(f'{where}: not valid YAML (nested too deeply)') from None
    if not isinstance(data, dict):
        raise ValueError(f'{where}: {what}, not {"an empty file" if data is None else shown(data)}')
    return data
