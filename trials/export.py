"""A trained network as a file for use elsewhere, which is checked against PyTorch before it is there.

``python -m trials export CHECKPOINT --format onnx``. A file has what a program needs that is to use the network, see
:meth:`TrainedNetwork.metadata`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn

from search_space import build
from search_space.skeleton import Sample, Skeleton, closest, load_skeleton, parse_skeleton
from search_space.whole_file import check_writable, write_whole

from .datasets import class_names, normalisation
from .parameters import TrialParameters
from .training.tensor_file import read_tensors
from .trial_folder import RECORD, WEIGHTS

__all__ = [
    'FORMATS',
    'Exported',
    'Format',
    'TrainedNetwork',
    'export',
    'largest_difference',
    'load_network',
    'load_trained',
]

CHECKED_BATCHES = (1, 3)
"""Sizes of the batches of random images on which an exported network is compared with PyTorch's."""

TOLERANCE = 1e-4
"""Largest difference of two logits, in units of the largest logit; other orders of summation make less than 1e-5."""

Metadata = dict[str, Any]
Logits = Callable[[Tensor], Tensor]
"""Images `(N, 3, S, S)` to logits `(N, classes)`, both on the CPU."""

_logger = logging.getLogger(__name__)


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

    def metadata(self) -> Metadata:
        """What goes with the network into a file.

        ``skeleton`` (text, as in a skeleton's YAML file), ``sample`` (label to candidate), ``input_size`` (pixels),
        ``labels``, ``mean`` and ``std``. Where a format holds texts only, all but the first are JSON.
        """
        table = json.loads(json.dumps(dataclasses.asdict(self.skeleton)))  # lists for tuples
        return {
            'skeleton': yaml.safe_dump(table, sort_keys=False, width=120),  # JSON's 1e-05 is no number in YAML
            'sample': self.sample,
            'input_size': self.skeleton.input_size,
            'labels': list(self.labels),
            'mean': list(self.mean),
            'std': list(self.std),
        }


def load_trained(checkpoint: Path) -> TrainedNetwork:
    """What a trial left, whether a retraining, a test or a search.

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
        raise ValueError(f'{_files(checkpoint)[1]}: {error}') from None
    return TrainedNetwork(network, skeleton, sample, labels, mean, std)


def load_network(checkpoint: Path) -> tuple[TrialParameters, Skeleton, Sample, nn.Module]:
    """The parameters of a trial, and the network that it left: skeleton, choices, and weights as in evaluation.

    Args:
        checkpoint: the trial's folder, or ``network.pt`` in it.

    Raises:
        ValueError: as :func:`load_trained`.
    """
    weights, record = _files(checkpoint)
    parameters, result = _read_record(record)
    try:
        trial = TrialParameters.from_flat(parameters)
        skeleton = load_skeleton(trial.skeleton)
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


def _files(checkpoint: Path) -> tuple[Path, Path]:
    """The weights and the record of a trial."""
    weights = checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint
    if not weights.is_file():
        raise ValueError(f"{weights}: there is no such file; name a trial's folder, or {WEIGHTS} in it")
    record = weights.parent / RECORD
    if not record.is_file():
        raise ValueError(f'{record}: there is no such file; the weights alone do not say of which network they are')
    return weights, record


def _read_record(record: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = json.loads(record.read_text('utf-8'))
        parameters, result = content['parameters'], content['result']
    except OSError as error:
        raise ValueError(f'{record}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{record}: not what a trial leaves, JSON with the keys parameters and result') from None
    if not isinstance(parameters, dict) or not isinstance(result, dict):
        raise ValueError(f'{record}: parameters and result must be JSON objects')
    return parameters, result


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


class Format(NamedTuple):
    """A format of exported networks.

    Attributes:
        suffix: of a file's name.
        needs: packages that are not among the project's own dependencies.
        write: the file's content, given a network, the side of its input in pixels, and metadata.
        read: the network from such content, as a function of images.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[[nn.Module, int, Metadata], bytes]
    read: Callable[[bytes], Logits]


def _texts(metadata: Metadata) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _example(input_size: int) -> Tensor:
    """Images to follow a network with: two, as ``torch.export`` takes a batch of one for a constant."""
    return torch.zeros(2, 3, input_size, input_size)


def _write_onnx(network: nn.Module, input_size: int, metadata: Metadata) -> bytes:
    import onnx

    batch = torch.export.Dim('batch')  # unlike Dim.DYNAMIC an error where an operation has made a constant of it
    program = torch.onnx.export(
        network,
        (_example(input_size),),
        input_names=['images'],
        output_names=['logits'],
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, _texts(metadata))
    return model.SerializeToString()


def _read_onnx(content: bytes) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(['logits'], {'images': images.numpy()})[0])


def _write_torchscript(network: nn.Module, input_size: int, metadata: Metadata) -> bytes:
    content = io.BytesIO()
    with torch.no_grad():
        traced = torch.jit.trace(network, _example(input_size), check_trace=False)
    torch.jit.save(traced, content, _extra_files=_texts(metadata))
    return content.getvalue()


def _read_torchscript(content: bytes) -> Logits:
    return torch.jit.load(io.BytesIO(content), map_location='cpu')


def _write_torch(network: nn.Module, input_size: int, metadata: Metadata) -> bytes:
    content = io.BytesIO()
    torch.save(metadata | {'state_dict': network.state_dict()}, content)
    return content.getvalue()


def _read_torch(content: bytes) -> Logits:
    loaded = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    network = build(parse_skeleton(loaded['skeleton'], 'skeleton'), loaded['sample']).eval()
    network.load_state_dict(loaded['state_dict'])
    return network


FORMATS = {
    'onnx': Format('.onnx', ('onnx', 'onnxscript', 'onnxruntime'), _write_onnx, _read_onnx),
    'torchscript': Format('.torchscript.pt', (), _write_torchscript, _read_torchscript),
    'torch': Format('.torch.pt', (), _write_torch, _read_torch),
}
"""By name. The input and the output of an ONNX file are called ``images`` and ``logits``.

Those of torchscript are traced, which holds for one input size: LightNL's cheaper order of products depends on it. The
batch is free in all of them.
"""


def largest_difference(found: Logits, network: nn.Module, input_size: int) -> float:
    """The largest difference of ``found`` from ``network`` in a logit, in units of the network's largest logit.

    On random images, in batches of :data:`CHECKED_BATCHES`.

    Args:
        found: an exported network.
        network: the one that it was made from.
        input_size: side of the images in pixels.

    Raises:
        ValueError: the network's own logits are not finite.
    """
    draw, differences = torch.Generator().manual_seed(0), []
    for batch in CHECKED_BATCHES:
        images = torch.randn(batch, 3, input_size, input_size, generator=draw)
        with torch.no_grad():
            expected, logits = network(images), found(images)
        if not expected.isfinite().all():
            raise ValueError('the logits of the network are NaN or infinite')
        scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        differences.append(float((logits - expected).abs().max() / scale))
    return max(differences, key=lambda difference: (math.isnan(difference), difference))


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Attributes:
        file: where.
        bytes: its size.
        difference: from PyTorch's, see :func:`largest_difference`.
    """

    file: Path
    bytes: int
    difference: float


def export(checkpoint: Path, format: str, out: Path | None = None) -> Exported:
    """Writes what a trial trained to a file, after a check of the file's content; whole or not at all.

    Args:
        checkpoint: as for :func:`load_trained`.
        format: a key of :data:`FORMATS`.
        out: the file; by default beside the weights, ``network.onnx`` or the like.

    Raises:
        ValueError: the format is unknown or needs a package that is not there; as :func:`load_trained`; or the check
            has failed.
        OSError: the file cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f'no format {format!r}; {closest(format, FORMATS)}')
    form = FORMATS[format]
    missing = [package for package in form.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"format {format} needs {', '.join(missing)}: pip install 'autonl-nni[export]'")
    weights, record = _files(checkpoint)
    out = out or weights.with_name(weights.name.removesuffix('.pt') + form.suffix)
    if any(out.exists() and out.samefile(own) for own in (weights, record)):
        raise ValueError(f"{out}: this is the trial's own, which is not written over; name another file with --out")
    check_writable(out)
    trained = load_trained(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of PyTorch to itself: what comes of it is checked
        content = form.write(trained.network, trained.skeleton.input_size, trained.metadata())
        difference = largest_difference(form.read(content), trained.network, trained.skeleton.input_size)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{out} is not written: in {format} the network's logits are not PyTorch's, but differ by up to "
            f'{difference:.1g} of the largest one'
        )
    write_whole(out, content)
    return Exported(out, len(content), difference)
