"""The rules for values that people bring: each is a test, and the words that say what would be right.

Files, recipes and arguments keep their rules in tables of these (key to rule), which checks and programs both read.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Container
from typing import Any, NamedTuple

__all__ = [
    'GRADIENT_NORM',
    'LEARNING_RATE',
    'MOST_RUNS',
    'MOST_THREADS',
    'MOST_TIMED',
    'NAME',
    'TEXT',
    'TRUTH',
    'Rule',
    'check_record',
    'number',
    'one_line',
    'one_of',
    'shown',
    'whole',
    'zero_or',
]


MOST_THREADS = 1024
"""CPU threads of a process: more than machines have, and PyTorch may end in a segmentation fault at a million."""


MOST_TIMED, MOST_RUNS = 4096, 10_000
"""Of what is timed: images at a time, which at 224 pixels are 2.5 GB, and runs."""


class Rule(NamedTuple):
    """What a value may be.

    Attributes:
        valid: is it?
        what: the words after "must be": what would be right.
    """

    valid: Callable[[Any], bool]
    what: str

    def problem(self, name: str, value: Any) -> str:
        """One line that says what is wrong with the ``value`` of ``name``; empty where nothing is."""
        return '' if self.valid(value) else f'{name} must be {self.what}, not {shown(value)}'

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError with :meth:`problem`, if there is one."""
        if problem := self.problem(name, value):
            raise ValueError(problem)


def check_record(record: Any, rules: dict[str, Rule], where: str, optional: Container[str] = ()) -> None:
    """Raises ValueError where ``record`` is not a mapping of the keys of ``rules``, each by its rule.

    The message is one line that begins with ``where``. Keys that are ``optional`` may be missing.
    """
    if not isinstance(record, dict):
        raise ValueError(f'{where} must be a mapping with the keys {", ".join(rules)}, not {shown(record)}')
    for key, value in record.items():
        if key not in rules:
            raise ValueError(f'{where}: unknown key {shown(key)}; known: {", ".join(rules)}')
        rules[key].check(f'{where}: {key}', value)
    for key, rule in rules.items():
        if key not in record and key not in optional:
            raise ValueError(f'{where}: {key} is missing; it takes {rule.what}')


def whole(least: int, most: int | None = None, of: str = '') -> Rule:
    """A whole number from ``least`` to ``most``, both included; ``of`` says of what, such as `` of pixels``."""
    bounds = f' of at least {least:,}' if most is None else f' from {least:,} to {most:,}'
    most = math.inf if most is None else most

    def valid(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Rule(valid, f'a whole number{of}{bounds}')


def number(
    least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, below: float = math.inf, of: str = ''
) -> Rule:
    """A finite number from ``least`` to ``most`` (both included), or ``above`` and ``below`` (neither)."""
    low, high = max(least, above), min(most, below)
    opening, closing = '(' if above >= least else '[', ')' if below <= most else ']'
    if high == math.inf:
        bounds = '' if low == -math.inf else f' above {low:g}' if opening == '(' else f' of at least {low:g}'
    else:
        bounds = (
            f' from {low:,.12g} to {high:,.12g}'
            if opening + closing == '[]'
            else f' in {opening}{low:g}, {high:g}{closing}'
        )

    def valid(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not -sys.float_info.max <= value <= sys.float_info.max:  # NaN, or a whole number of 400 digits
            return False
        return least <= value <= most and above < value < below

    return Rule(valid, f'a number{of}{bounds}')


def zero_or(rule: Rule) -> Rule:
    """0, which is none, or what ``rule`` says."""
    return Rule(lambda value: number(0, 0).valid(value) or rule.valid(value), f'0 or {rule.what}')


def one_of(*names: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: isinstance(value, str) and value in names, f'one of {", ".join(names)}')


TRUTH = Rule(lambda value: isinstance(value, bool), 'true or false')

TEXT = Rule(lambda value: isinstance(value, str) and value != '', 'a text that is not empty')

NAME = Rule(
    lambda value: TEXT.valid(value) and value.isprintable() and len(value) <= 100,
    'a name of at most 100 printable characters',
)


LEARNING_RATE = number(1e-12, 1000)
"""A step of less changes no weight in single precision; at more no optimizer is known to learn."""

GRADIENT_NORM = number(1e-6, 1e6)
"""The largest that a gradient may have: clipped to less it is lost in single precision, and more clips nothing."""


class _Shown(reprlib.Repr):
    """Short, however large or deep a value is."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 100, 100, 60
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 6

    def repr_int(self, value, level):
        # Python makes no text of numbers with more than 4,300 digits.
        return f'a number of {value.bit_length()} bits' if value.bit_length() > 200 else super().repr_int(value, level)


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and cut where it is long."""
    return _Shown().repr(value)


def one_line(text: Any, most: int = 2000) -> str:
    """``text`` in one line of printable characters, for a terminal or a log; what is over ``most`` of them is cut.

    A name from a file may hold line ends, terminal codes or what cannot be encoded; these are shown as escapes.
    """
    text = str(text)
    cut = ' '.join(text[: 2 * most].split())
    cut = ''.join(c if c.isprintable() else c.encode('unicode_escape', 'surrogatepass').decode() for c in cut)
    return cut if len(cut) <= most and len(text) <= 2 * most else f'{cut[:most]}... ({len(text):,} characters)'
