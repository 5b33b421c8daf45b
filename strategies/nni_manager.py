"""NNI's experiment manager, asked and told over REST by the tuner that it started."""

from __future__ import annotations

import json
import os
from urllib.parse import urlparse

import requests
from nni.experiment import rest

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
        ended = job['status'] not in ('WAITING', 'RUNNING')
        return ended or bool(rest.get(self._port, f'/metric-data/{job["trialJobId"]}', self._prefix))

    def why_failed(self, parameter_id: int) -> str:
        """NNI's status of the trial of these parameters, and the last line that it wrote to its standard error."""
        job = self._job(parameter_id)
        if job is None:
            return 'NNI knows no such trial'
        prefix = f'/{self._prefix}' if self._prefix else ''
        url = f'http://localhost:{self._port}{prefix}/api/v1/nni/trial-file/{job["trialJobId"]}/stderr'
        answer = requests.get(url, timeout=20)
        lines = [line.strip() for line in answer.text.splitlines() if line.strip()] if answer.ok else []
        return f'trial {job["trialJobId"]}, {job["status"]}: {lines[-1] if lines else "it left no log"}'

    def _job(self, parameter_id: int) -> dict | None:
        for job in rest.get(self._port, '/trial-jobs', self._prefix):
            if any(json.loads(p)['parameter_id'] == parameter_id for p in job.get('hyperParameters', [])):
                return job
        return None

    def stop_experiment(self) -> None:
        """Stop the experiment and the manager itself, as ``nnictl stop`` does."""
        rest.delete(self._port, '/experiment', self._prefix)

    def end_experiment(self) -> None:
        """Make the experiment DONE: NNI calls it so when as many trials have ended as its maximal number says."""
        profile = rest.get(self._port, '/experiment', self._prefix)
        profile['params']['maxTrialNumber'] = len(rest.get(self._port, '/trial-jobs', self._prefix))
        rest.put(self._port, '/experiment?update_type=MAX_TRIAL_NUM', profile, self._prefix)
