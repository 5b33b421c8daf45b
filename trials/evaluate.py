"""What a trained or imported network is worth on a data set: ``python -m trials evaluate``."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_space.csv_text import csv_text
from search_space.rules import MOST_THREADS, one_of, whole
from search_space.skeleton import Skeleton
from search_space.skeleton_file import LARGEST_INPUT
from search_space.whole_file import write_whole

from . import datasets
from .parameters import IMPORT, TrialParameters
from .trained_network import load_network
from .training.evaluation import Measured, measure
from .training.evaluator import PRECISIONS, lightning_precision
from .training.loader import loader
from .training.running_statistics import estimate_statistics

__all__ = ['Evaluation', 'evaluate', 'evaluation_text', 'write_confusion', 'write_per_class']

DEVICE, PART = one_of('auto', 'cpu', 'cuda'), one_of('test', 'validation')
_PHOTOGRAPHS = ('crop', 'interpolation')
"""How photographs are brought to the input's size, whichever data set they are of."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` measured, and how.

    Attributes:
        measured: accuracies, loss, counts.
        conditions: ``dataset``, ``part``, its own arguments under ``dataset/``, ``input_size``, ``batch_size``,
            ``device``, ``precision``, ``threads``, and ``recalibrated_on``, batches that BN's statistics were estimated
            anew on.
        class_names: in the order of the logits.
        skipped: images that could not be read.
    """

    measured: Measured
    conditions: dict[str, Any]
    class_names: tuple[str, ...]
    skipped: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it: ``images``, ``skipped``, ``top1``, ``top5`` (fractions), ``loss``, ``seconds``,
        ``images_per_second``, and the conditions."""
        names = ('images', 'top1', 'top5', 'loss', 'seconds', 'images_per_second')
        return {name: getattr(self.measured, name) for name in names} | {'skipped': self.skipped} | self.conditions


def evaluate(
    checkpoint: Path,
    *,
    dataset: str | None = None,
    folder: str | None = None,
    part: str = 'test',
    arguments: dict[str, Any] | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    recalibrate: int = 0,
    precision: str | None = None,
    device: str = 'auto',
    threads: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Evaluation:
    """Measures what a trial or an import left. What is not given is as it was there.

    With nothing given, ``part='validation'`` is the number that the trial reported as ``default``, and ``part='test'``
    its ``test_accuracy``, to the last digit on one machine in 32 bits.

    Args:
        checkpoint: the folder of a trial or import, or ``network.pt`` in it.
        dataset: name of another data set with the same number of classes.
        folder: where its files are.
        part: ``test`` or ``validation``.
        arguments: other arguments of the data set.
        input_size: side of the images in pixels.
        batch_size, workers: as in a recipe.
        recalibrate: batches of training images that BN's statistics are estimated anew on; 0 is none.
        precision: as in a recipe.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
        threads: CPU threads; for imported weights PyTorch's own number.
        progress: wraps the batches, as tqdm does.

    Raises:
        ValueError: as :func:`.load_network` and :func:`.datasets.load`; or an argument is out of range, the data is not
            the network's, or there are too few training images.
    """
    trial, skeleton, _, network = load_network(checkpoint)
    trial = _with(trial, dataset, folder, arguments, batch_size=batch_size, workers=workers, precision=precision)
    for name, rule, value in (
        ('part', PART, part),
        ('device', DEVICE, device),
        ('precision', one_of(*PRECISIONS), str(trial.precision)),
        ('batch size', whole(1, 1_000_000), trial.batch_size),
        ('workers', whole(0, 1024), trial.workers),
        ('recalibrate', whole(0, 1_000_000), recalibrate),
        *([('threads', whole(1, MOST_THREADS), threads)] if threads is not None else []),
        *([('input size', whole(1, LARGEST_INPUT), input_size)] if input_size is not None else []),
    ):
        rule.check(name, value)
    device = _device(device)
    if threads or trial.stage != IMPORT:
        torch.set_num_threads(threads or trial.threads)
    skeleton = dataclasses.replace(skeleton, input_size=input_size or skeleton.input_size)
    parts = _parts(trial, skeleton, test_alone=part == 'test' and not recalibrate)
    datasets.check_fit(parts, skeleton, trial.dataset)
    if recalibrate:
        _recalibrate(network, parts, trial, recalibrate, device)
    images = loader(getattr(parts, part), trial.batch_size, workers=trial.workers)
    precision = lightning_precision(trial.precision)
    measured = measure(network, images, parts.classes, device=device, precision=precision, progress=progress)
    conditions = {
        'dataset': trial.dataset,
        'part': part,
        **{f'dataset/{key}': value for key, value in trial.dataset_arguments.items()},
        'input_size': parts.input_size,
        'batch_size': trial.batch_size,
        'device': device,
        'precision': precision,
        'threads': torch.get_num_threads(),
        'recalibrated_on': recalibrate,
    }
    return Evaluation(measured, conditions, _class_names(trial, parts.classes), parts.skipped_images())


def _class_names(trial: TrialParameters, classes: int) -> tuple[str, ...]:
    names = datasets.class_names(trial.dataset, **trial.dataset_arguments)
    return names if len(names) == classes else tuple(map(str, range(classes)))  # part of ImageNet's, for example


def _with(trial: TrialParameters, dataset, folder, arguments, **changes) -> TrialParameters:
    """The trial's parameters with another data set, and with what else is not None."""
    changes = {name: value for name, value in changes.items() if value is not None}
    own = dict(trial.dataset_arguments)
    if dataset is not None and dataset != trial.dataset:
        datasets.check_arguments(dataset, {})
        known = inspect.signature(datasets.DATASETS[dataset].load).parameters
        own = {key: value for key, value in own.items() if key in _PHOTOGRAPHS and key in known}
        changes['dataset'] = dataset
    own |= arguments or {}
    if folder is not None:
        own['folder'] = folder
    datasets.check_arguments(changes.get('dataset', trial.dataset), own)
    return dataclasses.replace(trial, dataset_arguments=own, **changes)


def _parts(trial: TrialParameters, skeleton: Skeleton, test_alone: bool) -> datasets.DataParts:
    load = datasets.DATASETS[trial.dataset].load_test if test_alone else None
    if load is not None:
        return load(input_size=skeleton.input_size, **trial.dataset_arguments)
    return datasets.load(trial.dataset, skeleton.input_size, **trial.dataset_arguments)


def _device(device: str) -> str:
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('device must be cpu or auto: PyTorch sees no CUDA device here')
    return 'cuda' if device != 'cpu' and torch.cuda.is_available() else 'cpu'


def _recalibrate(network, parts: datasets.DataParts, trial: TrialParameters, batches: int, device: str) -> None:
    there = len(parts.train) // trial.batch_size
    if batches > there:
        raise ValueError(
            f'recalibrate must be at most {there}: the training part of {trial.dataset} has so many batches of '
            f'{trial.batch_size}'
        )
    training = loader(parts.train, trial.batch_size, trial.seed, trial.workers)
    estimate_statistics(network, itertools.islice(training, batches), torch.device(device))


def evaluation_text(network: str, evaluation: Evaluation) -> str:
    """What was measured, for people."""
    measured, of = evaluation.measured, evaluation.conditions
    skipped = f', {evaluation.skipped:,} more could not be read' if evaluation.skipped else ''
    cropped = ''.join(f', {key} {of[f"dataset/{key}"]}' for key in _PHOTOGRAPHS if f'dataset/{key}' in of)
    lines = [
        f'{network} on the {of["part"]} part of {of["dataset"]}: {measured.images:,} images{skipped}',
        f'top-1 {100 * measured.top1:.2f}%, top-5 {100 * measured.top5:.2f}%, loss {measured.loss:.4f}',
        f'{of["input_size"]} pixels{cropped}; {measured.images_per_second:,.0f} images per second on {of["device"]}, '
        f'precision {of["precision"]}, batch {of["batch_size"]}',
    ]
    if of['recalibrated_on']:
        lines.append(f"BN's statistics estimated anew on {of['recalibrated_on']:,} training batches")
    return '\n'.join(lines)


def write_per_class(path: Path, evaluation: Evaluation) -> None:
    """CSV: a row a class, with its images, those whose class was found, and the fraction of them."""
    images, found = evaluation.measured.confusion.sum(1), evaluation.measured.confusion.diagonal()
    rows = [
        (name, int(n), int(k), f'{int(k) / int(n):.6f}' if n else '')
        for name, n, k in zip(evaluation.class_names, images, found, strict=True)
    ]
    write_whole(path, csv_text([('class', 'images', 'correct', 'accuracy'), *rows]).encode('utf-8', 'backslashreplace'))


def write_confusion(path: Path, evaluation: Evaluation) -> None:
    """CSV: a row a class that images are of, a column a class that they were taken for."""
    counts = evaluation.measured.confusion.tolist()
    rows = [(name, *row) for name, row in zip(evaluation.class_names, counts, strict=True)]
    write_whole(path, csv_text([('class', *evaluation.class_names), *rows]).encode('utf-8', 'backslashreplace'))
