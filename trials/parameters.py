"""What a trial is a function of: the flat parameters that NNI gives it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from search_space.rules import (
    GRADIENT_NORM,
    LEARNING_RATE,
    MOST_THREADS,
    NAME,
    TEXT,
    TRUTH,
    Rule,
    number,
    one_of,
    shown,
    whole,
    zero_or,
)
from search_space.skeleton import Skeleton, closest
from search_space.skeleton_file import load_skeleton
from strategies.experiment.arguments import CLASS_RULE, EPOCHS, HELD_OUT, HELD_OUT_RULE
from strategies.experiment.seeds import SEED

from .datasets import DATASETS, check_arguments, training_images
from .training.evaluator import OPTIMIZERS, PRECISIONS, SCHEDULES

__all__ = ['IMPORT', 'RULES', 'STAGES', 'TrialParameters']

IMPORT = 'import'
STAGES = ('search', 'retrain', 'test', IMPORT)
_GATHERED = {'network', 'search_class', 'search_arguments', 'dataset_arguments', 'candidates'}


_PER = whole(0, 10**9)
_GIVEN = Rule(lambda v: isinstance(v, str) and '\0' not in v, 'the folder of a trial, or network.pt in it')

RULES = {
    'strategy': NAME,
    'stage': one_of(*STAGES),
    'seed': SEED,
    'skeleton': TEXT,
    'dataset': one_of(*DATASETS),
    'epochs': EPOCHS,
    'batch_size': whole(1, 1_000_000),  # ImageNet is not much more
    'learning_rate': LEARNING_RATE,
    'learning_rate_per': _PER,
    'weight_decay': number(0, 100),  # see TrialParameters._check_rates for what it is together with the rate
    'label_smoothing': number(0, below=1),
    'optimizer': one_of(*OPTIMIZERS),
    'schedule': one_of(*SCHEDULES),
    'learning_rate_warmup': number(0, 100_000),  # as many as there may be epochs
    'staircase_factor': number(0.001, 1),
    'staircase_epochs': number(0.001, 100_000),
    'mixup': zero_or(number(0.001, 1000)),  # shares of 0 and 1 alone, and of a half alone
    'decay_norm_and_bias': TRUTH,
    'ema_decay': number(0, below=1),
    'ema_decay_per': _PER,
    'initial': _GIVEN,
    'initial_partly': TRUTH,
    'teacher': _GIVEN,
    'teacher_weight': number(0, 1),
    'teacher_temperature': number(0.01, 1000),  # logits of some tens become all or nothing, and all the same
    'recalibrate': whole(0, 1_000_000),
    'gradient_clip': zero_or(GRADIENT_NORM),
    'precision': Rule(lambda v: one_of(*PRECISIONS).valid(str(v) if type(v) is int else v), one_of(*PRECISIONS).what),
    'threads': whole(1, MOST_THREADS),
    'devices': whole(1, 1024),  # on one machine
    'workers': whole(0, 1024),
    'held_out': HELD_OUT_RULE,
}
"""What each parameter of a trial may be by itself; a recipe's in ``experiment.yaml`` are these."""


@dataclass(frozen=True)
class TrialParameters:
    """The parameters of one trial.

    Attributes:
        strategy: name of the strategy that asked for it.
        stage: ``search`` runs a one-shot search; ``retrain`` trains a network from scratch and reports its validation
            accuracy; ``test`` does the same and reports its test accuracy too; ``import`` is no training: weights were
            read from a file, and epochs and learning rate are 0.
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
        initial: folder of a trial or import, or ``network.pt`` in it, whose weights the training starts from; empty is
            none.
        initial_partly: whether the network there may differ in what a space searches: then what the two have in common
            is taken.
        teacher: folder of a trial or import, or ``network.pt`` in it, whose outputs a retraining learns from too.
        teacher_weight: fraction of the loss that is the teacher's; see :class:`.training.teacher.Teacher`.
        teacher_temperature: see there.
        recalibrate: training batches that BN's statistics of a trained network are estimated anew on, before it is
            measured; 0 keeps the running ones.
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
    initial: str = ''
    initial_partly: bool = False
    teacher: str = ''
    teacher_weight: float = 0.5
    teacher_temperature: float = 1.0
    recalibrate: int = 0
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
            if not isinstance(key, str):
                raise ValueError(f'trial parameter {shown(key)} must be a word')
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
                raise ValueError(f'unknown trial parameter {shown(key)}; {closest(key, names)}')
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values:
                raise ValueError(f'trial parameter {f.name!r} is missing')
        trial = cls(**values)
        trial._check()
        return trial

    def _check(self) -> None:
        untrained = ('epochs', 'learning_rate') if self.stage == IMPORT else ()
        for name, rule in RULES.items():
            if name not in untrained:
                rule.check(f'trial parameter {name}', getattr(self, name))
        if self.batch_size % self.devices:
            raise ValueError(
                f'trial parameter batch_size must be a multiple of devices ({self.devices}), not {self.batch_size}'
            )
        self._check_rates()
        self._check_schedule()
        self._check_belongings()
        space = self.space()
        check_arguments(self.dataset, self.dataset_arguments, space.input_size)
        self._check_batch()
        if self.stage == 'search':
            self._check_search()
        else:
            self._check_no_search()
            space.check_sample(self.network)

    def _check_rates(self) -> None:
        if self.stage == IMPORT:
            return
        peak = self.learning_rate * self.batch_size / (self.learning_rate_per or self.batch_size)
        at = f' at batch_size {self.batch_size} and learning_rate_per {self.learning_rate_per}'
        LEARNING_RATE.check(f'trial parameter learning_rate{at if self.learning_rate_per else ""}', peak)
        if peak * self.weight_decay >= 1:
            raise ValueError(
                f'trial parameter weight_decay must be less than {1 / peak:g} at a learning rate of {peak:g}, as a '
                f'step takes their product from every weight, not {self.weight_decay!r}'
            )

    def _check_batch(self) -> None:
        images = training_images(self.dataset, **self.dataset_arguments)
        if images is None or self.stage == IMPORT:
            return
        least = images - math.ceil(images * self.held_out) if self.stage == 'search' else images
        if self.batch_size > least:
            raise ValueError(
                f'trial parameter batch_size must be at most the {least:,} images that are trained on, not '
                f'{self.batch_size}'
            )

    def _check_schedule(self) -> None:
        warmup = self.learning_rate_warmup
        if warmup >= self.epochs and self.stage != IMPORT:
            raise ValueError(
                f'trial parameter learning_rate_warmup must be less than all {self.epochs} epochs, not {warmup!r}'
            )
        if warmup and self.schedule == 'one-cycle':
            raise ValueError(
                f'trial parameter learning_rate_warmup is for schedule cosine or staircase, not for {self.schedule}'
            )
        for name in ('staircase_factor', 'staircase_epochs'):
            if self._is_changed(name) and self.schedule != 'staircase':
                raise ValueError(f'trial parameter {name} is for schedule staircase, not for {self.schedule}')

    def _check_belongings(self) -> None:
        """A parameter that says more of another one, which is not there."""
        for name, other in (
            ('ema_decay_per', 'ema_decay'),
            ('initial_partly', 'initial'),
            ('teacher_weight', 'teacher'),
            ('teacher_temperature', 'teacher'),
        ):
            if self._is_changed(name) and not getattr(self, other):
                raise ValueError(f'trial parameter {name} is for {other}, which is missing')

    def _is_changed(self, name: str) -> bool:
        return getattr(self, name) != getattr(type(self), name)

    def _check_search(self) -> None:
        if not self.search_class:
            raise ValueError("trial parameter 'class', the one-shot strategy, is missing")
        CLASS_RULE.check('trial parameter class', self.search_class)
        if self.ema_decay:
            raise ValueError('trial parameter ema_decay is not for a search: the average of a supernet is not searched')
        if self.recalibrate:
            raise ValueError(
                'trial parameter recalibrate is not for a search: the statistics of what it finds are always estimated '
                'anew'
            )
        if self.mixup:
            raise ValueError('trial parameter mixup is not for a search, whose losses on held-out images are compared')
        if self.teacher:
            raise ValueError(
                'trial parameter teacher is not for a search, whose losses on held-out images are compared'
            )
        if self.gradient_clip:
            raise ValueError('trial parameter gradient_clip is not for a search: give its strategy gradient_clip_val')
        clips = self.search_arguments.get('gradient_clip_val')
        if clips and self.precision == '16-mixed' and self.search_class != 'strategies.AutoNL':
            raise ValueError(
                f'trial parameter precision: {self.search_class} clips the gradients of a scaled loss in 16-mixed; '
                f'take bf16-mixed or 32, or leave out gradient_clip_val'
            )

        for label in self.network:
            raise ValueError(f'trial parameter {shown(label)} is not for a search: it is a choice of a network')

    def _check_no_search(self) -> None:
        found = {'class': self.search_class, 'class/': self.search_arguments, 'candidates/': self.candidates}
        for name, value in found.items():
            if value:
                raise ValueError(f'trial parameter {name} is for a search, not for stage {self.stage}')

    def space(self) -> Skeleton:
        """The skeleton, with the candidates that are left."""
        return load_skeleton(self.skeleton).restrict(self.candidates)

    def whole_sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``sample`` of :meth:`space` with the labels, too, that have one candidate left."""
        return load_skeleton(self.skeleton).sample_of(self.space().fix(sample))
