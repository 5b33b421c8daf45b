"""An experiment on several hosts that has lost one of them goes on without it.

NNI 3.0's ``remote`` training service does not survive a host that is gone. Its heartbeat counts missing answers, but
resets the count whenever it could put another message into the buffer of the connection; so until the system gives the
connection up, after a quarter of an hour, the host's trials run for ever, and the manager hangs as soon as it sends
that host another one. Then the host's SSH client emits an error that nobody listens to, and the manager's process dies.
``nnictl resume`` starts with a connection to each host in the list that the experiment was created with, and fails.

So the list is changed where NNI keeps it, between its stop and its resumption.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from nni.experiment import Experiment, RunMode
from nni.experiment.config import ExperimentConfig
from nni.experiment.launcher import get_stopped_experiment_config_json
from nni.tools.nnictl.config_utils import Experiments

from .home import check_home

__all__ = ['drop_host', 'resume']

KEEPER_SECONDS = 30
"""How long after the manager's end its processes on the hosts try to reach it: a new one must not be taken for it."""


def drop_host(experiment: str, host: str) -> None:
    """Stop an experiment, take a host off its list, and resume it; what its hosts were running is tried again.

    Args:
        experiment: NNI's id of it.
        host: as in ``machineList`` of its ``trainingService``.

    Raises:
        ValueError: there is no such experiment or host, or no other host; or NNI cannot keep its records.
    """
    check_home()
    record = Experiments().get_all_experiments().get(experiment)
    if record is None:
        raise ValueError(f'no experiment {experiment!r} that nnictl knows')
    database = Path(record['logDir'], experiment, 'db', 'nni.sqlite')
    _without(_profile(database), host)  # before anything is stopped
    nnictl = str(Path(sys.executable).with_name('nnictl'))
    subprocess.run([nnictl, 'stop', experiment], capture_output=True, check=False)  # its manager may be gone already
    time.sleep(KEEPER_SECONDS)
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        revision, parameters = _latest(connection)
        changed = json.dumps(_without(parameters, host))
        connection.execute('update ExperimentProfile set params = ? where revision = ?', (changed, revision))
        _end_running_trials(connection)
    resume(experiment, record['port'], record.get('prefixUrl'))


def _profile(database: Path) -> dict:
    with closing(sqlite3.connect(f'{database.absolute().as_uri()}?mode=ro', uri=True, timeout=30)) as connection:
        return _latest(connection)[1]


def _latest(connection: sqlite3.Connection) -> tuple[int, dict]:
    query = 'select revision, params from ExperimentProfile order by revision desc limit 1'
    revision, parameters = connection.execute(query).fetchone()
    return revision, json.loads(parameters)


def _without(parameters: dict, host: str) -> dict:
    """The experiment's configuration without a host."""
    service = parameters['trainingService']
    machines = service.get('machineList', []) if isinstance(service, dict) else []  # a list of several services
    left = [machine for machine in machines if machine['host'] != host]
    if len(left) == len(machines):
        names = ', '.join(machine['host'] for machine in machines) or 'none'
        raise ValueError(f'the experiment has no host {host!r}; its hosts: {names}')
    if not left:
        raise ValueError(f'{host} is the only host of the experiment')
    return {**parameters, 'trainingService': {**service, 'machineList': left}}


def _end_running_trials(connection: sqlite3.Connection) -> None:
    """Their processes end with the manager; NNI would start them again on the hosts that it knew, under old ids."""
    latest = 'select trialJobId, sequenceId, event, max(rowid) from TrialJobEvent group by trialJobId'
    for trial, sequence, event, _ in connection.execute(latest).fetchall():
        if event in ('WAITING', 'RUNNING'):
            connection.execute(
                'insert into TrialJobEvent (timestamp, trialJobId, event, data, sequenceId) values (?, ?, ?, ?, ?)',
                (round(time.time() * 1000), trial, 'SYS_CANCELED', '', sequence),
            )


def resume(experiment: str, port: int, prefix: str | None) -> None:
    """What ``nnictl resume`` does, which would leave out the prefix that the web server is behind.

    Raises:
        ValueError: nnictl knows no such experiment, or it has not been stopped.
    """
    stopped = get_stopped_experiment_config_json(experiment)
    if stopped is None:
        raise ValueError(f'no experiment {experiment!r} that nnictl knows and that has been stopped')
    resumed = Experiment(ExperimentConfig(**stopped), id=experiment)
    resumed._action, resumed.url_prefix = 'resume', prefix
    resumed.start(port, run_mode=RunMode.Detach)
