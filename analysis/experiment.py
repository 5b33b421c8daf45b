"""An experiment of NNI: where its records are, what they hold, and whether it still runs."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

__all__ = ['ENDED', 'Experiment', 'RunningExperiment', 'find_experiment']

ENDED = ('SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED', 'EARLY_STOPPED')
"""NNI's statuses of a trial that has come to its end."""

_LONGEST_FILE = 1_000_000
"""Bytes that are read of the end of a trial's file."""


class _Records:
    """What both ways of reading an experiment know of it."""

    def profile(self) -> dict[str, Any]:
        """NNI's profile: ``params`` is the configuration, ``endTime`` is set once it has ended.

        Raises:
            ValueError: it cannot be read.
        """
        raise NotImplementedError

    def tuner_arguments(self) -> dict[str, Any]:
        """``classArgs`` of the tuner.

        Raises:
            ValueError: the experiment is another tuner's.
        """
        tuner = self.profile()['params'].get('tuner') or {}
        if tuner.get('className') != 'strategies.tuner.StrategyTuner':
            raise ValueError(f'experiment {self.id} was not run by strategies.tuner.StrategyTuner')
        return tuner['classArgs']


@dataclass(frozen=True)
class Experiment(_Records):
    """The records that an experiment left; ``folder`` is NNI's, with ``db/nni.sqlite`` in it."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.absolute().name

    def profile(self) -> dict[str, Any]:
        """NNI's profile: ``params`` is the configuration, ``endTime`` is set once it has ended."""
        row = self._query('select * from ExperimentProfile order by revision desc limit 1')
        if not row:
            raise ValueError(f'experiment {self.id} holds no configuration: it was never started')
        try:
            return {**row[0], 'params': json.loads(row[0]['params'])}
        except ValueError:
            raise ValueError(f'experiment {self.id}: its configuration in db/nni.sqlite is not JSON') from None

    def trial_events(self) -> list[dict[str, Any]]:
        """NNI's events of trials, in order: trialJobId, event (the new status), timestamp, data (parameters)."""
        return self._query('select * from TrialJobEvent order by timestamp')

    def metrics(self) -> list[dict[str, Any]]:
        """What trials reported, in order: trialJobId, type (PERIODICAL or FINAL), sequence, timestamp, data.

        ``data`` is what was reported, a dict; None where that cannot be read.
        """
        return _parsed(self._query('select * from MetricData order by timestamp'))

    def _query(self, query: str) -> list[dict[str, Any]]:
        uri = (self.folder / 'db' / 'nni.sqlite').absolute().as_uri() + '?mode=ro'
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
                connection.row_factory = sqlite3.Row
                return [dict(row) for row in connection.execute(query)]
        except sqlite3.Error as error:
            raise ValueError(f'experiment {self.id}: its database cannot be read ({error})') from None

    def trial_file(self, trial: str, name: str) -> str | None:
        """The end of a text file that a trial left in its folder; None if there is none."""
        if not re.fullmatch(r'\w+', trial):
            return None
        for environment in sorted(self.folder.glob('environments/*')):
            try:
                with (environment / 'trials' / trial / name).open('rb') as file:
                    file.seek(0, 2)
                    file.seek(max(0, file.tell() - _LONGEST_FILE))
                    return file.read().decode('utf-8', 'replace')
            except OSError:
                continue
        return None

    def status(self) -> str:
        """NNI's status, such as RUNNING, DONE or ERROR; STOPPED where its manager is not there to be asked."""
        from nni.experiment import rest
        from nni.tools.nnictl.config_utils import Experiments

        record = Experiments().get_all_experiments().get(self.id)
        if record is None or record['status'] == 'STOPPED':
            return 'STOPPED'
        try:
            return rest.get(record['port'], '/check-status', record.get('prefixUrl'))['status']
        except (OSError, KeyError):
            return 'STOPPED'

    def silent_hosts(self, seconds: float = 5.0) -> list[str]:
        """Hosts of the training service ``remote`` whose SSH server does not answer within ``seconds``."""
        service = self.profile()['params'].get('trainingService')
        machines = service.get('machineList', []) if isinstance(service, dict) else []  # a list of several services
        return [m['host'] for m in machines if not _answers(m['host'], m['port'], seconds)]


def _answers(host: str, port: int, seconds: float) -> bool:
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class RunningExperiment(_Records):
    """An experiment whose manager answers at ``url``, that of its web UI: ``http://HOST:PORT[/PREFIX]``."""

    url: str

    @property
    def id(self) -> str:
        return self.profile()['id']

    def profile(self) -> dict[str, Any]:
        """As :meth:`Experiment.profile`."""
        profile = self._get('experiment')
        if not isinstance(profile, dict) or not {'id', 'params'} <= set(profile):
            raise ValueError(f'{self.url}: what answers there is not an experiment of NNI')
        return profile

    def trial_events(self) -> list[dict[str, Any]]:
        """As :meth:`Experiment.trial_events`: the start of each trial, and its end."""
        events = []
        for job in self._get('trial-jobs'):
            parameters = (job.get('hyperParameters') or [None])[0]
            event = {'trialJobId': job['trialJobId'], 'timestamp': job.get('startTime'), 'data': parameters}
            running = job['status'] if job['status'] == 'WAITING' else 'RUNNING'
            events.append({**event, 'event': running})
            if job['status'] in ENDED:
                events.append({**event, 'event': job['status'], 'timestamp': job.get('endTime'), 'data': None})
        return sorted(events, key=lambda event: event['timestamp'] or 0)

    def metrics(self) -> list[dict[str, Any]]:
        """As :meth:`Experiment.metrics`."""
        return _parsed(sorted(self._get('metric-data'), key=lambda metric: metric['timestamp']))

    def trial_file(self, trial: str, name: str) -> str | None:
        """As :meth:`Experiment.trial_file`."""
        name = {'trial.stderr': 'stderr'}.get(name, name)  # what NNI calls that one
        try:
            text = self._request(f'trial-file/{quote(trial, safe="")}/{name}').text
        except ValueError:
            return None
        missing = text == f'{name} is empty.' or text.startswith('NNI internal error.')
        return None if missing else text[-_LONGEST_FILE:]

    def status(self) -> str:
        """NNI's status, such as RUNNING, DONE or ERROR."""
        return self._get('check-status')['status']

    def _get(self, path: str) -> Any:
        try:
            return self._request(path).json()
        except ValueError as error:
            if str(error).startswith(self.url):
                raise
            raise ValueError(f'{self.url}: what answers there is not an experiment of NNI') from None

    def _request(self, path: str):
        import requests

        try:
            response = requests.get(f'{self.url.rstrip("/")}/api/v1/nni/{path}', timeout=30)
        except requests.RequestException:
            raise ValueError(f'{self.url}: nothing answers there; is the experiment running, at this port?') from None
        if response.status_code != 200:
            raise ValueError(
                f'{self.url}: no experiment answers there (HTTP {response.status_code}); does its URL have a prefix?'
            )
        return response


def _parsed(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**metric, 'data': _metric_value(metric['data'])} for metric in metrics]


def _metric_value(data: Any) -> dict | None:
    """NNI wraps what was reported in JSON twice."""
    try:
        value = json.loads(data)
        value = json.loads(value) if isinstance(value, str) else value
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def find_experiment(name: str | None = None) -> Experiment | RunningExperiment:
    """An experiment by NNI's id, by its folder, by the URL of its web UI, or (None) the latest one.

    Raises:
        ValueError: there is none.
    """
    if name is not None and urlsplit(name).scheme in ('http', 'https'):
        experiment = RunningExperiment(name)
        experiment.profile()
        return experiment
    if name is not None and (Path(name) / 'db' / 'nni.sqlite').is_file():
        return Experiment(Path(name))
    from nni.tools.nnictl.config_utils import Experiments

    known = Experiments().get_all_experiments()
    if name is None:
        if not known:
            raise ValueError('there is no experiment yet; start one with: nnictl create --config experiment.yaml')
        name = max(known, key=lambda key: known[key]['startTime'])
    folder = Path(known[name]['logDir'] if name in known else Path.home() / 'nni-experiments', name)
    if not (folder / 'db' / 'nni.sqlite').is_file():
        raise ValueError(
            f'no experiment {name!r}: neither an id that nnictl knows, nor the folder of one or of exported results, '
            'nor the URL of one that runs'
        )
    return Experiment(folder)
