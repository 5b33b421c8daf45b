"""A trial that is asked for, and what tells its parameters from another's."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_space.nni_nas import ExecutableModelSpace

__all__ = ['TrialRequest', 'key']


@dataclass(eq=False)
class TrialRequest:
    """A trial that a strategy wants run.

    Attributes:
        strategy: name of the strategy that asked for it.
        parameters: what the trial is a pure function of.
        epochs: that it will train.
        model: NNI's model that is trained by it; None for a search and for a test.
        attempts: how often it was started.
        result: what it reported; None until then, and where it was given up.
        ended: is there a result, or was it given up?
        done: set when the strategy has been told.
    """

    strategy: str
    parameters: dict[str, Any]
    epochs: float = 0.0
    model: ExecutableModelSpace | None = None
    attempts: int = 0
    result: dict[str, Any] | None = None
    ended: bool = False
    done: threading.Event = field(default_factory=threading.Event)


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
