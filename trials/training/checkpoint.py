"""Where a trial stands after each epoch, and how it goes on from there to the same result, whatever ended it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from search_space.rules import one_line
from search_space.whole_file import write_whole

from ..identity import identity
from .tensor_file import read_saved

__all__ = ['EpochCheckpoint', 'OtherNetwork', 'checkpoint_path', 'experiment_folder']

_logger = logging.getLogger(__name__)


_PARTS = {'epoch': int, 'state_dict': dict, 'optimizer_states': list, 'lr_schedulers': list, 'callbacks': dict}
"""Of what Lightning's checkpoint holds, what training goes on from."""


class OtherNetwork(Exception):
    """A checkpoint is of another network than the one that is trained."""


def checkpoint_path(folder: Path, parameters: dict[str, Any]) -> Path:
    """The checkpoint, in ``folder``, of the trial of these parameters and of what is in the files that they name."""
    return folder / f'{identity(parameters)[:32]}.ckpt'


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
    write, should one of them still run when the other is started, are points of the same training: whichever is last,
    and whole, will do.

    A checkpoint that cannot be written is said once and ends nothing. One that is damaged is set aside. Of processes
    that train together each has one of the same path: the first writes it, all go on from it.

    Args:
        path: of the checkpoint; its folder is made where there is none.

    Raises:
        RuntimeError: when training starts, processes that train together have read different checkpoints.
        OtherNetwork: when training starts, the checkpoint is of another network.
    """

    def __init__(self, path: Path):
        self.path = path
        self.last_model_path = ''
        self._content: dict[str, Any] | None = None
        self._random_states: dict[str, Any] | None = None
        self._said = False

    def fit_arguments(self) -> dict[str, Any]:
        """What Lightning's ``fit`` needs to go on from the checkpoint; nothing where there is none."""
        self._content = None
        try:
            content = read_saved(self.path)
            for name, kind in _PARTS.items():
                if not isinstance(content, dict) or not isinstance(content.get(name), kind):
                    raise ValueError(f'it has no {name}')
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self.set_aside(f'it cannot be read: {one_line(error)}')
            return {}
        self._content, epochs = content, content['epoch'] + 1
        _logger.info('going on after epoch %d, from %s', epochs, self.path)
        self.last_model_path = str(self.path)
        return {'ckpt_path': str(self.path)}

    def set_aside(self, why: str) -> None:
        """Keep a checkpoint that is of no use under another name, and say so; training starts anew."""
        aside = self.path.with_name(f'{self.path.name}.set-aside')
        with contextlib.suppress(OSError):  # another process of the trial has done it
            self.path.replace(aside)
        self._content, self.last_model_path = None, ''
        _logger.warning('training starts anew, the checkpoint is set aside as %s: %s', aside, why)

    def setup(self, trainer, pl_module, stage):
        if self._content is not None:
            _check_fit(self._content['state_dict'], pl_module.state_dict())
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
        """Remove the checkpoint, what was set aside, and what a killed process left of another."""
        for file in (
            self.path,
            *self.path.parent.glob(f'{self.path.name}.*'),
            *self.path.parent.glob(f'.{self.path.name}.*'),
        ):
            file.unlink(missing_ok=True)


def _check_fit(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in wanted.keys() | found.keys():
        has, needs = (getattr(part.get(name), 'shape', None) for part in (found, wanted))
        if (name in found) != (name in wanted) or has != needs:
            raise OtherNetwork(f'it is of another network, by its {name}')


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
