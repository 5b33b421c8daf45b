"""NNI's experiment manager, asked and told over REST by the tuner that it started."""

from __future__ import annotations

import json
import os
from urllib.parse import urlparse

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
        for job in rest.get(self._port, '/trial-jobs', self._prefix):
            if any(json.loads(p)['parameter_id'] == parameter_id for p in job.get('hyperParameters', [])):
                ended = job['status'] not in ('WAITING', 'RUNNING')
                return ended or bool(rest.get(self._port, f'/metric-data/{job["trialJobId"]}', self._prefix))
        return False

    def end_experiment(self) -> None:
        """Make the experiment DONE: NNI calls it so when as many trials have ended as its maximal number says."""
        profile = rest.get(self._port, '/experiment', self._prefix)
        profile['params']['maxTrialNumber'] = len(rest.get(self._port, '/trial-jobs', self._prefix))
        rest.put(self._port, '/experiment?update_type=MAX_TRIAL_NUM', profile, self._prefix)
