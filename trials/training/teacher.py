"""A network that another one learns from: its outputs are the soft targets of a training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['Teacher']


class Teacher:
    """Knowledge distillation: with the logits ``t`` of the teacher and ``s`` of the student, the loss is::

        (1 − weight) · cross-entropy(s, labels) + weight · T² · KL(softmax(t / T) ‖ softmax(s / T))

    the divergence a mean over the batch. T² keeps its gradient's scale the same at every temperature T.

    It is no module: its weights are none of the student's, in a checkpoint, an average of weights or an optimizer.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Args:
        network: `(N, 3, S, S)` images to `(N, classes)` logits; put into evaluation mode, and never changed.
        weight: fraction of the loss, in [0, 1].
        temperature: T, above 0.
    """

    def __init__(self, network: nn.Module, weight: float, temperature: float):
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.weight, self.temperature = weight, temperature

    def __deepcopy__(self, memo):
        return self  # of a student whose weights are averaged there are two, and they have one teacher

    def divergence(self, images: Tensor, logits: Tensor) -> Tensor:
        """``T² · KL``, a scalar.

        Args:
            images: `(N, 3, S, S)`, as the student has them.
            logits: the student's, `(N, classes)`.
        """
        with torch.no_grad():
            taught = self.network.to(images.device)(images.contiguous(memory_format=torch.channels_last))
        student, teacher = ((x.float() / self.temperature).log_softmax(1) for x in (logits, taught))
        divergence = nn.functional.kl_div(student, teacher, reduction='batchmean', log_target=True)
        return self.temperature**2 * divergence

    def loss(self, cross_entropy: Tensor, divergence: Tensor) -> Tensor:
        """The weighted sum of the two."""
        return (1 - self.weight) * cross_entropy + self.weight * divergence
