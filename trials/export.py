"""A trained network as a file for use elsewhere, which is checked against PyTorch before it is there.

``python -m trials export CHECKPOINT --format onnx``. A file has what a program needs that is to use the network, see
:meth:`.trained_network.TrainedNetwork.metadata`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from search_space import build
from search_space.lightnl.block import fused
from search_space.skeleton import closest
from search_space.skeleton_file import parse_skeleton
from search_space.whole_file import check_writable, write_whole

from .random_images import random_images
from .trained_network import files_of, load_trained

__all__ = ['FORMATS', 'Exported', 'Format', 'export', 'largest_difference']

CHECKED_BATCHES = (1, 3)
"""Sizes of the batches of random images on which an exported network is compared with PyTorch's."""

TOLERANCE = 1e-4
"""Largest difference of two logits, in units of the largest logit; other orders of summation make less than 1e-5."""

Metadata = dict[str, Any]
Logits = Callable[[Tensor], Tensor]
"""Images `(N, 3, S, S)` to logits `(N, classes)`, both on the CPU."""


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
        fused(network),
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
        traced = torch.jit.trace(fused(network), _example(input_size), check_trace=False)
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

    On images of :func:`.random_images`, in batches of :data:`CHECKED_BATCHES`.

    Args:
        found: an exported network.
        network: the one that it was made from.
        input_size: side of the images in pixels.

    Raises:
        ValueError: the network's own logits are not finite.
    """
    draw, differences = torch.Generator().manual_seed(0), []
    for batch in CHECKED_BATCHES:
        images = random_images(batch, input_size, draw)
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
        raise ValueError(
            f"format {format} needs {', '.join(missing)}: in the project's folder, pip install -e '.[export]'"
        )
    weights, record = files_of(checkpoint)
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
