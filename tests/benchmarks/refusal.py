"""What a benchmark says of arguments that it does not take."""

from __future__ import annotations

from collections.abc import Callable


def refusal(main: Callable[[list[str]], int], arguments: list[str], capsys) -> str:
    """The one line that ``main`` says, with status 2."""
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
