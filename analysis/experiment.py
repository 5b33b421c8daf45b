"""An experiment of NNI: where its records lie, what they hold, and whether it still runs."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni.experiment import rest
from nni.tools.nnictl.config_utils import Experiments

__all__ = ['Experiment', 'find_experiment']


@dataclass(frozen=True)
class Experiment:
    """The records of one experiment; ``folder`` is NNI's, with ``db/nni.sqlite`` in it."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    def profile(self) -> dict[str, Any]:
        """NNI's profile: ``params`` is the configuration, ``endTime`` is set once it is DONE."""
        row = self._query('select * from ExperimentProfile order by revision desc limit 1')
        if not row:
            raise ValueError(f'experiment {self.id} holds no configuration: it was never started')
        return {**row[0], 'params': json.loads(row[0]['params'])}

    def tuner_arguments(self) -> dict[str, Any]:
        """``classArgs`` of the tuner.

        Raises:
            ValueError: the experiment is another tuner's.
        """
        tuner = self.profile()['params'].get('tuner') or {}
        if tuner.get('className') != 'strategies.tuner.StrategyTuner':
            raise ValueError(f'experiment {self.id} was not run by strategies.tuner.StrategyTuner')
        return tuner['classArgs']

    def trial_events(self) -> list[dict[str, Any]]:
        """NNI's events of trials, in order: trialJobId, event (the new status), timestamp, data (parameters)."""
        return self._query('select * from TrialJobEvent order by timestamp')

    def metrics(self) -> list[dict[str, Any]]:
        """What trials reported, in order: trialJobId, type (PERIODICAL or FINAL), sequence, data (parsed)."""
        rows = self._query('select * from MetricData order by timestamp')
        return [{**row, 'data': _metric_value(row['data'])} for row in rows]

    def _query(self, query: str) -> list[dict[str, Any]]:
        uri = (self.folder / 'db' / 'nni.sqlite').absolute().as_uri() + '?mode=ro'
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
                connection.row_factory = sqlite3.Row
                return [dict(row) for row in connection.execute(query)]
        except sqlite3.Error as error:
            raise ValueError(f'experiment {self.id}: its database cannot be read ({error})') from None

    def status(self) -> str:
        """NNI's status, such as RUNNING, DONE or ERROR; STOPPED where its manager is not there to be asked."""
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


def _metric_value(data: str) -> Any:
    """NNI wraps what was reported in JSON twice."""
    value = json.loads(data)
    return json.loads(value) if isinstance(value, str) else value


def find_experiment(name: str | None = None) -> Experiment:
    """An experiment by NNI's id, by its folder, or (None) the latest one.

    Raises:
        ValueError: there is none.
    """
    if name is not None and (Path(name) / 'db' / 'nni.sqlite').is_file():
        return Experiment(Path(name))
    known = Experiments().get_all_experiments()
    if name is None:
        if not known:
            raise ValueError('there is no experiment yet; start one with: nnictl create --config experiment.yaml')
        name = max(known, key=lambda key: known[key]['startTime'])
    folder = Path(known[name]['logDir'] if name in known else Path.home() / 'nni-experiments', name)
    if not (folder / 'db' / 'nni.sqlite').is_file():
        raise ValueError(f'no experiment {name!r}: neither an id that nnictl knows nor the folder of one')
    return Experiment(folder)
