"""What tells one trial's parameters from another's."""

from __future__ import annotations

import json
from typing import Any

__all__ = ['key']


def key(parameters: dict[str, Any]) -> str:
    """The same string for the same parameters, whatever the order of their names.

    NNI's manager passes them on in JavaScript, which has one number where Python has 1 and 1.0.
    """
    return json.dumps(_as_in_javascript(parameters), sort_keys=True)


def _as_in_javascript(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _as_in_javascript(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_in_javascript(item) for item in value]
    return value
