"""An experiment of NNI: where its records are, what they hold, and whether it still runs."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from search_space.read_file import parse_json, read_json
from search_space.rules import one_line, shown

from .nni_server import NniServer, Silent, shown_url

__all__ = ['ENDED', 'GOING_ON', 'Experiment', 'RunningExperiment', 'find_experiment']

ENDED = ('SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED', 'EARLY_STOPPED')
"""NNI's statuses of a trial that has come to its end."""

GOING_ON = ('INITIALIZED', 'RUNNING', 'NO_MORE_TRIAL', 'TUNER_NO_MORE_TRIAL')
"""NNI's statuses of an experiment that has not."""

TUNER = 'strategies.tuner.StrategyTuner'

_LONGEST_FILE = 1_000_000
"""Bytes that are read of the end of a trial's file."""

_LARGEST_RECORD = 2**26
"""Bytes of one value in a database: the configuration with its search space has a thousandth of it."""

_QUERY_SECONDS = 120.0
"""A database that somebody else made may hold a view that never ends."""

_WRITE_SECONDS = 5.0
"""That NNI may take to write its records anew: it empties the file first, and on a busy machine that can be seen."""

_IS_ID = re.compile(r'[A-Za-z0-9_-]{1,64}')


class _Records:
    """What both ways of reading an experiment know of it."""

    def profile(self) -> dict[str, Any]:
        """NNI's profile: ``params`` is the configuration, ``endTime`` is set once it has ended.

        Raises:
            ValueError: it cannot be read.
        """
        raise NotImplementedError

    def tuner_arguments(self) -> dict[str, Any]:
        """``classArgs`` of the tuner, which may be of another version of this package.

        Raises:
            ValueError: the experiment is another tuner's, or ``classArgs`` is no mapping.
        """
        tuner = self.profile()['params'].get('tuner')
        if not isinstance(tuner, dict) or tuner.get('className') != TUNER:
            raise ValueError(f'experiment {self.id} was not run by {TUNER}')
        arguments = tuner.get('classArgs')
        if not isinstance(arguments, dict):
            raise ValueError(f'experiment {self.id}: classArgs of its tuner is no mapping, but {shown(arguments)}')
        return arguments


@dataclass(frozen=True)
class Experiment(_Records):
    """The records that an experiment left; ``folder`` is NNI's, with ``db/nni.sqlite`` in it."""

    folder: Path

    @cached_property
    def id(self) -> str:
        """NNI's, which stays where the folder is copied or renamed; the folder's name where NNI has recorded none."""
        rows = self._query('select id from ExperimentProfile order by revision desc limit 1')
        if not rows:
            return self._name
        if not (isinstance(rows[0]['id'], str) and _IS_ID.fullmatch(rows[0]['id'])):
            raise ValueError(f'experiment {self._name}: its id in db/nni.sqlite is not one of NNI')
        return rows[0]['id']

    @property
    def _name(self) -> str:
        return one_line(self.folder.absolute().name, 100)

    def profile(self) -> dict[str, Any]:
        """As :meth:`_Records.profile`."""
        row = self._query('select * from ExperimentProfile order by revision desc limit 1')
        if not row:
            raise ValueError(f'experiment {self._name} holds no configuration: it was never started')
        try:
            params = parse_json(row[0]['params'], '')
        except (ValueError, TypeError, KeyError):
            raise ValueError(f'experiment {self._name}: its configuration in db/nni.sqlite is not JSON') from None
        if not isinstance(params, dict):
            raise ValueError(f'experiment {self._name}: its configuration in db/nni.sqlite is no mapping')
        return {**row[0], 'params': params}

    def trial_events(self) -> list[dict[str, Any]]:
        """NNI's events of trials, in order: trialJobId, event (the new status), timestamp, data (parameters)."""
        return self._query('select * from TrialJobEvent order by timestamp')

    def metrics(self) -> list[dict[str, Any]]:
        """What trials reported, in order: trialJobId, type (PERIODICAL or FINAL), sequence, timestamp, data.

        ``data`` is what was reported, a dict; None where that cannot be read.
        """
        return _parsed(self._query('select * from MetricData order by timestamp'))

    def _query(self, query: str) -> list[dict[str, Any]]:
        database = (self.folder / 'db' / 'nni.sqlite').absolute()
        try:
            try:
                return _rows(f'{database.as_uri()}?mode=ro', query)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
                # NNI was killed while it wrote: what is half written is undone from its journal, in a copy.
                with tempfile.TemporaryDirectory() as folder:
                    for file in database.parent.glob('nni.sqlite*'):
                        shutil.copyfile(file, Path(folder, file.name))
                    return _rows(Path(folder, 'nni.sqlite').as_uri(), query)
        except (sqlite3.Error, OSError) as error:
            reason = one_line(error, 200)
            raise ValueError(f'experiment {self._name}: its database cannot be read ({reason})') from None

    def trial_file(self, trial: str, name: str) -> str | None:
        """The end of a text file that a trial left in its folder; None if there is none."""
        folder = self.trial_folder(trial)
        return None if folder is None else _end_of(folder / name)

    def trial_folder(self, trial: str) -> Path | None:
        """What a trial left on this machine, its log among it; None if there is none."""
        if not _IS_ID.fullmatch(trial):
            return None
        return next((place for place in sorted(self.folder.glob(f'environments/*/trials/{trial}'))), None)

    def log(self, name: str) -> str:
        """The end of a log of NNI's, such as ``dispatcher.log``, the tuner's; empty if there is none."""
        return _end_of(self.folder / 'log' / name) or ''

    def status(self) -> str:
        """NNI's status, such as RUNNING, DONE or ERROR; STOPPED where its manager is not there to be asked.

        Where that is too busy to answer in time, the status is what it last wrote to nnictl's records.
        """
        record = _known_to_nnictl().get(self.id)
        if record is None or record.get('status') == 'STOPPED' or not self._is_at(record):
            return 'STOPPED'
        prefix = record.get('prefixUrl')
        prefix = f'/{prefix}' if isinstance(prefix, str) else ''
        try:
            server = NniServer(f'http://localhost:{record["port"]}{prefix}')
            if server.json('experiment')['id'] != self.id:  # another one took the port of one that was killed
                return 'STOPPED'
            status = server.json('check-status')['status']
        except Silent:
            status = record.get('status')
        except (ValueError, KeyError, TypeError):
            return 'STOPPED'
        return status if isinstance(status, str) else 'STOPPED'

    def _is_at(self, record: dict[str, Any]) -> bool:
        """Does nnictl's record of this id mean this folder, and not what this is a copy of?"""
        try:
            return Path(str(record.get('logDir')), self.id).samefile(self.folder)
        except (OSError, ValueError):
            return False

    def silent_hosts(self, seconds: float = 5.0) -> list[str]:
        """Hosts of the training service ``remote`` whose SSH server does not answer within ``seconds``."""
        service = self.profile()['params'].get('trainingService')
        machines = service.get('machineList') if isinstance(service, dict) else None  # or a list of several services
        machines = machines if isinstance(machines, list) else []
        named = [m for m in machines if isinstance(m, dict) and isinstance(m.get('host'), str)]
        return [m['host'] for m in named if not _answers(m['host'], m.get('port', 22), seconds)]


def _rows(uri: str, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        until = time.monotonic() + _QUERY_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > until, 1_000_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_RECORD)
        connection.text_factory = lambda text: text.decode('utf-8', 'replace')
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def _end_of(file: Path) -> str | None:
    try:
        if not file.is_file():
            return None
        with file.open('rb') as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _LONGEST_FILE))
            return opened.read(_LONGEST_FILE).decode('utf-8', 'replace')
    except OSError:
        return None


def _answers(host: str, port: Any, seconds: float) -> bool:
    try:
        socket.create_connection((host, port), seconds).close()
    except (OSError, TypeError, OverflowError, UnicodeError):
        return False
    return True


@dataclass(frozen=True)
class RunningExperiment(_Records):
    """An experiment whose manager answers at ``url``, that of its web UI: ``http://HOST:PORT[/PREFIX]``."""

    url: str

    @cached_property
    def _server(self) -> NniServer:
        return NniServer(self.url)

    @cached_property
    def id(self) -> str:
        return self.profile()['id']

    def profile(self) -> dict[str, Any]:
        """As :meth:`_Records.profile`."""
        profile = self._server.json('experiment')
        if (
            not isinstance(profile, dict)
            or not isinstance(profile.get('params'), dict)
            or not _IS_ID.fullmatch(str(profile.get('id')))
        ):
            raise self._not_nni()
        return profile

    def trial_events(self) -> list[dict[str, Any]]:
        """As :meth:`Experiment.trial_events`: the start of each trial, and its end."""
        events = []
        for job in self._list('trial-jobs'):
            parameters = job.get('hyperParameters')
            parameters = parameters[0] if isinstance(parameters, list) and parameters else None
            status = job.get('status')
            event = {'trialJobId': job.get('trialJobId'), 'timestamp': job.get('startTime'), 'data': parameters}
            events.append({**event, 'event': status if status == 'WAITING' else 'RUNNING'})
            if status in ENDED:
                events.append({**event, 'event': status, 'timestamp': job.get('endTime'), 'data': None})
        return sorted(events, key=_when)

    def metrics(self) -> list[dict[str, Any]]:
        """As :meth:`Experiment.metrics`."""
        return _parsed(sorted(self._list('metric-data'), key=_when))

    def trial_file(self, trial: str, name: str) -> str | None:
        """As :meth:`Experiment.trial_file`."""
        name = {'trial.stderr': 'stderr'}.get(name, name)  # what NNI calls that one
        try:
            content = self._server.content(f'trial-file/{quote(trial, safe="")}/{name}')
        except ValueError:
            return None
        text = content[-_LONGEST_FILE:].decode('utf-8', 'replace')
        return None if text == f'{name} is empty.' or text.startswith('NNI internal error.') else text

    def status(self) -> str:
        """NNI's status, such as RUNNING, DONE or ERROR."""
        answer = self._server.json('check-status')
        if not isinstance(answer, dict) or not isinstance(answer.get('status'), str):
            raise self._not_nni()
        return one_line(answer['status'], 50)

    def _list(self, path: str) -> list[dict[str, Any]]:
        answer = self._server.json(path)
        if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
            raise self._not_nni()
        return answer

    def _not_nni(self) -> ValueError:
        return ValueError(f'{self._server.name}: what answers there is not an experiment of NNI')


def _when(record: dict[str, Any]) -> float:
    timestamp = record.get('timestamp')
    return timestamp if isinstance(timestamp, int | float) else 0


def _parsed(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**metric, 'data': _metric_value(metric.get('data'))} for metric in metrics]


def _metric_value(data: Any) -> dict | None:
    """NNI wraps what was reported in JSON twice."""
    try:
        value = json.loads(data)
        value = json.loads(value) if isinstance(value, str) else value
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _known_to_nnictl() -> dict[str, dict[str, Any]]:
    """nnictl's records of experiments by id. Its own class for them waits for a lock that it must be able to write."""
    file = Path.home() / 'nni-experiments' / '.experiment'
    until, known = time.monotonic() + _WRITE_SECONDS, {}
    while file.is_file() and time.monotonic() < until:
        try:
            known = read_json(file)
            break
        except ValueError:
            time.sleep(0.05)
    known = known if isinstance(known, dict) else {}
    return {name: record for name, record in known.items() if isinstance(record, dict) and _IS_ID.fullmatch(name)}


def find_experiment(name: str | None = None) -> Experiment | RunningExperiment:
    """An experiment by NNI's id, by its folder, by the URL of its web UI, or (None) the latest one.

    Raises:
        ValueError: there is none.
    """
    if name is not None and re.match('https?://', name, re.IGNORECASE):
        experiment = RunningExperiment(name)
        experiment.profile()
        return experiment
    if name is not None and '\0' not in name and (Path(name) / 'db' / 'nni.sqlite').is_file():
        return Experiment(Path(name))
    known = _known_to_nnictl()
    if name is None:
        if not known:
            raise ValueError('there is no experiment yet; start one with: nnictl create --config experiment.yaml')
        name = max(known, key=lambda key: _when({'timestamp': known[key].get('startTime')}))
    if _IS_ID.fullmatch(name):
        place = known.get(name, {}).get('logDir')
        folder = Path(place if isinstance(place, str) else Path.home() / 'nni-experiments', name)
        if (folder / 'db' / 'nni.sqlite').is_file():
            return Experiment(folder)
    where = shown_url(name) if '://' in name else one_line(name, 200)
    raise ValueError(
        f'no experiment {where!r}: neither an id that nnictl knows, nor the folder of one or of exported results, '
        'nor the URL of one that runs'
    )
