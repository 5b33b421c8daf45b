"""The modules of a row whose arguments NNI may choose: LightNL and squeeze-excite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .lightnl.block import LightNL
from .lightnl.macs import squeeze_channels
from .nni_nas import ParametrizedModule

__all__ = ['MutableLightNL', 'MutableSqueezeExcite', 'SqueezeExcite']


class MutableLightNL(ParametrizedModule, LightNL, wraps=LightNL):
    """:class:`LightNL` whose ``ratio`` and ``stride`` may be choices (``nni.choice``, NNI 3's ``ValueChoice``)."""


class SqueezeExcite(nn.Module):
    """``x · σ(W₂ swish(W₁ mean(x) + b₁) + b₂)``, `(N, C, H, W)` to the same; the identity at ratio 0.

    Source: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018).

    Args:
        channels: C.
        in_channels: what ``ratio`` is taken of: the input channels of the row, not C.
        ratio: hidden channels are ``round(ratio · in_channels)``, at least 1; at 0 there is no squeeze-excite.
    """

    def __init__(self, channels: int, in_channels: int, ratio: float):
        super().__init__()
        self.channels, self.hidden = channels, squeeze_channels(in_channels, ratio)
        if self.hidden:
            self.reduce = nn.Conv2d(channels, self.hidden, 1)
            self.expand = nn.Conv2d(self.hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.hidden:
            return x
        return x * self.scale(x.mean((2, 3), keepdim=True))

    def scale(self, mean: Tensor) -> Tensor:
        """What ``x`` is multiplied by, given its mean; both are `(N, C, 1, 1)`."""
        return torch.sigmoid(self.expand(nn.functional.silu(self.reduce(mean))))

    def extra_repr(self) -> str:
        return f'{self.channels}, hidden={self.hidden}'


class MutableSqueezeExcite(ParametrizedModule, SqueezeExcite, wraps=SqueezeExcite):
    """:class:`SqueezeExcite` whose ``channels`` and ``ratio`` may be choices."""
