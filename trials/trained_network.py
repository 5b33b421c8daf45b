"""What a trial left: the network that it trained, searched or imported, and what its images and logits stand for."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from search_space import build
from search_space.skeleton import Sample, Skeleton
from search_space.skeleton_file import load_skeleton

from .datasets import class_names, normalisation
from .identity import skeleton_content
from .parameters import TrialParameters
from .training.tensor_file import read_tensors
from .trial_folder import RECORD, SKELETON, WEIGHTS, read_record

__all__ = ['TrainedNetwork', 'files_of', 'load_network', 'load_trained', 'skeleton_text']

_logger = logging.getLogger(__name__)


def skeleton_text(skeleton: Skeleton) -> str:
    """A skeleton as the text of its YAML file."""
    table = json.loads(json.dumps(dataclasses.asdict(skeleton)))  # lists for tuples
    return yaml.safe_dump(table, sort_keys=False, width=120)  # JSON's 1e-05 is no number in YAML


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, and what its images and logits stand for.

    Attributes:
        network: `(N, 3, S, S)` images to `(N, classes)` logits, as in evaluation.
        skeleton: of the space that it is of.
        sample: its choices there.
        labels: what its classes are called, in the order of the logits.
        mean, std: of the three channels; an image is ``(pixels - mean) / std``, of pixels in [0, 1].
    """

    network: nn.Module
    skeleton: Skeleton
    sample: Sample
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def metadata(self) -> dict[str, Any]:
        """What goes with the network into a file.

        ``skeleton`` (text, as in a skeleton's YAML file), ``sample`` (label to candidate), ``input_size`` (pixels),
        ``labels``, ``mean`` and ``std``. Where a format holds texts only, all but the first are JSON.
        """
        return {
            'skeleton': skeleton_text(self.skeleton),
            'sample': self.sample,
            'input_size': self.skeleton.input_size,
            'labels': list(self.labels),
            'mean': list(self.mean),
            'std': list(self.std),
        }


def load_trained(checkpoint: Path) -> TrainedNetwork:
    """What a trial left, whether a retraining, a test, a search or an import.

    Args:
        checkpoint: the trial's folder, or ``network.pt`` in it.

    Raises:
        ValueError: there is no such file, it is damaged, or the weights are those of another network.
    """
    trial, skeleton, sample, network = load_network(checkpoint)
    try:
        mean, std = normalisation(trial.dataset, skeleton.input_size, **trial.dataset_arguments)
        labels = _labels(trial, skeleton.classes)
    except ValueError as error:
        raise ValueError(f'{files_of(checkpoint)[1]}: {error}') from None
    return TrainedNetwork(network, skeleton, sample, labels, mean, std)


def load_network(checkpoint: Path) -> tuple[TrialParameters, Skeleton, Sample, nn.Module]:
    """The parameters of a trial, and the network that it left: skeleton, choices, and weights as in evaluation.

    A skeleton whose file lies in the trial's folder is read from there, wherever the folder was moved to.

    Args:
        checkpoint: the trial's folder, or ``network.pt`` in it.

    Raises:
        ValueError: as :func:`load_trained`.
    """
    weights, record = files_of(checkpoint)
    parameters, result, contents = read_record(record)
    if parameters.get('skeleton') == SKELETON:
        parameters['skeleton'] = str(record.with_name(SKELETON))
    try:
        trial = TrialParameters.from_flat(parameters)
        skeleton = load_skeleton(trial.skeleton)
        if contents.get('skeleton', '') not in ('', skeleton_content(skeleton)):
            raise ValueError(f'the skeleton {trial.skeleton} is not as it was when the network was trained')
        sample = skeleton.check_sample(_found(result) if trial.stage == 'search' else trial.whole_sample(trial.network))
    except ValueError as error:
        raise ValueError(f'{record}: {error}') from None
    try:
        tensors = read_tensors(weights)
    except (OSError, ValueError) as error:
        raise ValueError(f'{weights}: not the weights of a network, or damaged ({_reason(error)})') from None
    network = build(skeleton, sample).eval()
    _check_fit(tensors, network.state_dict(), weights, record)
    network.load_state_dict(tensors)
    return trial, skeleton, sample, network


def files_of(checkpoint: Path) -> tuple[Path, Path]:
    """The weights and the record of a trial."""
    weights = checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint
    if not weights.is_file():
        raise ValueError(f"{weights}: there is no such file; name a trial's folder, or {WEIGHTS} in it")
    record = weights.parent / RECORD
    if not record.is_file():
        raise ValueError(f'{record}: there is no such file; the weights alone do not say of which network they are')
    return weights, record


def _found(result: dict[str, Any]) -> Sample:
    """The sample that a search reports among its metrics, whose names have no slash."""
    return {name: value for name, value in result.items() if '/' in name}


def _labels(trial: TrialParameters, classes: int) -> tuple[str, ...]:
    """The classes' names, or where the data that says them is not on this machine, their numbers."""
    try:
        names = class_names(trial.dataset, **trial.dataset_arguments)
    except ValueError as error:
        _logger.warning('classes are called 0 to %d, as their names are not known here: %s', classes - 1, error)
        return tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise ValueError(f'data set {trial.dataset} has {len(names)} classes, and the network {classes}')
    return names


def _check_fit(found: dict[str, Tensor], wanted: dict[str, Tensor], weights: Path, record: Path) -> None:
    """Says in one line, as PyTorch does in many, that weights are not those of a network."""
    for name in [*wanted, *found]:
        shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (found, wanted)]
        if shapes[0] != shapes[1]:
            has, needs = (f'{shape}' if shape is not None else 'none' for shape in shapes)
            raise ValueError(
                f'{weights}: not the weights of the network of {record}: of {name} it has {has}, the network {needs}'
            )


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)
