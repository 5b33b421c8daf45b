"""What of an experiment's configuration and messages is written to files that people pass on: an allow-list.

A configuration may hold passwords of machines, keys of a storage, tokens in a command, and says whose machine it was.
What is not known to be harmless is left out, and taken out of the messages of trials, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_space.rules import one_line
from strategies.experiment.arguments import RULES

__all__ = ['Published']

WITHHELD = '(not published)'

_TOP = ('experimentName', 'trialConcurrency', 'trialGpuNumber', 'maxExperimentDuration', 'maxTrialDuration')
"""NNI's keys that say how an experiment was run; ``maxTrialNumber`` is set by the tuner when all was done."""

_TEXTS = ('dataset', 'initial', 'optimizer', 'precision', 'schedule', 'teacher')
"""Keys of a recipe with a text; of a file or folder only its name is published."""

_WORD = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.+:-]{0,60}')

_FOLDERS = re.compile(r'(?<![\w.~/])/(?:[^\s/:\'",;()<>]+/)+')
"""Of a path from the root, all but its last part."""

_USER_OF_URL = re.compile(r'(?<=://)[^\s/@]+@')


class Published:
    """What is published of one experiment.

    Args:
        profile: NNI's, with the configuration as ``params``.
        arguments: ``classArgs`` of its tuner.
    """

    def __init__(self, profile: dict[str, Any], arguments: dict[str, Any]):
        self._params, self._arguments = profile['params'], arguments
        code, records = self._params.get('trialCodeDirectory'), profile.get('logDir')
        places = ((code, '.'), (records, 'EXPERIMENT'), (str(Path.home()), '~'))
        texts = ((p, r) for p, r in places if isinstance(p, str) and p.strip('/'))
        self._places = sorted(texts, key=lambda pair: -len(pair[0]))
        hidden = sorted(set(self._secrets()), key=len, reverse=True)
        pattern = '|'.join(re.escape(text) for text in hidden)
        self._hidden = re.compile(rf'(?<!\w)(?:{pattern})(?!\w)') if hidden else None

    def text(self, text: str) -> str:
        """A message without secrets of the configuration and without folders of the machine, in one line.

        The code's folder becomes ``.``, the experiment's ``EXPERIMENT``, the home ``~``, any other ``...``.
        """
        if self._hidden is not None:
            text = self._hidden.sub('***', text)
        text = _USER_OF_URL.sub('', text)
        for place, replacement in self._places:
            text = re.sub(rf'{re.escape(place)}(?=/|\W|$)', replacement, text)
        return one_line(_FOLDERS.sub('.../', text))

    def configuration(self) -> dict[str, Any]:
        """Of the configuration that ``nnictl create`` takes, what it needs to run the same again with the code here."""
        service = self._params.get('trainingService')
        platform = service.get('platform') if isinstance(service, dict) else None
        shown = {key: self._value(self._params[key]) for key in _TOP if self._params.get(key) is not None}
        if isinstance(self._params.get('searchSpaceFile'), str):
            shown['searchSpaceFile'] = self._path(self._params['searchSpaceFile'])
        shown['trialCommand'] = self._command()
        shown['trialCodeDirectory'] = '.'
        shown['trainingService'] = {'platform': self._value(platform or 'local')}
        known = [key for key in RULES if key in self._arguments]
        arguments = {key: self._argument(key, self._arguments[key]) for key in known}
        tuner = {'codeDirectory': '.', 'className': 'strategies.tuner.StrategyTuner', 'classArgs': arguments}
        return {**shown, 'tuner': tuner}

    def _argument(self, key: str, value: Any) -> Any:
        if key == 'strategies' and isinstance(value, dict):
            return {self.text(str(name)): self._strategy(own) for name, own in value.items()}
        if key in ('retrain', 'search') and isinstance(value, dict):
            return {
                name: self._value(one) if name in _TEXTS or not isinstance(one, str) else self._path_or_nothing(one)
                for name, one in value.items()
                if isinstance(name, str) and re.fullmatch(r'(dataset/)?[a-z_]{1,40}', name)
            }
        return self._value(value)

    def _strategy(self, arguments: Any) -> Any:
        """The arguments of a class that is not ours or NNI's may be anything; of these, only numbers."""
        if not isinstance(arguments, dict):
            return WITHHELD
        ours = str(arguments.get('class')).startswith(('nni.', 'strategies.'))
        return {
            name: self._value(value) if ours or name == 'class' or not isinstance(value, str) else WITHHELD
            for name, value in arguments.items()
            if isinstance(name, str) and name.isidentifier()
        }

    def _value(self, value: Any) -> Any:
        """A number as it is, a short word as it is, of a path its name; nothing else."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self._value(one) for one in value[:100]]
        if isinstance(value, str):
            if '/' in value or '\\' in value:
                return self._path(value)
            return self.text(value) if len(value) <= 200 else WITHHELD
        return WITHHELD

    def _path_or_nothing(self, text: str) -> str:
        return self._path(text) if '/' in text and '://' not in text else WITHHELD

    def _path(self, text: str) -> str:
        """``/srv/somebody/code/search_space/choices/cued.json`` as people write it; elsewhere, its name."""
        shown = self.text(text).removeprefix('./')
        return re.sub(r'^(\.\.\.|~)/(.*/)?', '', shown)

    def _command(self) -> str:
        command = self._params.get('trialCommand')
        usual = isinstance(command, str) and re.fullmatch(r'(\S*/)?python[\d.]*( -m trials run)', command.strip())
        return f'python3{usual[2]}' if usual else WITHHELD

    def _secrets(self) -> Iterator[str]:
        """Texts of the configuration that are never published: of machines, of storages, of unknown keys."""
        known = {*_TOP, 'searchSpaceFile', 'searchSpace', 'trialCodeDirectory', 'tuner', 'experimentWorkingDirectory'}
        known |= {'logLevel', 'debug', 'useAnnotation', 'trainingService', 'trialCommand', 'experimentType'}
        hidden = {key: value for key, value in self._params.items() if key not in known}
        service = self._params.get('trainingService')
        not_secret = ('platform', 'trialCommand', 'trialCodeDirectory')
        for one in service if isinstance(service, list) else [service]:
            if isinstance(one, dict):
                hidden[len(hidden)] = {key: value for key, value in one.items() if key not in not_secret}
        yield from (text for text in _texts(hidden) if len(text) >= 4)
        if self._command() == WITHHELD:
            words = _words(str(self._params.get('trialCommand')))
            yield from (part for word in words for part in word.split('=') if len(part) >= 8 and '/' not in part)
        strategies = self._arguments.get('strategies')
        for own in strategies.values() if isinstance(strategies, dict) else ():
            if isinstance(own, dict) and not str(own.get('class')).startswith(('nni.', 'strategies.')):
                yield from (text for key, text in own.items() if key != 'class' and isinstance(text, str) and text[3:])


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
