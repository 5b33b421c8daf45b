"""What a trial is a function of: the flat parameters that NNI gives it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from search_space.skeleton import Skeleton, closest, load_skeleton
from strategies.arguments import HELD_OUT

from .datasets import DATASETS

__all__ = ['STAGES', 'TrialParameters']

STAGES = ('search', 'retrain', 'test')


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
        batch_size: images per step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's.
        label_smoothing: of the training loss.
        threads: CPU threads of the trial.
        held_out: fraction of the training data that a search learns its thresholds on.
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
    label_smoothing: float = 0.0
    threads: int = 1
    held_out: float = HELD_OUT
    network: dict[str, Any] = field(default_factory=dict)
    search_class: str = ''
    search_arguments: dict[str, Any] = field(default_factory=dict)
    candidates: dict[str, list] = field(default_factory=dict)

    @classmethod
    def from_flat(cls, parameters: dict[str, Any]) -> TrialParameters:
        """Read the flat form: choices under their labels, a search's arguments under ``class/``, and under
        ``candidates/`` what the experiment's search space has left of a label.

        Raises:
            ValueError: a key is unknown or missing, or a value is not valid for it.
        """
        names = {f.name for f in dataclasses.fields(cls)} - {
            'network',
            'search_class',
            'search_arguments',
            'candidates',
        }
        values: dict[str, Any] = {'network': {}, 'search_arguments': {}, 'candidates': {}}
        for key, value in parameters.items():
            if key in names:
                values[key] = value
            elif key == 'class':
                values['search_class'] = value
            elif key.startswith('class/'):
                values['search_arguments'][key.removeprefix('class/')] = value
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
            ('dataset', self.dataset in DATASETS, f'one of {", ".join(DATASETS)}'),
            ('epochs', _is_count(self.epochs), 'a whole number of at least 1'),
            ('batch_size', _is_count(self.batch_size), 'a whole number of at least 1'),
            ('threads', _is_count(self.threads), 'a whole number of at least 1'),
            ('seed', isinstance(self.seed, int) and self.seed >= 0, 'a whole number of at least 0'),
            ('learning_rate', _is_number(self.learning_rate) and self.learning_rate > 0, 'a number above 0'),
            ('weight_decay', _is_number(self.weight_decay) and self.weight_decay >= 0, 'a number of at least 0'),
            (
                'label_smoothing',
                _is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1,
                'a number in [0, 1)',
            ),
            ('held_out', _is_number(self.held_out) and 0 < self.held_out < 1, 'a number in (0, 1)'),
        ):
            if not valid:
                raise ValueError(f'trial parameter {name} must be {what}, not {getattr(self, name)!r}')
        if self.stage == 'search' and not self.search_class:
            raise ValueError("trial parameter 'class', the one-shot strategy, is missing")
        space = self.space()
        if self.stage != 'search':
            space.check_sample(self.network)

    def space(self) -> Skeleton:
        """The skeleton, with the candidates that are left."""
        return load_skeleton(self.skeleton).restrict(self.candidates)

    def whole_sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``sample`` of :meth:`space` with the labels, too, that have one candidate left."""
        return load_skeleton(self.skeleton).sample_of(self.space().fix(sample))


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
