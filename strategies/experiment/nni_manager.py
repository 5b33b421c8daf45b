"""NNI's experiment manager, asked and told over REST by the tuner that it started."""

from __future__ import annotations

import json
import os
from urllib.parse import urlparse

import psutil
import requests
from nni.experiment import rest
from nni.experiment.config.utils import parse_time

__all__ = ['NniManager']


class NniManager:
    """The manager behind ``NNI_TUNER_COMMAND_CHANNEL``, ``ws://localhost:PORT[/PREFIX]/tuner``."""

    def __init__(self):
        channel = urlparse(os.environ['NNI_TUNER_COMMAND_CHANNEL'])
        self._port = channel.port
        self._prefix = channel.path.removesuffix('/tuner').strip('/') or None

    def has_started(self, parameter_id: int) -> bool:
        """Has the trial of these parameters reported anything yet, or ended?"""
        job = self._job(parameter_id)
        if job is None:
            return False
        return not _is_unfinished(job) or bool(rest.get(self._port, f'/metric-data/{job["trialJobId"]}', self._prefix))

    def why_failed(self, parameter_id: int) -> str:
        """NNI's status of the trial of these parameters, and the last line that it wrote to its standard error, or that
        it was stopped at its time limit."""
        job = self._job(parameter_id)
        if job is None:
            return 'NNI knows no such trial'
        trial = f'trial {job["trialJobId"]}, {job["status"]}'
        limit = rest.get(self._port, '/experiment', self._prefix)['params'].get('maxTrialDuration')
        if limit and job.get('endTime', 0) - job['startTime'] > 1000 * parse_time(limit):
            return f'{trial}: it ran over maxTrialDuration, {limit}'
        prefix = f'/{self._prefix}' if self._prefix else ''
        url = f'http://localhost:{self._port}{prefix}/api/v1/nni/trial-file/{job["trialJobId"]}/stderr'
        answer = requests.get(url, timeout=20)
        lines = [line.strip() for line in answer.text.splitlines() if line.strip()] if answer.ok else []
        return f'{trial}: {lines[-1] if lines else "it left no log"}'

    def _job(self, parameter_id: int) -> dict | None:
        jobs = (job for job in self._jobs() if json.loads(job['hyperParameters'][0])['parameter_id'] == parameter_id)
        return next(jobs, None)

    def _jobs(self, since: float | None = None) -> list[dict]:
        """Those that have not ended before ``since`` (ms), by default the start of this process: what had ended before
        ``nnictl resume`` may have the same ids."""
        since = 1000 * psutil.Process().create_time() if since is None else since
        jobs = rest.get(self._port, '/trial-jobs', self._prefix)
        return [job for job in jobs if job.get('hyperParameters') and job.get('endTime', since) >= since]

    def unfinished(self) -> dict[int, dict]:
        """Parameter ids, and parameters, of the trials that have not ended; after ``nnictl resume`` NNI starts those
        that ran before again itself, under their ids."""
        records = [json.loads(job['hyperParameters'][0]) for job in self._jobs() if _is_unfinished(job)]
        return {record['parameter_id']: record['parameters'] for record in records}

    def last_earlier_id(self) -> int:
        """The highest parameter id of the trials that NNI starts, or has started, again after ``nnictl resume``; -1 for
        none. Asked before this tuner has sent any.

        Ids go on after it. But where such a trial ends before the tuner was there, NNI asks for one more under an id of
        before, and then takes its result, and its end, for the earlier trial's: that id must be left unanswered. It is
        one more than there are workers, so none stays idle for it.
        """
        return max((json.loads(job['hyperParameters'][0])['parameter_id'] for job in self._jobs()), default=-1)

    def failed(self) -> list[dict]:
        """Parameters of all trials that have ended, and not well; not of those that a lost host has ended."""
        excused = ('SUCCEEDED', 'SYS_CANCELED')
        ended = [job for job in self._jobs(since=0) if not _is_unfinished(job) and job['status'] not in excused]
        return [json.loads(job['hyperParameters'][0])['parameters'] for job in ended]

    def status(self, parameter_id: int) -> str | None:
        """NNI's status of the trial of these parameters; None where there is none."""
        job = self._job(parameter_id)
        return job and job['status']

    def stop_experiment(self) -> None:
        """Stop the experiment and the manager itself, as ``nnictl stop`` does."""
        rest.delete(self._port, '/experiment', self._prefix)

    def end_experiment(self) -> None:
        """Make the experiment DONE: NNI calls it so when as many trials have ended as its maximal number says."""
        profile = rest.get(self._port, '/experiment', self._prefix)
        profile['params']['maxTrialNumber'] = len(rest.get(self._port, '/trial-jobs', self._prefix))
        rest.put(self._port, '/experiment?update_type=MAX_TRIAL_NUM', profile, self._prefix)


def _is_unfinished(job: dict) -> bool:
    return job['status'] in ('WAITING', 'RUNNING', 'ADD_RESUMED')
