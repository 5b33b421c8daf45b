"""RMSprop as TensorFlow has it, with which MnasNet, EfficientNet and AutoNL were trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ['TensorFlowRMSprop']


class TensorFlowRMSprop(Optimizer):
    """RMSprop with ε inside the root, a mean square that starts at 1, and momentum on the scaled gradient.

    Of a weight ``w`` with the gradient ``g`` (and ``weight_decay · w`` in it)::

        m ← α·m + (1 − α)·g²            m starts at 1
        v ← μ·v + lr · g / √(m + ε)     v starts at 0
        w ← w − v

    :class:`torch.optim.RMSprop` divides by ``√m + ε``, starts ``m`` at 0 and multiplies ``v``, not what is added to it,
    by the learning rate. With ``ε = 0.001`` and small gradients the steps of the two are far apart.

    Source: ``tf.compat.v1.train.RMSPropOptimizer``.

    Args:
        params: as of any optimizer.
        lr: learning rate.
        alpha: α, decay of the mean square.
        momentum: μ.
        eps: ε.
        weight_decay: L2.
    """

    def __init__(self, params, lr: float, alpha: float, momentum: float, eps: float, weight_decay: float = 0.0):
        defaults = {'lr': lr, 'alpha': alpha, 'momentum': momentum, 'eps': eps, 'weight_decay': weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; ``closure`` evaluates the loss and its gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [w for w in group['params'] if w.grad is not None]
            if weights:
                self._step(weights, group)
        return loss

    def _step(self, weights: list[Tensor], group: dict) -> None:
        for w in weights:
            if not self.state[w]:
                self.state[w] = {'mean_square': torch.ones_like(w), 'momentum': torch.zeros_like(w)}
        mean_squares, momenta = ([self.state[w][name] for w in weights] for name in ('mean_square', 'momentum'))
        # A kernel for all weights, not one for each: on a GPU their launches would take longer than they do.
        gradients = torch._foreach_add([w.grad for w in weights], weights, alpha=group['weight_decay'])
        torch._foreach_mul_(mean_squares, group['alpha'])
        torch._foreach_addcmul_(mean_squares, gradients, gradients, value=1 - group['alpha'])
        roots = torch._foreach_add(mean_squares, group['eps'])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(momenta, group['momentum'])
        torch._foreach_addcdiv_(momenta, gradients, roots, value=float(group['lr']))
        torch._foreach_sub_(weights, momenta)
