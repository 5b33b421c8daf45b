"""Weights that others released, as what a trial of this project leaves: ``python -m trials import``.

Every tensor of the network is filled exactly once, with a tensor of the file of the same shape. Which is which, and
what of the file is not used, stands in ``weights.csv``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_space import build, macs, params
from search_space.csv_text import csv_text
from search_space.lookup import look_up_network
from search_space.skeleton import SAME, Skeleton
from search_space.whole_file import check_folder, write_whole

from ..datasets import DATASETS
from ..parameters import IMPORT
from ..run import save_trial
from ..trained_network import skeleton_text
from ..trial_folder import RECORD, SKELETON, WEIGHTS
from .division import AS_WRITTEN, FORMULA, divide_by_formula, division_of
from .pytorch_checkpoint import StoredTensor, read_pytorch
from .released_names import AVERAGE, names_in_pytorch, names_in_tensorflow
from .tensorflow_checkpoint import TensorFlowCheckpoint, index_of

__all__ = ['AUTO', 'TABLE', 'Imported', 'WeightsFile', 'fill', 'import_weights', 'open_weights']

TABLE = 'weights.csv'
"""Which tensor of the network is which of the file, and which of the file are not used."""

AUTO = 'auto'
"""The division is decided by the file."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of released weights, whose tensors are read one at a time.

    Attributes:
        file: what errors call it.
        kind: ``TensorFlow`` or ``PyTorch``.
        shapes: of all of its tensors, by name.
        weights: of those that are weights, the name by which ``pairs`` knows them to the name in ``shapes``.
        pairs: name in a network to name of a weight, given the network and the names of the weights.
        read: a tensor by its name in ``shapes``, as PyTorch has it, float32.
        sha256: of the file; of a TensorFlow checkpoint, of its index, which has the checksums of all tensors.
    """

    file: Path
    kind: str
    shapes: dict[str, tuple[int, ...]]
    weights: dict[str, str]
    pairs: Callable[[Skeleton, dict[str, str]], dict[str, str]]
    read: Callable[[str], Tensor]
    sha256: str


def open_weights(file: Path) -> WeightsFile:
    """A TensorFlow checkpoint (its index, a data file, or its name without ending) or a PyTorch file; it is seen which.

    Raises:
        ValueError: there is no such file, it is neither, is damaged, or wants code to be run; one line that names it.
        OSError: it cannot be read.
    """
    index = index_of(file) if file.name else None
    if index is not None:
        return _tensorflow(TensorFlowCheckpoint(index))
    if not file.is_file():
        raise ValueError(f'{file}: there is no such file; name a PyTorch file or the .index of a TensorFlow checkpoint')
    return _pytorch(file)


def _tensorflow(checkpoint: TensorFlowCheckpoint) -> WeightsFile:
    checkpoint.check()  # a file that is damaged where nothing is taken from is refused too
    names = checkpoint.entries
    return WeightsFile(
        checkpoint.index,
        'TensorFlow',
        {name: entry.shape for name, entry in names.items()},
        {name.removesuffix(AVERAGE): name for name in names if name.endswith(AVERAGE)},
        names_in_tensorflow,
        lambda name: _turned(name, torch.from_numpy(checkpoint.read(name).copy())),
        _digest(checkpoint.index),
    )


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Kernels `(h, w, in, out)` as `(out, in, h, w)`, depthwise ones `(h, w, C, 1)` as `(C, 1, h, w)`, dense ones as
    their transpose."""
    kind = name.removesuffix(AVERAGE).rpartition('/')[2]
    order = {('kernel', 4): (3, 2, 0, 1), ('depthwise_kernel', 4): (2, 3, 0, 1), ('kernel', 2): (1, 0)}
    return tensor.permute(order.get((kind, tensor.ndim), tuple(range(tensor.ndim))))


def _pytorch(file: Path) -> WeightsFile:
    tensors = _tensors(read_pytorch(file))
    prefixes = ('ema.shadow.', 'model.')  # the averages, or else what they would be averages of
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in tensors)), '')
    return WeightsFile(
        file,
        'PyTorch',
        {name: stored.shape for name, stored in tensors.items()},
        {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)},
        names_in_pytorch,
        lambda name: tensors[name].read().float(),
        _digest(file),
    )


def _tensors(content: Any, prefix: str = '') -> dict[str, StoredTensor]:
    """All tensors in dicts and lists, by their keys joined with dots."""
    if isinstance(content, StoredTensor):
        return {prefix.removesuffix('.'): content}
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {name: stored for key, value in items for name, stored in _tensors(value, f'{prefix}{key}.').items()}


def _digest(file: Path) -> str:
    with file.open('rb') as opened:
        return hashlib.file_digest(opened, 'sha256').hexdigest()


def fill(network: nn.Module, weights: WeightsFile, skeleton: Skeleton) -> dict[str, str]:
    """Copies the weights into ``network``; name in the network to name in the file.

    Args:
        network: of ``skeleton``.
        weights: the file.
        skeleton: with nothing left to choose.

    Raises:
        ValueError: a tensor is missing, there twice, of another shape, damaged or not finite; one line that names the
            file and the tensor.
        OSError: the file cannot be read.
    """
    other = f'{weights.file}: not the weights of this network'
    try:
        pairs = weights.pairs(skeleton, weights.weights)
    except ValueError as error:
        raise ValueError(f'{other}: {error}') from None
    filled = {}
    for ours, tensor in network.state_dict().items():
        if ours.endswith('num_batches_tracked'):  # counts steps of training, and changes nothing
            continue
        theirs = weights.weights.get(pairs.get(ours, ''))
        if theirs is None:
            wanted = f' ({pairs[ours]})' if ours in pairs else ''
            raise ValueError(f'{other}: it has nothing for {ours}{wanted}')
        value = weights.read(theirs)
        if value.shape != tensor.shape:
            raise ValueError(f'{other}: {theirs} is {tuple(value.shape)}, and {ours} is {tuple(tensor.shape)}')
        if not value.isfinite().all() or (ours.endswith('running_var') and bool((value < 0).any())):
            raise ValueError(f'{weights.file}: damaged: {theirs} has values that no such weights have')
        tensor.copy_(value)
        filled[ours] = theirs
    return filled


@dataclass(frozen=True)
class Imported:
    """What :func:`import_weights` did.

    Attributes:
        kind: of the file, see :class:`WeightsFile`.
        filled: name in the network to name in the file.
        unused: names in the file.
        division: what was found of it, in words; empty for a TensorFlow checkpoint.
    """

    kind: str
    filled: dict[str, str]
    unused: list[str]
    division: str


def import_weights(file: Path, network: str, out: Path, *, dataset: str = 'imagenet', division: str = AUTO) -> Imported:
    """Leaves in ``out`` what a trial leaves, its skeleton, and :data:`TABLE`.

    A TensorFlow checkpoint gives a network whose padding is TensorFlow's. How its images were cropped and resized is
    recorded as arguments of the data set.

    Args:
        file: as of :func:`open_weights`.
        network: a shipped network, or the path of a network's file.
        out: the folder; made if it is not there.
        dataset: name of the data set that the weights are of.
        division: of LightNL's product, in the program that trained a PyTorch file: :data:`AUTO`, ``formula`` or
            ``as-written``, see :mod:`.division`.

    Raises:
        ValueError: as :func:`open_weights`, :func:`fill`, :func:`.division_of` and :func:`.look_up_network`; ``out``
            has a trial already; or a division is given for a TensorFlow checkpoint.
        OSError: something cannot be read or written.
    """
    check_folder(out)
    for name in (RECORD, WEIGHTS, SKELETON, TABLE):
        if (out / name).exists():
            raise ValueError(f'{out / name}: is there already, and is not written over; name another folder')
    if dataset not in DATASETS:
        raise ValueError(f'no data set {dataset!r}; it must be one of {", ".join(DATASETS)}')
    if division not in (AUTO, FORMULA, AS_WRITTEN):
        raise ValueError(f'division must be one of {AUTO}, {FORMULA}, {AS_WRITTEN}, not {division!r}')
    skeleton, sample = look_up_network(network)
    weights = open_weights(file)
    if weights.kind == 'TensorFlow':
        if division != AUTO:
            raise ValueError(
                f'division is for PyTorch files, not {division!r} for {file}: the TensorFlow program divides by H·W'
            )
        skeleton = dataclasses.replace(skeleton, padding=SAME)
    fixed = skeleton.fix(sample)
    filling = build(skeleton, sample).eval()
    filled = fill(filling, weights, fixed)
    said = ''
    if weights.kind == 'PyTorch':
        if division == AUTO:
            division, said = division_of(filling, fixed, file)
        if division == AS_WRITTEN:
            divide_by_formula(filling, fixed)
    used = set(filled.values())
    unused = [name for name in weights.shapes if name not in used]
    origin = {
        'file': file.name,
        'kind': weights.kind,
        'sha256': weights.sha256,
        'network': network,
        'input_size': skeleton.input_size,
        'tensors': len(filled),
        'unused_tensors': len(unused),
        **({'division': division} if weights.kind == 'PyTorch' else {}),
    }
    parameters = {
        'strategy': IMPORT,
        'stage': IMPORT,
        'seed': 0,
        'skeleton': SKELETON,
        'dataset': dataset,
        **_cropped_as(weights.kind, dataset),
        'epochs': 0,
        'batch_size': 64,
        'learning_rate': 0.0,
        'precision': '32',
        **sample,
    }
    result = {'macs': macs(skeleton)(sample), 'params': params(skeleton)(sample), 'imported': origin}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / TABLE, _table(filled, unused, weights.shapes))
    write_whole(out / SKELETON, skeleton_text(skeleton).encode())
    save_trial(out, parameters, result, filling)
    return Imported(weights.kind, filled, unused, said)


def _cropped_as(kind: str, dataset: str) -> dict[str, str]:
    """How both programs bring photographs to the input size, before they evaluate."""
    if dataset not in ('imagenet', 'image-folder'):
        return {}
    crop = 'tensorflow' if kind == 'TensorFlow' else 'square'
    return {'dataset/crop': crop, 'dataset/interpolation': 'bicubic'}


def _table(filled: dict[str, str], unused: list[str], shapes: dict[str, tuple[int, ...]]) -> bytes:
    rows = [
        (ours, theirs, '×'.join(map(str, shapes[theirs])))
        for ours, theirs in [*filled.items(), *(('', name) for name in unused)]
    ]
    return csv_text([('network', 'file', 'shape in the file'), *rows]).encode('utf-8', 'backslashreplace')
