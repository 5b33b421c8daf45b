"""Batches of a data set, whose order and augmentation are a function of a seed and of how many passes were before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing.context import BaseContext
from typing import Any

import nni
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset, default_collate

from strategies.autonl.processes import process_count, process_rank

from ..datasets.image_part import CorruptImage
from .worker_log import worker_log

__all__ = ['Loader', 'loader']

_ATTEMPTS = 8
"""At a substitute for an unreadable image, before all are looked at: enough where half of the images are unreadable."""


class _Batches(Sampler):
    """Batches of a pass: the number of its permutation, and indices.

    With a seed, the permutations are those that are drawn from it one after the other, and the last partial batch is
    left out; without one, all indices come in order.

    Where several processes train together they are this one's part, ``batch[rank::processes]``: so the batches are the
    same however many these are. A last partial batch may be too small for all of them; then some have one batch less.

    Attributes:
        drawn: how many permutations were drawn; setting it is going on from there.
    """

    def __init__(self, size: int, batch_size: int, seed: int | None):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.drawn = 0
        self._generator, self._generated = torch.Generator(), 0

    def __len__(self) -> int:
        left = self.size % self.batch_size if self.seed is None else 0
        return self.size // self.batch_size + (left > process_rank())

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        number = self.drawn
        self.drawn += 1
        order = range(self.size) if self.seed is None else self._permutation(number)
        for batch in range(len(self)):
            whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield number, list(whole[process_rank() :: process_count()])

    def _permutation(self, number: int) -> list[int]:
        if not 0 < self._generated <= number:
            self._generator.manual_seed(self.seed)
            self._generated = 0
        while self._generated <= number:
            self._generated += 1
            order = torch.randperm(self.size, generator=self._generator)
        return order.tolist()


class _BatchReader(Dataset):
    """Whole batches of ``data``: images `(n, 3, input_size, input_size)`, labels `(n,)`.

    An image that cannot be read is left out. In a training another one takes its place, for steps to be of one size: it
    is drawn from the whole part, so that what is unreadable side by side is not made up for by one image.
    """

    def __init__(self, data: Dataset, seed: int | None):
        self.data, self.seed = data, seed
        self._permutations: dict[tuple[int, int], Tensor] = {}

    def __getitem__(self, batch: tuple[int, list[int]]) -> Any:
        number, indices = batch
        if _in_memory(self.data):
            return self.data[indices]
        # The state of the global generator is kept: it is the network's, and there with or without worker processes.
        with torch.random.fork_rng(devices=[]):
            read = [self._read(number, index) for index in indices]
            readable = [sample for sample in read if sample is not None]
            if not readable:
                return [column[:0] for column in default_collate([self._substitute(number, indices[0])])]
        return default_collate(readable)

    def _read(self, number: int, index: int) -> tuple[Tensor, Tensor] | None:
        sample = self._try(index, number, index)
        return self._substitute(number, index) if sample is None and self.seed is not None else sample

    def _try(self, index: int, *randomness: int) -> tuple[Tensor, Tensor] | None:
        """The image at ``index``, augmented as the seed and ``randomness`` say; None where it cannot be read."""
        torch.default_generator.manual_seed(self._seed(*randomness))
        try:
            return self.data[index]
        except CorruptImage:
            return None

    def _seed(self, *randomness: int) -> int:
        return int(np.random.SeedSequence((self.seed or 0, *randomness)).generate_state(1)[0])

    def _substitute(self, number: int, index: int) -> tuple[Tensor, Tensor]:
        """A readable image for the one at ``index``, in the pass of that number.

        In a permutation of the part an image stands for one other at most. So each attempt has a permutation of its
        own, the same for all images; after the last one every image of the part is looked at.
        """
        for attempt in range(_ATTEMPTS):
            sample = self._try(int(self._permutation(number, attempt)[index]), number, index, attempt)
            if sample is not None:
                return sample
        for other in self._drawn(number, index, _ATTEMPTS).tolist():
            sample = self._try(other, number, index, _ATTEMPTS)
            if sample is not None:
                return sample
        raise ValueError('none of the images of a part of the data set can be read')

    def _permutation(self, number: int, attempt: int) -> Tensor:
        if (number, attempt) not in self._permutations:
            of_pass = {key: order for key, order in self._permutations.items() if key[0] == number}
            self._permutations = of_pass | {(number, attempt): self._drawn(number, attempt)}
        return self._permutations[number, attempt]

    def _drawn(self, *randomness: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed(*randomness))
        return torch.randperm(len(self.data), generator=generator)


@nni.trace
class Loader(DataLoader):
    """PyTorch's loader, with a state: how many permutations were drawn, which is where its next pass begins."""

    def __iter__(self) -> Iterator:
        try:
            with worker_log(self._started_by()) if self.num_workers else nullcontext() as self.worker_init_fn:
                yield from super().__iter__()
        finally:
            self.worker_init_fn = None  # it cannot be copied, as a loader can
        # A pass that is run to its end counts twice. So it does with PyTorch's RandomSampler, and with the orders that
        # searches were first made with. Counted here, it is the same however far worker processes read ahead.
        self.sampler.drawn += 1

    def _started_by(self) -> BaseContext:
        context = self.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() == 'forkserver':
            context.set_forkserver_preload(['__main__', __name__])  # imported once, and not by every worker of a pass
        return context

    def state_dict(self) -> dict[str, int]:
        return {'drawn': self.sampler.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.drawn = state['drawn']


def loader(data: Dataset, batch_size: int, seed: int | None = None, workers: int = 0) -> Loader:
    """Batches of ``data``: in a random order drawn from ``seed`` and without the last partial one, or in order.

    What a pass gives is a function of data, batch size, seed and the loader's state before it: after
    ``load_state_dict(state)`` the passes are those that followed on ``state = state_dict()``, in whatever process.
    Where several processes train together, each gives its part of every batch.

    Args:
        data: gives an image and its label at an index; a ``TensorDataset``, or a ``Subset`` of one, a whole batch at a
            list of indices.
        batch_size: images of a batch.
        seed: of the order, and of random augmentation.
        workers: processes that read images; what is in memory needs none, and gets none.

    Raises:
        ValueError: in a random order, and there is not even one batch.
    """
    if seed is not None and len(data) < batch_size:
        raise ValueError(f'a batch of {batch_size} images cannot be drawn from a part of {len(data)}')
    return Loader(
        _BatchReader(data, seed),
        sampler=_Batches(len(data), batch_size, seed),
        batch_size=None,
        num_workers=0 if _in_memory(data) else workers,
        pin_memory=torch.cuda.is_available(),
    )


def _in_memory(data: Dataset) -> bool:
    while isinstance(data, Subset):
        data = data.dataset
    return isinstance(data, TensorDataset)
