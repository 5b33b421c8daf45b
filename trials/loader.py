"""Batches of a data set, whose order and augmentation are a function of a seed and of how many passes were before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nni
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset, default_collate

from .datasets.image_part import CorruptImage

__all__ = ['Loader', 'loader']


class _Batches(Sampler):
    """Batches of a pass: the number of its permutation, and indices.

    With a seed, the permutations are those that are drawn from it one after the other, and the last partial batch is
    left out; without one, all indices come in order.

    Attributes:
        drawn: how many permutations were drawn; setting it is going on from there.
    """

    def __init__(self, size: int, batch_size: int, seed: int | None):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.drawn = 0
        self._generator, self._generated = torch.Generator(), 0

    def __len__(self) -> int:
        return self.size // self.batch_size if self.seed is not None else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        number = self.drawn
        self.drawn += 1
        order = range(self.size) if self.seed is None else self._permutation(number)
        for batch in range(len(self)):
            yield number, list(order[batch * self.batch_size : (batch + 1) * self.batch_size])

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

    An image that cannot be read is left out. In a training the next one that can be takes its place, for steps to be of
    one size.
    """

    def __init__(self, data: Dataset, seed: int | None):
        self.data, self.seed = data, seed

    def __getitem__(self, batch: tuple[int, list[int]]) -> Any:
        number, indices = batch
        if _in_memory(self.data):
            return self.data[indices]
        # The state of the global generator is kept: it is the network's, and there with or without worker processes.
        with torch.random.fork_rng(devices=[]):
            read = [self._read(number, index) for index in indices]
            readable = [sample for sample in read if sample is not None]
            if not readable:
                return [column[:0] for column in default_collate([self._next_readable(number, indices[0])])]
        return default_collate(readable)

    def _read(self, number: int, index: int) -> tuple[Tensor, Tensor] | None:
        if self.seed is None:
            return self._try(number, index)
        return self._next_readable(number, index)

    def _try(self, number: int, index: int) -> tuple[Tensor, Tensor] | None:
        seed = np.random.SeedSequence((self.seed or 0, number, index)).generate_state(1)
        torch.default_generator.manual_seed(int(seed[0]))
        try:
            return self.data[index]
        except CorruptImage:
            return None

    def _next_readable(self, number: int, index: int) -> tuple[Tensor, Tensor]:
        for offset in range(len(self.data)):
            sample = self._try(number, (index + offset) % len(self.data))
            if sample is not None:
                return sample
        raise ValueError('none of the images of a part of the data set can be read')


@nni.trace
class Loader(DataLoader):
    """PyTorch's loader, with a state: how many permutations were drawn, which is where its next pass begins."""

    def __iter__(self) -> Iterator:
        yield from super().__iter__()
        # A pass that is run to its end counts twice. So it does with PyTorch's RandomSampler, and with the orders that
        # searches were first made with. Counted here, it is the same however far worker processes read ahead.
        self.sampler.drawn += 1

    def state_dict(self) -> dict[str, int]:
        return {'drawn': self.sampler.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.drawn = state['drawn']


def loader(data: Dataset, batch_size: int, seed: int | None = None, workers: int = 0) -> Loader:
    """Batches of ``data``: in a random order drawn from ``seed`` and without the last partial one, or in order.

    What a pass gives is a function of data, batch size, seed and the loader's state before it: after
    ``load_state_dict(state)`` the passes are those that followed on ``state = state_dict()``, in whatever process.

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
