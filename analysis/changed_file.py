"""An experiment.yaml that has been changed since its experiment was created: ``nnictl resume`` does not read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_space.read_file import read_text
from search_space.rules import shown
from search_space.yaml_mapping import read_mapping

from .experiment import Experiment

__all__ = ['changed_file']

_MOST_FILES = 100
"""That are looked at in a folder."""


def changed_file(experiment: Experiment) -> str | None:
    """One line that says what the experiment's file has otherwise than the experiment; None where it is as it was.

    NNI keeps what was in the file and not where it was. It is looked for where the shipped ones are: in the tuner's
    ``codeDirectory`` and in ``experiments/`` there, by its ``experimentName``. Where several have that name, one of
    them that says the same is enough.

    Args:
        experiment: of this machine, and the user's own.

    Raises:
        ValueError: its configuration cannot be read.
    """
    params, arguments = experiment.profile()['params'], experiment.tuner_arguments()
    code, name = params['tuner'].get('codeDirectory'), params.get('experimentName')
    if not isinstance(code, str) or '\0' in code or not isinstance(name, str):
        return None
    changed = None
    for folder in (Path(code), Path(code, 'experiments')):
        for file in sorted(folder.glob('*.y*ml'))[:_MOST_FILES]:
            try:
                now = read_mapping(read_text(file), str(file), 'an experiment is a mapping')
            except ValueError:
                continue
            tuner = now.get('tuner')
            if now.get('experimentName') != name or not isinstance(tuner, dict):
                continue
            difference = _difference(arguments, tuner.get('classArgs'), 'classArgs')
            if difference is None and now.get('trialCommand') != params.get('trialCommand'):
                difference = 'trialCommand is another one'  # which may hold a password
            if difference is None:
                return None
            changed = changed or (
                f'{file} has been changed since experiment {experiment.id} was created from it, which has no effect on '
                f'it, resumed or not ({difference}); nnictl create starts another one'
            )
    return changed


def _difference(was: Any, now: Any, where: str) -> str | None:
    """The first place in which two values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            if key not in was or key not in now:
                return f'{where}.{key} is {"new" if key in now else "gone"}'
            inner = _difference(was[key], now[key], f'{where}.{key}')
            if inner is not None:
                return inner
        return None
    return None if was == now else f'{where} was {shown(was)} and is {shown(now)}'
