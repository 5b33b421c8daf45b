"""The main job on two hosts under NNI's remote training service, one of which is cut off in mid-run."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from nnictl_experiment import ROOT, nni_experiment
from two_hosts import two_hosts, why_not

from analysis import Experiment, trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.remote,
    pytest.mark.timeout(1500),
    pytest.mark.skipif((reason := why_not()) is not None, reason=f'two hosts: {reason}'),
]


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    with two_hosts(tmp_path_factory.mktemp('hosts')) as network:
        yield network


@pytest.fixture(scope='module')
def story(tmp_path_factory, configuration, network):
    """An experiment that lost its second host in mid-run and went on without it; what was seen on the way."""
    here = str(Path(sys.executable).parent)
    machines = [{**host.machine(), 'pythonPath': here} for host in network.hosts]
    service = {'platform': 'remote', 'machineList': machines}
    configured = {**configuration, 'trainingService': service, 'nniManagerIp': network.address}
    lost = network.hosts[1]
    with nni_experiment(tmp_path_factory.mktemp('home'), configured) as experiment:
        wait_until(lambda: {'SUCCEEDED', 'RUNNING'} <= statuses_on(experiment, lost), 400)
        finished = set(trials_of(experiment).query('status == "SUCCEEDED"').index)
        lost.cut_off()
        told = first_lines_of(experiment, 'table', experiment.id, '--wait', count=2, seconds=200)
        dropped = experiment.command('-m', 'trials', 'drop-host', experiment.id, lost.address)
        assert dropped.returncode == 0, dropped.stderr
        table = experiment.command('-m', 'analysis', 'table', experiment.id, '--wait')
        yield {
            'experiment': experiment,
            'finished before': finished,
            'told': told,
            'table': table,
            'trials': trials_of(experiment),
        }


def trials_of(experiment):
    return trials(Experiment(experiment.folder)).set_index('trial')


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)


def left_on(host) -> list[Path]:
    """What trials have left in the host's own home."""
    return list(host.home.glob('nni-experiments/*/environments/*/trials/*/trial.json'))


def statuses_on(experiment, host) -> set[str]:
    """Of the host's trials."""
    events = Experiment(experiment.folder).trial_events()
    there = {event['trialJobId'] for event in events if (event['logPath'] or '').startswith(host.address)}
    latest = {event['trialJobId']: event['event'] for event in events}
    return {latest[trial] for trial in there}


def first_lines_of(experiment, *arguments: str, count: int, seconds: float) -> list[str]:
    """What ``python -m analysis ARGUMENTS`` says, until it has said ``count`` lines besides its progress."""
    command = [sys.executable, '-m', 'analysis', *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=experiment.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        lines, end = [], time.monotonic() + seconds
        for line in process.stderr:  # universal newlines: a progress bar's carriage returns end lines too
            if line.strip() and not line.startswith('Experiment '):
                lines.append(line.strip())
            if len(lines) == count or time.monotonic() > end:
                break
        process.kill()
    return lines


def test_trials_run_on_both_hosts(network, story):
    for host in network.hosts:
        assert left_on(host), host.name


def test_who_waits_is_told_which_host_is_lost_and_what_to_do(network, story):
    lost = network.hosts[1].address
    assert story['told'] == [
        f'Host {lost} does not answer, and NNI waits for its trials. If it does not come back:',
        f'python -m trials drop-host {story["experiment"].id} {lost}',
    ]


def test_the_experiment_completes_on_the_other_host(story):
    table = story['table']
    assert table.returncode == 0, table.stdout + table.stderr
    assert f'Experiment {story["experiment"].id}: DONE' in table.stdout


def test_no_finished_trial_is_lost_or_run_again(story):
    frame = story['trials']
    succeeded = frame[frame.status == 'SUCCEEDED']
    assert len(story['finished before']) >= 1
    assert story['finished before'] <= set(succeeded.index)
    asked = Counter(asked_for(story['experiment'], trial) for trial in succeeded.index)
    assert set(asked.values()) == {1}
    assert Counter(succeeded.strategy) == {'autonl': 3, 'random': 3, 'evolution': 3}


def test_what_the_lost_host_ran_is_run_on_the_other(story):
    frame = story['trials']
    cut_off = frame[frame.status == 'SYS_CANCELED']
    assert len(cut_off) >= 1
    succeeded = {asked_for(story['experiment'], trial) for trial in frame[frame.status == 'SUCCEEDED'].index}
    assert {asked_for(story['experiment'], trial) for trial in cut_off.index} <= succeeded


def asked_for(experiment, trial: str) -> str:
    for event in Experiment(experiment.folder).trial_events():
        if event['trialJobId'] == trial and event['data']:
            return json.dumps(json.loads(event['data'])['parameters'], sort_keys=True)
    raise AssertionError(f'nothing was asked of trial {trial}')
