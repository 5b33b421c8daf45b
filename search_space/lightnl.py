"""The Lightweight Non-Local (LightNL) block, and the conventional non-local block that it replaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .block_cost import compact_channels, compact_positions, lightnl_macs, non_local_macs, product_macs

__all__ = [
    'LightNL',
    'NonLocal',
    'affinity_first',
    'compact_channels',
    'compact_positions',
    'context',
    'context_first',
    'leading_channels',
    'lightnl_macs',
    'lightnl_product',
    'non_local_macs',
    'product_macs',
]


def leading_channels(x: Tensor, ratio: float) -> Tensor:
    """``x_c`` `(N, k, P)` of ``x`` `(N, C, H, W)`."""
    return x[:, : compact_channels(x.shape[1], ratio)].flatten(2)


def _strided(x: Tensor, x_c: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """``x_s`` `(N, C, p)` and ``x_sc`` `(N, k, p)`."""
    if stride == 1:  # x_c itself: its gradient is padded to all of the channels once, not twice
        return x.flatten(2), x_c
    x_s = x[:, :, ::stride, ::stride].flatten(2)
    return x_s, x_s[:, : x_c.shape[1]]


def context(x: Tensor, x_c: Tensor, stride: int) -> Tensor:
    """``(1/P) · x_scᵀ x_s`` `(N, k, C)` of ``x`` `(N, C, H, W)` and its leading channels ``x_c`` `(N, k, P)`."""
    x_s, x_sc = _strided(x, x_c, stride)
    return torch.bmm(x_sc / x_c.shape[2], x_s.transpose(1, 2))


def affinity_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · (x_c x_scᵀ) x_s``, through the `P × p` affinity; ``x`` and ``y`` are `(N, C, H, W)`."""
    x_c = leading_channels(x, ratio)
    x_s, x_sc = _strided(x, x_c, stride)
    affinity = torch.bmm(x_c.transpose(1, 2), x_sc / x_c.shape[2])
    return torch.bmm(x_s, affinity.transpose(1, 2)).view_as(x)


def context_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · x_c (x_scᵀ x_s)``, through the `k × C` context; ``x`` and ``y`` are `(N, C, H, W)`."""
    x_c = leading_channels(x, ratio)
    return torch.bmm(context(x, x_c, stride).transpose(1, 2), x_c).view_as(x)


def lightnl_product(x: Tensor, ratio: float, stride: int) -> Tensor:
    """The affinity product by whichever order costs fewer MACs at the shape of ``x`` `(N, C, H, W)`."""
    affinity_macs, context_macs = product_macs(*x.shape[1:], ratio, stride)
    order = affinity_first if affinity_macs < context_macs else context_first
    return order(x, ratio, stride)


def _check_map(x: Tensor, channels: int, block: str) -> None:
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f'{block} takes (N, {channels}, H, W), not a tensor of shape {tuple(x.shape)}')


class LightNL(nn.Module):
    r"""The Lightweight Non-Local block, `(N, C, H, W)` to `(N, C, H, W)`.

    With ``k = max(1, ⌊ratio·C⌋)`` leading channels, ``P = H·W`` positions, and the ``p = ⌈H/stride⌉·⌈W/stride⌉``
    positions ``[::stride, ::stride]``::

        x_c  (P × k)   the k leading channels at all positions
        x_s  (p × C)   all channels at the strided positions
        x_sc (p × k)   the k leading channels at the strided positions
        y = (1/P) · (x_c x_scᵀ) x_s
        z = x + BN(DWConv3×3(y))

    There is no softmax and no 1×1 convolution. BN's scale starts at 0, so a fresh block is exactly the identity.

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

    Raises:
        ValueError: an argument, or the input's shape, is not as above.
    """

    def __init__(self, channels: int, ratio: float, stride: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        if channels < 1:
            raise ValueError(f'LightNL: channels must be at least 1, not {channels!r}')
        if not 0 < ratio <= 1:
            raise ValueError(f'LightNL: ratio must be in (0, 1], not {ratio!r}')
        if stride < 1 or stride != int(stride):
            raise ValueError(f'LightNL: stride must be a whole number of at least 1, not {stride!r}')
        self.channels, self.ratio, self.stride = channels, ratio, int(stride)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=eps, momentum=momentum)
        nn.init.zeros_(self.bn.weight)

    def product(self, x: Tensor) -> Tensor:
        """``y``, the affinity product, `(N, C, H, W)`."""
        _check_map(x, self.channels, type(self).__name__)
        return lightnl_product(x, self.ratio, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(self.product(x)))

    def extra_repr(self) -> str:
        return f'{self.channels}, ratio={self.ratio}, stride={self.stride}'


class NonLocal(nn.Module):
    r"""The conventional non-local block in its dot-product form, `(N, C, H, W)` to `(N, C, H, W)`.

    ``z = x + BN(W_z · (1/P) θ(x) φ(x)ᵀ g(x))`` with four 1×1 convolutions ``θ φ g W_z``, C to C, without bias.
    BN's scale starts at 0. Cost: ``4·C²·P + 2·C·P²`` MACs, ``4·C² + 2·C`` parameters.

    Source: Wang et al., "Non-local Neural Networks" (CVPR 2018), equations 4 and 6.

    Args:
        channels: C, at least 1.

    Raises:
        ValueError: the input is not `(N, channels, H, W)`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.theta, self.phi, self.g, self.out = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(4))
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        _check_map(x, self.channels, type(self).__name__)
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))
        affinity = torch.bmm(theta.transpose(1, 2), phi / theta.shape[2])
        y = torch.bmm(g, affinity.transpose(1, 2)).view_as(x)
        return x + self.bn(self.out(y))
