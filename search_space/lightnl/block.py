"""The Lightweight Non-Local (LightNL) block, and the conventional non-local block that it replaces."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import cpu, gpu
from .products import lightnl_product, non_local_product

__all__ = ['LightNL', 'NonLocal', 'fused']

NormLayer = Callable[[int], nn.Module]
"""Makes a norm layer of that many channels, as ``nn.BatchNorm2d`` does."""


def feature_map(x: Tensor, channels: int, block: str) -> Tensor:
    """``x``, which must be `(N, channels, H, W)`.

    Raises:
        ValueError: it is not.
    """
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f'{block} takes (N, {channels}, H, W), not a tensor of shape {list(x.shape)}')
    return x


# Each is one step to torch.fx, which cannot follow what asks for a shape.
torch.fx.wrap('feature_map')
torch.fx.wrap('lightnl_product')


def _norm(channels: int, scale: float, norm_layer: NormLayer | None, device, dtype, **batch_norm) -> nn.Module:
    """The norm layer at the end of a block's branch, whose scale starts at ``scale``."""
    norm = nn.BatchNorm2d(channels, **batch_norm) if norm_layer is None else norm_layer(channels)
    if getattr(norm, 'weight', None) is not None:
        nn.init.constant_(norm.weight, scale)
    return norm.to(device=device, dtype=dtype)


class LightNL(nn.Module):
    r"""The Lightweight Non-Local block, `(N, C, H, W)` to `(N, C, H, W)`.

    With ``k = max(1, ⌊ratio·C⌋)`` leading channels, ``P = H·W`` positions, and the ``p = ⌈H/stride⌉·⌈W/stride⌉``
    positions ``[::stride, ::stride]``::

        x_c  (P × k)   the k leading channels at all positions
        x_s  (p × C)   all channels at the strided positions
        x_sc (p × k)   the k leading channels at the strided positions
        y = (1/P) · (x_c x_scᵀ) x_s
        z = x + BN(DWConv3×3(y))

    There is no softmax and no 1×1 convolution. BN's scale starts at 0, as in the paper, so a fresh block is exactly the
    identity.

    >>> block = LightNL(24, ratio=0.25, stride=2)
    >>> x = torch.randn(1, 24, 14, 14)
    >>> torch.equal(block(x), x)
    True

    Cost: ``min(P·p·(k + C), (P + p)·k·C) + 9·C·P`` MACs, ``11·C`` parameters. The paper writes the first term as
    ``P·p·C·(1 + r)``, the same wherever ``r·C`` is a whole number.

    Source: Li et al., "Neural Architecture Search for Lightweight Non-Local Networks" (CVPR 2020), section 3.1.

    Args:
        channels: C, at least 1.
        ratio: channel ratio r, in (0, 1].
        stride: spatial stride s, at least 1.
        eps: BN's epsilon.
        momentum: BN's momentum, in PyTorch's sense.
        norm_layer: what makes another norm layer in BN's place, ``norm_layer(channels)``; ``eps`` and ``momentum`` are
            then its own business.
        scale: what the norm layer's scale starts at. From 0 it takes an optimizer some epochs to find a use for the
            block, which a short training may not have; 1 is what other layers' BN has.
        device, dtype: of the parameters.

    Raises:
        ValueError: an argument, or the input's shape, is not as above.
    """

    def __init__(
        self,
        channels: int,
        ratio: float,
        stride: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        norm_layer: NormLayer | None = None,
        scale: float = 0.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if channels < 1:
            raise ValueError(f'LightNL: channels must be at least 1, not {channels!r}')
        if not 0 < ratio <= 1:
            raise ValueError(f'LightNL: ratio must be in (0, 1], not {ratio!r}')
        if stride < 1 or stride != int(stride):
            raise ValueError(f'LightNL: stride must be a whole number of at least 1, not {stride!r}')
        self.channels, self.ratio, self.stride = channels, float(ratio), int(stride)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False, device=device, dtype=dtype)
        self.bn = _norm(channels, scale, norm_layer, device, dtype, eps=eps, momentum=momentum)

    def product(self, x: Tensor) -> Tensor:
        """``y``, the affinity product, `(N, C, H, W)`."""
        return lightnl_product(feature_map(x, self.channels, 'LightNL'), self.ratio, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            if gpu.takes_over(self, x):
                return gpu.block(self, x)
            if cpu.takes_over(self, x):
                return cpu.block(self, x)
        return x + self.bn(self.conv(self.product(x)))

    def fuse(self) -> LightNL:
        """Folds BN into the convolution, for inference: the block gives the same values with one pass over the map
        less. In place, and not to be undone; the convolution has a bias from then on, and ``bn`` is the identity.

        Returns:
            The block itself.

        Raises:
            ValueError: the block is in training, or its norm layer is no batch norm with running statistics.
        """
        self.conv, self.bn = _folded(self, self.conv)
        return self

    def extra_repr(self) -> str:
        return f'{self.channels}, ratio={self.ratio}, stride={self.stride}'


class NonLocal(nn.Module):
    r"""The conventional non-local block in its dot-product form, `(N, C, H, W)` to `(N, C, H, W)`.

    ``z = x + BN(W_z · (1/P) θ(x) φ(x)ᵀ g(x))`` with four 1×1 convolutions ``θ φ g W_z``, C to C, without bias.
    BN's scale starts at 0, unless ``scale`` says otherwise. Cost: ``4·C²·P + 2·C·P²`` MACs, ``4·C² + 2·C`` parameters.

    Source: Wang et al., "Non-local Neural Networks" (CVPR 2018), equations 4 and 6.

    Args:
        channels: C, at least 1.
        norm_layer: what makes another norm layer in BN's place, ``norm_layer(channels)``.
        scale: what the norm layer's scale starts at.
        device, dtype: of the parameters.

    Raises:
        ValueError: the input is not `(N, channels, H, W)`.
    """

    def __init__(self, channels: int, norm_layer: NormLayer | None = None, scale: float = 0.0, device=None, dtype=None):
        super().__init__()
        self.channels = channels
        self.theta, self.phi, self.g, self.out = (
            nn.Conv2d(channels, channels, 1, bias=False, device=device, dtype=dtype) for _ in range(4)
        )
        self.bn = _norm(channels, scale, norm_layer, device, dtype)

    def product(self, x: Tensor) -> Tensor:
        """``(1/P) θ(x) φ(x)ᵀ g(x)``, `(N, C, H, W)`."""
        x = feature_map(x, self.channels, 'NonLocal')
        return non_local_product(self.theta(x), self.phi(x), self.g(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.out(self.product(x)))

    def fuse(self) -> NonLocal:
        """Folds BN into ``W_z``, for inference; otherwise as :meth:`LightNL.fuse`."""
        self.out, self.bn = _folded(self, self.out)
        return self


def _folded(block: LightNL | NonLocal, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
    """The convolution before the block's norm layer with that folded in, and what is then in the layer's place."""
    name = 'NonLocal' if isinstance(block, NonLocal) else 'LightNL'
    if isinstance(block.bn, nn.Identity):
        return conv, block.bn
    if block.training:
        raise ValueError(f'{name}.fuse: the block is in training; call eval() first')
    if not isinstance(block.bn, nn.modules.batchnorm._BatchNorm) or block.bn.running_mean is None:
        raise ValueError(
            f'{name}.fuse: cannot fold {block.bn} into the convolution, only batch norm with running statistics'
        )
    return fuse_conv_bn_eval(conv, block.bn), nn.Identity()


def fused(network: nn.Module) -> nn.Module:
    """A copy of ``network`` for inference, in evaluation mode, with every LightNL and non-local block of it fused.

    Raises:
        ValueError: as :meth:`LightNL.fuse`.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, LightNL | NonLocal):
            module.fuse()
    return network
