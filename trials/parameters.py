"""What a trial is a function of: the flat parameters that NNI gives it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from search_space.skeleton import Skeleton, closest, load_skeleton
from strategies.experiment.arguments import HELD_OUT

from .datasets import DATASETS, check_arguments
from .training.evaluator import OPTIMIZERS, PRECISIONS, SCHEDULES

__all__ = ['STAGES', 'TrialParameters']

STAGES = ('search', 'retrain', 'test')
_GATHERED = {'network', 'search_class', 'search_arguments', 'dataset_arguments', 'candidates'}


@dataclass(frozen=True)
class TrialParameters:
    """The parameters of one trial.

    Attributes:
        strategy: name of the strategy that asked for it.
        stage: ``search`` runs a one-shot search; ``retrain`` trains a network from scratch and reports its validation
            accuracy; ``test`` does the same and reports its test accuracy too.
        seed: of weights, batches and search.
        skeleton: name or file of the space's skeleton.
        dataset: name of the data set.
        epochs: passes over the training data (in a search: over the part that is not held out).
        batch_size: images per step, over all devices.
        learning_rate: peak of the schedule.
        learning_rate_per: images of a step that ``learning_rate`` is for; at another batch size it is in proportion.
            0 is any.
        weight_decay: the optimizer's.
        label_smoothing: of the loss.
        optimizer: ``adamw``, ``rmsprop``, ``rmsprop-tf`` (as TensorFlow has it) or ``sgd``.
        schedule: of the learning rate, ``one-cycle``, ``cosine`` or ``staircase``.
        learning_rate_warmup: epochs in which the schedules ``cosine`` and ``staircase`` rise to their peak.
        staircase_factor: what ``staircase`` multiplies the learning rate by every ``staircase_epochs``.
        staircase_epochs: see there.
        decay_norm_and_bias: whether weight decay is for BN and biases too.
        mixup: α of the mixing of training images and labels; 0 is none.
        ema_decay: of the moving average of weights that is validated, tested and kept; 0 is none.
        ema_decay_per: images of a step that ``ema_decay`` is for; at another batch size it is the same per image.
            0 is any.
        gradient_clip: largest norm of the gradient; 0 is none.
        precision: ``auto``, ``32``, ``bf16-mixed`` or ``16-mixed``; auto is bf16-mixed on a GPU that has it.
        threads: CPU threads of the trial, of each of its processes.
        devices: GPUs, or where there is none processes, that train together, each on its part of every batch.
        workers: processes that read images, where these are in files; of each device.
        held_out: fraction of the training data that a search learns its thresholds on.
        dataset_arguments: of the data set, such as ``folder``.
        network: label to candidate; empty for a search.
        search_class: import path of the one-shot strategy; empty where there is no search.
        search_arguments: its arguments.
        candidates: label to the candidates that the search may choose from, where they are not all of the skeleton's.
    """

    strategy: str
    stage: str
    seed: int
    skeleton: str
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    learning_rate_per: int = 0
    label_smoothing: float = 0.0
    optimizer: str = 'adamw'
    schedule: str = 'one-cycle'
    learning_rate_warmup: float = 0.0
    staircase_factor: float = 0.97
    staircase_epochs: float = 2.4
    decay_norm_and_bias: bool = True
    mixup: float = 0.0
    ema_decay: float = 0.0
    ema_decay_per: int = 0
    gradient_clip: float = 0.0
    precision: str | int = 'auto'
    threads: int = 1
    devices: int = 1
    workers: int = 0
    held_out: float = HELD_OUT
    dataset_arguments: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    search_class: str = ''
    search_arguments: dict[str, Any] = field(default_factory=dict)
    candidates: dict[str, list] = field(default_factory=dict)

    @classmethod
    def from_flat(cls, parameters: dict[str, Any]) -> TrialParameters:
        """Read the flat form: choices under their labels, arguments under ``class/`` (a search's) and ``dataset/``, and
        under ``candidates/`` what the experiment's search space has left of a label.

        Raises:
            ValueError: a key is unknown or missing, or a value is not valid for it.
        """
        names = {f.name for f in dataclasses.fields(cls)} - _GATHERED
        values: dict[str, Any] = {key: {} for key in _GATHERED if key != 'search_class'}
        for key, value in parameters.items():
            if key in names:
                values[key] = value
            elif key == 'class':
                values['search_class'] = value
            elif key.startswith('class/'):
                values['search_arguments'][key.removeprefix('class/')] = value
            elif key.startswith('dataset/'):
                values['dataset_arguments'][key.removeprefix('dataset/')] = value
            elif key.startswith('candidates/'):
                values['candidates'][key.removeprefix('candidates/')] = value
            elif '/' in key:
                values['network'][key] = value
            else:
                raise ValueError(f'unknown trial parameter {key!r}; {closest(key, names)}')
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values:
                raise ValueError(f'trial parameter {f.name!r} is missing')
        trial = cls(**values)
        trial._check()
        return trial

    def _check(self) -> None:
        for name, valid, what in (
            ('stage', self.stage in STAGES, f'one of {", ".join(STAGES)}'),
            ('dataset', self.dataset in list(DATASETS), f'one of {", ".join(DATASETS)}'),
            ('epochs', _is_whole(self.epochs, 1), 'a whole number of at least 1'),
            ('batch_size', _is_whole(self.batch_size, 1), 'a whole number of at least 1'),
            ('threads', _is_whole(self.threads, 1), 'a whole number of at least 1'),
            ('devices', _is_whole(self.devices, 1), 'a whole number of at least 1'),
            ('workers', _is_whole(self.workers, 0), 'a whole number of at least 0'),
            ('seed', _is_whole(self.seed, 0), 'a whole number of at least 0'),
            ('learning_rate', _is_number(self.learning_rate) and self.learning_rate > 0, 'a number above 0'),
            ('learning_rate_per', _is_whole(self.learning_rate_per, 0), 'a whole number of at least 0'),
            ('weight_decay', _is_number(self.weight_decay) and self.weight_decay >= 0, 'a number of at least 0'),
            ('label_smoothing', _is_share(self.label_smoothing), 'a number in [0, 1)'),
            ('optimizer', self.optimizer in OPTIMIZERS, f'one of {", ".join(OPTIMIZERS)}'),
            ('schedule', self.schedule in SCHEDULES, f'one of {", ".join(SCHEDULES)}'),
            (
                'staircase_factor',
                _is_number(self.staircase_factor) and 0 < self.staircase_factor <= 1,
                'a number in (0, 1]',
            ),
            ('staircase_epochs', _is_number(self.staircase_epochs) and self.staircase_epochs > 0, 'a number above 0'),
            ('mixup', _is_number(self.mixup) and self.mixup >= 0, 'a number of at least 0'),
            ('decay_norm_and_bias', isinstance(self.decay_norm_and_bias, bool), 'true or false'),
            ('ema_decay', _is_share(self.ema_decay), 'a number in [0, 1)'),
            ('ema_decay_per', _is_whole(self.ema_decay_per, 0), 'a whole number of at least 0'),
            ('gradient_clip', _is_number(self.gradient_clip) and self.gradient_clip >= 0, 'a number of at least 0'),
            ('precision', str(self.precision) in PRECISIONS, f'one of {", ".join(PRECISIONS)}'),
            ('held_out', _is_share(self.held_out) and self.held_out > 0, 'a number in (0, 1)'),
        ):
            if not valid:
                raise ValueError(f'trial parameter {name} must be {what}, not {getattr(self, name)!r}')
        if self.batch_size % self.devices:
            raise ValueError(
                f'trial parameter batch_size must be a multiple of devices ({self.devices}), not {self.batch_size}'
            )
        self._check_schedule()
        space = self.space()
        check_arguments(self.dataset, self.dataset_arguments, space.input_size)
        if self.stage == 'search':
            self._check_search()
        else:
            space.check_sample(self.network)

    def _check_schedule(self) -> None:
        warmup = self.learning_rate_warmup
        if not _is_number(warmup) or not 0 <= warmup < self.epochs:
            raise ValueError(
                f'trial parameter learning_rate_warmup must be a number of epochs from 0 to less than all '
                f'{self.epochs} of them, not {warmup!r}'
            )
        if warmup and self.schedule == 'one-cycle':
            raise ValueError(
                f'trial parameter learning_rate_warmup is for schedule cosine or staircase, not for {self.schedule}'
            )
        for name in ('staircase_factor', 'staircase_epochs'):
            if getattr(self, name) != getattr(type(self), name) and self.schedule != 'staircase':
                raise ValueError(f'trial parameter {name} is for schedule staircase, not for {self.schedule}')
        if self.ema_decay_per and not self.ema_decay:
            raise ValueError('trial parameter ema_decay_per is for ema_decay, which is missing')

    def _check_search(self) -> None:
        if not self.search_class:
            raise ValueError("trial parameter 'class', the one-shot strategy, is missing")
        if self.ema_decay:
            raise ValueError('trial parameter ema_decay is not for a search: the average of a supernet is not searched')
        if self.mixup:
            raise ValueError('trial parameter mixup is not for a search, whose losses on held-out images are compared')
        if self.gradient_clip:
            raise ValueError('trial parameter gradient_clip is not for a search: give its strategy gradient_clip_val')

    def space(self) -> Skeleton:
        """The skeleton, with the candidates that are left."""
        return load_skeleton(self.skeleton).restrict(self.candidates)

    def whole_sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``sample`` of :meth:`space` with the labels, too, that have one candidate left."""
        return load_skeleton(self.skeleton).sample_of(self.space().fix(sample))


def _is_whole(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value) -> bool:
    return _is_number(value) and 0 <= value < 1
