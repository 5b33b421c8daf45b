"""How good a network is on images: what trials report, ``python -m trials evaluate`` prints and tests measure with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.autonl.processes import mean_over_processes, process_count

__all__ = ['Measured', 'measure']

_PIXELS_OF_A_THREAD = 16 * 224**2
"""Of the images that a thread has at once on a CPU. Larger tensors are memory that the system gives and takes back at
every layer: with 64 photographs at once AutoNL-L takes a third more of a core's time than with 16."""


@dataclass(frozen=True)
class Measured:
    """What was seen of a network.

    Attributes:
        confusion: how many images of each class (row) were taken for which (column), `(classes, classes)`.
        in_top5: images whose class is among the five of the largest logits.
        loss: mean cross-entropy, without label smoothing.
        seconds: from the first batch to the last, reading included.
    """

    confusion: Tensor
    in_top5: int
    loss: float
    seconds: float

    @property
    def images(self) -> int:
        """How many there were; what cannot be read is not counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Accuracy: the fraction of images whose class has the largest logit."""
        return int(self.confusion.diagonal().sum()) / self.images

    @property
    def top5(self) -> float:
        return self.in_top5 / self.images

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


@torch.no_grad()
def measure(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: int,
    *,
    device: str | torch.device = 'cpu',
    precision: str = '32',
    progress: Callable[[Iterable], Iterable] = iter,
) -> Measured:
    """Runs ``network`` on images whose classes are known.

    Counts are whole, and the loss is summed in double precision: the result is the same number however the images are
    batched, but for what another batch size changes in a logit. Where several processes measure together, each on its
    part of every batch, it is that of all.

    Args:
        network: images `(n, 3, H, W)` to logits `(n, classes)`; left in evaluation, on the device that it was on.
        batches: of images and labels `(n,)`.
        classes: of both.
        device: to compute on.
        precision: Lightning's, ``32``, ``bf16-mixed`` or ``16-mixed``; logits are compared in 32 bits.
        progress: wraps the batches, as tqdm does.

    Raises:
        ValueError: there is no image.
    """
    device, before = torch.device(device), next(network.parameters()).device
    dtype = {'bf16-mixed': torch.bfloat16, '16-mixed': torch.float16}.get(precision)
    network.eval().to(device, memory_format=torch.channels_last)
    confusion = torch.zeros(classes, classes, dtype=torch.long, device=device)
    in_top5, loss = torch.zeros((), dtype=torch.long, device=device), torch.zeros((), dtype=torch.double, device=device)
    started = time.perf_counter()
    for images, labels in progress(batches):
        if not len(labels):  # of a last batch of one image, none is left when that cannot be read
            continue
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = torch.cat([network(piece) for piece in _pieces(images)]).float()
        confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view_as(confusion)
        in_top5 += (logits.topk(min(5, classes)).indices == labels[:, None]).sum()
        loss += nn.functional.cross_entropy(logits, labels, reduction='none').double().sum()
    confusion, in_top5, loss = (_over_processes(of) for of in (confusion, in_top5, loss))
    seconds = time.perf_counter() - started  # after the sums were fetched: a GPU has done its work then
    network.to(before)
    images = int(confusion.sum())
    if not images:  # in no process: all of them come here
        raise ValueError('there is not one image to measure on')
    return Measured(confusion.long(), int(in_top5), float(loss) / images, seconds)


def _pieces(images: Tensor) -> tuple[Tensor, ...]:
    """A batch, on a CPU in parts of no more pixels than are quick to compute on."""
    if images.device.type != 'cpu':
        return (images,)
    pixels = images.shape[2] * images.shape[3]
    return images.split(max(1, torch.get_num_threads() * _PIXELS_OF_A_THREAD // pixels))


def _over_processes(count: Tensor) -> Tensor:
    """The sum of all processes, on the CPU."""
    count = mean_over_processes(count.double()) * process_count() if process_count() > 1 else count
    return count.cpu().round() if count.dim() else count.cpu()
