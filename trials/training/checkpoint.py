"""Where a trial stands after each epoch, and how it goes on from there to the same result, whatever ended it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from search_space.whole_file import write_whole

__all__ = ['EpochCheckpoint', 'checkpoint_path', 'experiment_folder']

_logger = logging.getLogger(__name__)


def checkpoint_path(folder: Path, parameters: dict[str, Any]) -> Path:
    """The checkpoint, in ``folder``, of the trial of these parameters; other parameters have another one."""
    key = json.dumps(parameters, sort_keys=True).encode()
    return folder / f'{hashlib.sha256(key).hexdigest()[:32]}.ckpt'


def experiment_folder(output: Path) -> Path:
    """Where the trials of an experiment look for each other's checkpoints: beside their own folders.

    When NNI runs a trial again it is a new one, with a new ``NNI_OUTPUT_DIR``; the folder that these lie in is the
    experiment's, on each machine one.

    Args:
        output: the trial's ``NNI_OUTPUT_DIR``.
    """
    trial = os.environ.get('NNI_TRIAL_JOB_ID')
    own = next((folder for folder in (output, *output.parents) if folder.name == trial), output)
    return own.parent / 'checkpoints'


class _WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, written whole or not at all, and of what was read already.

    Attributes:
        error: why the last one could not be written. It is kept and not raised: only the first of several processes
            writes, and the others wait for it.
    """

    def __init__(self, content: dict[str, Any] | None):
        self._content = content
        self.error: OSError | None = None

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        content, self._content = self._content, None
        return content

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content.getvalue())
            self.error = None
        except OSError as error:
            self.error = error


class EpochCheckpoint(pl.callbacks.Checkpoint):
    """Writes Lightning's checkpoint, with the random states, after each epoch but the last, and goes on from it.

    A training of :func:`.evaluator.evaluator`, whose loaders' states are in its checkpoints too, then ends as an
    undisturbed one does, bit for bit, at whatever moment it was killed. What several trials of the same parameters
    write, should one of them still run when the other is started, are points of the same course: whichever is last,
    and whole, will do.

    A checkpoint that cannot be written is said once and ends nothing, nor does one that cannot be read. Of processes
    that train together each has one of the same path: the first writes it, all go on from it.

    Args:
        path: of the checkpoint; its folder is made where there is none.

    Raises:
        RuntimeError: when training starts, processes that train together have read different checkpoints.
    """

    def __init__(self, path: Path):
        self.path = path
        self.last_model_path = ''
        self._content: dict[str, Any] | None = None
        self._random_states: dict[str, Any] | None = None
        self._said = False

    def fit_arguments(self) -> dict[str, Any]:
        """What Lightning's ``fit`` needs to go on from the checkpoint; nothing where there is none."""
        try:
            self._content = torch.load(self.path, map_location='cpu', weights_only=True)
            epochs = self._content['epoch'] + 1
        except FileNotFoundError:
            return {}
        except Exception as error:  # of whatever the bytes in the file make of themselves
            _logger.warning('%s cannot be read, training starts anew: %s', self.path, str(error).partition('\n')[0])
            return {}
        _logger.info('going on after epoch %d, from %s', epochs, self.path)
        self.last_model_path = str(self.path)
        return {'ckpt_path': str(self.path)}

    def setup(self, trainer, pl_module, stage):
        epoch = self._content['epoch'] if self._content else None
        if trainer.strategy.broadcast(epoch) != epoch:  # another trial of these parameters has written or removed it
            raise RuntimeError(f'{self.path} changed while the processes of the trial started')
        trainer.strategy.checkpoint_io = _WholeFiles(self._content)
        self._content = None

    def on_fit_start(self, trainer, pl_module):
        # An optimizer's state is saved in the order of its parameters, and NNI's DARTS gives its own a set of them.
        place = {id(parameter): i for i, parameter in enumerate(pl_module.parameters())}
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group['params'].sort(key=lambda parameter: place[id(parameter)])

    def on_train_epoch_start(self, trainer, pl_module):
        if self._random_states is not None:
            _set_random_states(self._random_states)
            self._random_states = None

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == trainer.max_epochs:
            return  # the end of a training is run again, with all that hooks do there
        self._random_states = _random_states()
        trainer.save_checkpoint(self.path)
        self._random_states = None
        error = trainer.strategy.checkpoint_io.error
        if error is None:
            self.last_model_path = str(self.path)
        elif not self._said:
            _logger.warning('there is no checkpoint of epoch %d: %s', trainer.current_epoch + 1, error)
            self._said = True

    def state_dict(self):
        return {'random_states': self._random_states}

    def load_state_dict(self, state_dict):
        self._random_states = state_dict['random_states']

    def remove(self) -> None:
        """Remove the checkpoint, and what a killed process left of another."""
        for file in (self.path, *self.path.parent.glob(f'.{self.path.name}.*')):
            file.unlink(missing_ok=True)


def _random_states() -> dict[str, Any]:
    """In types that ``torch.load(weights_only=True)`` reads."""
    name, keys, *rest = np.random.get_state()
    return {
        'python': random.getstate(),
        'numpy': (name, keys.tolist(), *rest),
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states['cuda'])
