"""Part of a data set whose images are read one at a time; those that cannot be read are noted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from search_space.rules import one_line

__all__ = ['CorruptImage', 'ImagePart']

_logger = logging.getLogger(__name__)


class CorruptImage(Exception):
    """An image that cannot be read; its loader goes on without it."""


class ImagePart(Dataset):
    """Some images of a data set, each read and transformed when it is asked for.

    The first time that an image cannot be read, one warning names its file.

    Args:
        source: gives `(image, label)` at an index; has ``targets`` and, where images are files, ``samples``.
        indices: the images of ``source`` that are of this part.
        transform: image to tensor `(3, input_size, input_size)`; draws from PyTorch's global generator, if at all.

    Attributes:
        labels: of the images, `(n,)`.
        skipped: which of them could not be read, `(n,)`; shared with worker processes.
    """

    def __init__(self, source: Dataset, indices: Sequence[int], transform: Callable):
        self.source, self.transform = source, transform
        self.indices = torch.as_tensor(indices)
        self.labels = torch.as_tensor(source.targets)[self.indices]
        self.skipped = torch.zeros(len(self.indices), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An image and its label.

        Raises:
            CorruptImage: the image cannot be read.
        """
        at = int(self.indices[index])
        try:
            image, _ = self.source[at]
        except Exception as error:  # Pillow's readers raise a dozen types on files that are damaged or no images
            file = one_line(self.source.samples[at][0])
            if not self.skipped[index]:
                self.skipped[index] = True
                why = one_line(error) or type(error).__name__
                _logger.warning('%s is skipped: not an image that can be read (%s)', file, why)
            raise CorruptImage(file) from None
        return self.transform(image), self.labels[index]
