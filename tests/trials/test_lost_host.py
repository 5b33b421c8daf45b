"""Dropping a host: what is refused before anything is stopped. That it works is in tests/remote."""

import json
import sqlite3
from functools import partial

import pytest
from nni.tools.nnictl.config_utils import Experiments

from trials import lost_host
from trials.__main__ import main

HOSTS = {'two': ['10.0.0.1', '10.0.0.2'], 'one': ['10.0.0.1'], 'local': None}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home that knows stopped experiments on as many hosts as their names say."""
    folder = tmp_path / 'nni-experiments'
    for name, hosts in HOSTS.items():
        (folder / name / 'db').mkdir(parents=True)
        service = {'machineList': [{'host': host, 'port': 22} for host in hosts]} if hosts else {'platform': 'local'}
        with sqlite3.connect(folder / name / 'db' / 'nni.sqlite') as database:
            database.execute('create table ExperimentProfile (params text, revision integer)')
            profile = json.dumps({'trainingService': service})
            database.execute('insert into ExperimentProfile values (?, 1)', (profile,))
        database.close()
    record = {'status': 'STOPPED', 'logDir': str(folder), 'port': 8080, 'prefixUrl': None, 'pid': None}
    (folder / '.experiment').write_text(json.dumps({name: {**record, 'id': name} for name in HOSTS}))
    monkeypatch.setattr(lost_host, 'Experiments', partial(Experiments, str(folder)))  # NNI looks at HOME on import


@pytest.mark.parametrize(
    ('experiment', 'host', 'message'),
    [
        ('none', '10.0.0.1', "no experiment 'none' that nnictl knows"),
        ('two', '10.0.0.3', "the experiment has no host '10.0.0.3'; its hosts: 10.0.0.1, 10.0.0.2"),
        ('one', '10.0.0.1', '10.0.0.1 is the only host of the experiment'),
        ('local', '10.0.0.1', "the experiment has no host '10.0.0.1'; its hosts: none"),
    ],
)
def test_a_host_that_cannot_be_dropped_is_refused_in_one_line(home, capsys, experiment, host, message):
    assert main(['drop-host', experiment, host]) == 2
    assert capsys.readouterr().err == f'python -m trials: {message}\n'


def test_a_home_that_nni_cannot_write_is_said_before_nni_waits_for_it(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lost_host, 'Experiments', None)
    (tmp_path / 'file').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'file'))
    assert main(['drop-host', 'two', '10.0.0.1']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'python -m trials: NNI keeps its experiments in HOME, and {tmp_path}/file/nni-experiments ')
    assert line.endswith(': name another folder with HOME=')
