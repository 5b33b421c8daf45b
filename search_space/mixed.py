"""LightNL and squeeze-excite as mixed operations of NNI, so that its one-shot strategies can search their choices.

NNI gives each searched argument either as one value (a sampled path) or as a dict, value to weight (DARTS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .lightnl import gpu
from .lightnl.block import LightNL
from .lightnl.macs import compact_channels, squeeze_channels
from .lightnl.products import attend, contexts, lightnl_product
from .mutable import MutableLightNL, MutableSqueezeExcite, SqueezeExcite
from .nni_nas import MixedConv2d, MixedOperation

__all__ = [
    'MixedBiaslessConv2d',
    'MixedLightNL',
    'MixedSqueezeExcite',
    'mixed_context',
    'mixed_product',
    'prefix_mask',
]

Weights = dict  # candidate to its weight, a number or a scalar tensor


def prefix_mask(sizes: Weights, like: Tensor) -> Tensor:
    """``m_i = Σ_n w_n · 1[i < n]`` for ``sizes`` n to w_n, `(max n,)`: each channel's weight under nested prefixes."""
    positions = torch.arange(max(sizes), device=like.device)
    return sum(weight * (positions < size).to(like.dtype) for size, weight in sizes.items())


def mixed_product(x: Tensor, ratios: Weights, strides: Weights) -> Tensor:
    """``Σ_r Σ_s w_r · w_s · y(r, s)``, at the cost of the largest ``y``; ``x`` and the sum are `(N, C, H, W)`.

    The channels are nested in r, so with ``y = (1/P) · x_c (x_scᵀ x_s)`` a ratio's weight falls on the rows of the
    context: one product serves all ratios. Exactly ``y(r, s)`` where one ratio and one stride have weight 1.

    Args:
        x: features.
        ratios, strides: candidate to weight.
    """
    x_c, by_stride = contexts(x, max(ratios), strides)
    return attend(x_c, mixed_context(by_stride, x.shape[1], ratios, strides), x)


def mixed_context(by_stride: dict[int, Tensor], channels: int, ratios: Weights, strides: Weights) -> Tensor:
    """``Σ_s w_s · context(s)``, each row times the weights of the ratios that have it, `(N, k, C)`.

    Args:
        by_stride: the context `(N, k, C)` of the largest ratio, of each stride.
        channels: C.
        ratios, strides: candidate to weight.
    """
    mixed = sum(weight * by_stride[stride] for stride, weight in strides.items())
    sizes: Weights = {}
    for ratio, weight in ratios.items():
        k = compact_channels(channels, ratio)
        sizes[k] = sizes.get(k, 0) + weight
    return mixed * prefix_mask(sizes, mixed)[:, None]


def _as_weights(argument) -> Weights:
    return argument if isinstance(argument, dict) else {argument: 1.0}


class MixedBiaslessConv2d(MixedConv2d):
    """NNI's mixed convolution, which cannot be frozen where it has no bias: its weights then say ``bias: None``."""

    def freeze_weight(self, *args, **kwargs):
        weights = super().freeze_weight(*args, **kwargs)
        return {name: value for name, value in weights.items() if value is not None}


class MixedLightNL(MixedOperation, LightNL):
    """LightNL with its ratio, its stride or both searched; one depthwise kernel and BN serve all candidates."""

    bound_type = MutableLightNL
    argument_list = ['ratio', 'stride']  # noqa: RUF012 - NNI's own declaration

    def super_init_argument(self, name, value_choice):
        return max(value_choice.grid())

    def freeze_weight(self, **arguments):
        own = ('conv.', 'bn.')
        return {name: value for name, value in self.state_dict().items() if name.startswith(own)}

    def product(self, x: Tensor) -> Tensor:
        ratio, stride = (self.forward_argument(name) for name in self.argument_list)
        if not isinstance(ratio, dict) and not isinstance(stride, dict):
            return lightnl_product(x, ratio, stride)
        return mixed_product(x, _as_weights(ratio), _as_weights(stride))

    def context_on_gpu(self, x: Tensor) -> Tensor:
        """What :meth:`product` multiplies ``x_c`` by, `(N, k, C)`, by kernels."""
        ratios, strides = (_as_weights(self.forward_argument(name)) for name in self.argument_list)
        by_stride = gpu.contexts(x, max(ratios), strides)
        return mixed_context(by_stride, x.shape[1], ratios, strides)

    def convolved(self, x: Tensor) -> Tensor:
        """``DWConv3×3(y)``, `(N, C, H, W)`."""
        if gpu.takes_over(self, x):
            return gpu.convolved(x, self.context_on_gpu(x), self.conv.weight)
        return self.conv(self.product(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.convolved(x))  # MixedOperation has one of its own, for operations of a single product


class MixedSqueezeExcite(MixedOperation, SqueezeExcite):
    """Squeeze-excite with its ratio, its channels (which follow the expansion ratio) or both searched.

    Hidden channels and channels are nested prefixes. Under weights the result is ``Σ_r w_r · SE_r(x)``, the mean that
    it squeezes weighted by how much of each channel the expansion ratios leave: BN has undone that weight in ``x``.
    """

    bound_type = MutableSqueezeExcite
    argument_list = ['channels', 'ratio']  # noqa: RUF012 - NNI's own declaration

    def super_init_argument(self, name, value_choice):
        return max(value_choice.grid())

    def freeze_weight(self, channels, in_channels, ratio, **arguments):
        hidden = squeeze_channels(in_channels, ratio)
        if not hidden:
            return {}
        return {
            'reduce.weight': self.reduce.weight[:hidden, :channels],
            'reduce.bias': self.reduce.bias[:hidden],
            'expand.weight': self.expand.weight[:channels, :hidden],
            'expand.bias': self.expand.bias[:channels],
        }

    def forward(self, x: Tensor) -> Tensor:
        channels, ratio = (self.forward_argument(name) for name in self.argument_list)
        ratios = _as_weights(ratio)
        mean = x.mean((2, 3), keepdim=True) if any(ratios) else None
        if mean is not None and isinstance(channels, dict):
            mean = mean * prefix_mask(channels, mean)[:, None, None]
        scale = sum(weight * self._scale(mean, ratio) for ratio, weight in ratios.items())
        return x * scale

    def _scale(self, mean: Tensor, ratio: float) -> Tensor | float:
        """What ``x`` is multiplied by at one ratio, `(N, C, 1, 1)`; ``mean`` is `(N, C, 1, 1)`."""
        if not ratio:
            return 1.0
        weights = self.freeze_weight(mean.shape[1], self.init_arguments['in_channels'], ratio)
        squeezed = nn.functional.conv2d(mean, weights['reduce.weight'], weights['reduce.bias'])
        scale = nn.functional.conv2d(nn.functional.silu(squeezed), weights['expand.weight'], weights['expand.bias'])
        return torch.sigmoid(scale)
