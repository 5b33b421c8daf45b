"""CSV that people open in a spreadsheet: no text in it is a formula there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

__all__ = ['csv_text', 'no_formula']

_FORMULAS = ('=', '+', '-', '@', '\t', '\r', "'")
"""What a spreadsheet may take for the beginning of a formula; such a text is written with an apostrophe before it."""


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """``rows`` as CSV: numbers as they are, and texts, which may come from a file of somebody else's, as texts."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([no_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def no_formula(cell: Any) -> Any:
    """A cell of a table that a spreadsheet takes for what it says."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
