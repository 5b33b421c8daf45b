"""Networks that a training is given: the one that it starts from (``initial``), the one that it learns from
(``teacher``).

Each is what a trial left, or an import: the folder with ``network.pt`` and ``trial.json``, or ``network.pt`` in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from search_space.skeleton import Row, Sample, Skeleton, idle_choices, label
from strategies.autonl.gated_row import inherit_weight

from .datasets import normalisation
from .parameters import TrialParameters
from .trained_network import load_network
from .training.teacher import Teacher

__all__ = ['check_given', 'inherit', 'load_teacher']

_ALIKE = ('stem_channels', 'stem_stride', 'head_channels', 'activation', 'bn_eps', 'padding')
"""What two skeletons must have in common for one's weights to mean the same in the other."""

_SUPERNETS_OWN = {'row', 'present'}
"""Parts of a weight's name in a supernet, of AutoNL or of NNI's strategies, that its name in a network has not."""

_logger = logging.getLogger(__name__)


def check_given(trial: TrialParameters) -> None:
    """Says, before anything is trained, that a network that the trial is to be given cannot be.

    Raises:
        ValueError: its files are not there or damaged, or it does not fit; one line that begins with the parameter.
    """
    if trial.initial:
        _load_initial(trial)
    load_teacher(trial)


def load_teacher(trial: TrialParameters) -> Teacher | None:
    """The trial's teacher; None where it has none.

    Raises:
        ValueError: as :func:`check_given`.
    """
    if not trial.teacher:
        return None
    try:
        own, skeleton, _, network = _load(trial.teacher)
        pupil = trial.space()
        if skeleton.classes != pupil.classes:
            raise ValueError(
                f'{trial.teacher} has {skeleton.classes} classes, and skeleton {pupil.name!r} {pupil.classes}'
            )
        if own.dataset != trial.dataset and _normalisation(own, skeleton) != _normalisation(trial, pupil):
            raise ValueError(
                f'{trial.teacher} was trained on images of {own.dataset}, which are normalised otherwise than those of '
                f'{trial.dataset}'
            )
    except ValueError as error:
        raise ValueError(f'trial parameter teacher: {error}') from None
    return Teacher(network, trial.teacher_weight, trial.teacher_temperature)


def _normalisation(trial: TrialParameters, skeleton: Skeleton):
    return normalisation(trial.dataset, skeleton.input_size, **trial.dataset_arguments)


def _load(path: str) -> tuple[TrialParameters, Skeleton, Sample, nn.Module]:
    with torch.random.fork_rng(devices=[]):  # a network is built, and that of the trial is to be drawn as without it
        return load_network(Path(path).expanduser())


def _load_initial(trial: TrialParameters) -> tuple[Skeleton, dict[str, Tensor]]:
    """The network that the trial starts from, as a skeleton without choices, and its weights."""
    try:
        _, skeleton, sample, network = _load(trial.initial)
        has, needs = skeleton.fix(sample), trial.space()
        if trial.stage != 'search':
            needs = needs.fix(trial.network)
        for misfit in _misfits(has, needs, trial.initial_partly):
            raise ValueError(f'{trial.initial} does not fit: {misfit}')
    except ValueError as error:
        raise ValueError(f'trial parameter initial: {error}') from None
    return has, network.state_dict()


def _misfits(has: Skeleton, needs: Skeleton, partly: bool) -> Iterator[str]:
    """Where a network does not fit into another, or a supernet.

    Args:
        has: the network that there is.
        needs: what is to take its weights.
        partly: whether the choices may differ.
    """
    for key in _ALIKE:
        if getattr(has, key) != getattr(needs, key):
            yield f'its {key} is {getattr(has, key)!r}, that of skeleton {needs.name!r} {getattr(needs, key)!r}'
    if len(has.rows) != len(needs.rows):
        yield f'it has {len(has.rows)} rows, skeleton {needs.name!r} {len(needs.rows)}'
        return
    for index, (row, wanted) in enumerate(zip(has.rows, needs.rows)):
        for key in ('channels', 'stride'):
            if getattr(row, key) != getattr(wanted, key):
                yield (
                    f'row {index + 1}: its {key} is {getattr(row, key)}, that of skeleton {needs.name!r} '
                    f'{getattr(wanted, key)}'
                )
        for key in [] if partly else [k for k in Row.SEARCHED if k not in idle_choices(row.presence, row.lightnl)]:
            if getattr(row, key) not in wanted.candidates(key):
                wants = ' or '.join(repr(candidate) for candidate in wanted.candidates(key))
                yield (
                    f'its {label(index, key)} is {getattr(row, key)!r}, here it is {wants}; with initial_partly: true '
                    'what the two have in common is taken'
                )


def inherit(network: nn.Module, trial: TrialParameters) -> None:
    """Gives ``network`` the weights that ``trial`` is to start from; nothing where it is to start from none.

    Of the largest kernels and of the channels of a supernet, the centre and the leading ones are those of the smaller
    ones; the rest stays as it is. So does the classifier where the classes are not as many. One line says what was
    taken.

    Args:
        network: of the trial's parameters, or the supernet of its search.
        trial: names the weights.

    Raises:
        ValueError: as :func:`check_given`.
    """
    if not trial.initial:
        return
    skeleton, weights = _load_initial(trial)
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    classes = trial.space().classes
    other_classes = skeleton.classes != classes
    taken = 0
    with torch.no_grad():
        for name, value in own.items():
            plain = '.'.join(part for part in name.split('.') if part not in _SUPERNETS_OWN)
            if plain in weights and not (other_classes and plain.startswith('classifier.')):
                taken += inherit_weight(value, weights[plain])
    fraction = taken / sum(value.numel() for value in own.values())
    _logger.info('%.1f%% of the weights start as those of %s', 100 * fraction, trial.initial)
    if other_classes:
        _logger.info('the classifier starts anew: %s has %d classes, not %d', trial.initial, skeleton.classes, classes)
