"""How every command of the project ends: in one line for what is wrong, and an exit status that says of which kind.

| status | |
|---|---|
| 0 | done |
| 1 | it could not be done: the disk is full, a loss is not finite |
| 2 | what was given is wrong |
| 70 | something that nobody foresaw; the line names a file with the traceback |
| 130 | interrupted |
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from .rules import Rule, one_line, shown

__all__ = ['UNFORESEEN', 'Parser', 'path_argument', 'print_error', 'run', 'whole_argument']

UNFORESEEN = 70

_GIVEN_WRONG = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with arguments in one line; how a command is used, ``--help`` says."""

    def error(self, message: str):
        self.exit(2, f'{one_line(f"{self.prog}: {message}")}\n')


def whole_argument(rule: Rule) -> Callable[[str], int]:
    """The ``type`` of an argument on the command line that is a whole number, by its rule."""

    def read(text: str) -> int:
        digits = text.removeprefix('-')
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 40 else None
        if value is None or not rule.valid(value):
            raise argparse.ArgumentTypeError(f'must be {rule.what}, not {shown(text)}')
        return value

    return read


def path_argument(text: str) -> Path:
    """The ``type`` of an argument that names a file or a folder: ``''`` is no other name for this folder."""
    if not text or '\0' in text:
        raise argparse.ArgumentTypeError(f'{shown(text)} is the name of no file and no folder')
    return Path(text)


def run(program: str, command: Callable[[], int | None], folder: Path | None = None) -> int:
    """The exit status of ``command``, what is wrong being said in one line on standard error.

    Args:
        program: what the line begins with, such as ``python -m search_space describe``.
        command: what is to be done; its own exit status, or None for 0.
        folder: where the traceback of an error that nobody foresaw goes; by default the system's for temporary files.
    """
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal has not is no reason to end
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors='backslashreplace')
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output has enough of it, as in | head
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print_error(f'{program}: interrupted')
        return 130
    except _GIVEN_WRONG as error:
        print_error(f'{program}: {_text(error)}')
        return 2
    except (OSError, ArithmeticError) as error:
        print_error(f'{program}: {_text(error)}')
        return 1
    except MemoryError:
        print_error(f'{program}: there is not enough memory')
        return 1
    except Exception as error:
        print_error(f'{program}: {type(error).__name__}: {one_line(error, 500)}; {_keep_traceback(folder)}')
        return UNFORESEEN


def print_error(text: str) -> None:
    """One line on standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f'{error.filename}: {error.strerror}'
    return str(error) or type(error).__name__


def _keep_traceback(folder: Path | None) -> str:
    """Writes the traceback of the error that is being handled to a file; where it is."""
    text = traceback.format_exc().encode('utf-8', 'backslashreplace')
    for place in (folder, None):
        try:
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
            descriptor, file = tempfile.mkstemp('.txt', 'traceback-', place)
            with open(descriptor, 'wb') as opened:
                opened.write(text)
            return f'please report it, with {file}'
        except OSError:
            continue
    return 'its traceback could not be written to a file'
