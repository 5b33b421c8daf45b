"""Hosts of an experiment that do not answer."""

import json
import socket
import sqlite3
from contextlib import closing

import pytest

from analysis import Experiment


@pytest.fixture
def port():
    """One that is served on 127.0.0.1, and on no other address."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server.getsockname()[1]


def experiment(folder, service) -> Experiment:
    (folder / 'db').mkdir()
    with closing(sqlite3.connect(folder / 'db' / 'nni.sqlite')) as database, database:
        database.execute('create table ExperimentProfile (params text, revision integer)')
        profile = json.dumps({'trainingService': service})
        database.execute('insert into ExperimentProfile values (?, 1)', (profile,))
    return Experiment(folder)


def test_hosts_that_do_not_answer_are_named(tmp_path, port):
    machines = [{'host': '127.0.0.1', 'port': port}, {'host': '127.0.0.2', 'port': port}]
    assert experiment(tmp_path, {'platform': 'remote', 'machineList': machines}).silent_hosts() == ['127.0.0.2']


@pytest.mark.parametrize('service', [{'platform': 'local'}, [{'platform': 'local'}, {'platform': 'remote'}]])
def test_an_experiment_without_a_list_of_hosts_has_no_silent_ones(tmp_path, service):
    assert experiment(tmp_path, service).silent_hosts() == []
