"""What is made of the answers of NNI's manager."""

import json
import time

import pytest

from strategies.experiment.nni_manager import NniManager

NOW = 1000 * time.time()


def job(parameter_id, status, **end):
    record = {'parameter_id': parameter_id, 'parameters': {'seed': parameter_id}}
    return {'trialJobId': f't{parameter_id}', 'status': status, 'hyperParameters': [json.dumps(record)], **end}


@pytest.fixture
def jobs(monkeypatch):
    listed = []
    monkeypatch.setenv('NNI_TUNER_COMMAND_CHANNEL', 'ws://localhost:8080/tuner')
    monkeypatch.setattr('strategies.experiment.nni_manager.rest.get', lambda port, api, prefix: listed)
    return listed


def test_of_earlier_trials_the_last_id_is_that_of_what_nni_starts_again_even_if_it_has_ended_since(jobs):
    assert NniManager().last_earlier_id() == -1
    jobs += [job(9, 'SUCCEEDED', endTime=NOW - 1e8), job(8, 'FAILED', endTime=NOW - 1e8)]  # before this process
    assert NniManager().last_earlier_id() == -1
    jobs += [job(3, 'RUNNING'), job(5, 'SUCCEEDED', endTime=NOW + 1e8)]
    assert NniManager().last_earlier_id() == 5
    assert NniManager().unfinished() == {3: {'seed': 3}}
