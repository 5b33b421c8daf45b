"""LightNL on a CPU without gradients in two passes over the map fewer, by PyTorch's own operators: when, and how.

Reading and writing maps takes most of the time of ``x + BN(DWConv3×3(y))``. Here BN is folded into the convolution's
weights at every call, which are 9·C numbers, and the sum is made in place. The values are the same, to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gpu import is_hooked

__all__ = ['USED_FROM', 'block', 'takes_over']

USED_FROM = 100_000
"""Elements N·C·H·W of a map from which it was measured to be no slower. Below it what an operator costs at any size
counts: it is some operators more."""


def takes_over(lightnl: nn.Module, x: Tensor) -> bool:
    """Whether :func:`block` is used for the block ``lightnl`` at ``x`` `(N, C, H, W)`.

    Not where a gradient may be asked for; where something waits for the convolution or BN to be called as modules, or
    either is of another kind; in mixed precision; and where operations are recorded.
    """
    if torch.is_grad_enabled() or not isinstance(x, Tensor) or not x.is_cpu or x.numel() < USED_FROM:
        return False
    conv, norm = lightnl.conv, lightnl.bn
    return (
        x.dtype in (torch.float32, torch.float64)
        and type(conv) is nn.Conv2d
        and (type(norm) is nn.Identity or _can_be_folded(conv, norm))
        and not is_hooked(conv)
        and not is_hooked(norm)
        and not torch.is_autocast_enabled('cpu')
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _can_be_folded(conv: nn.Conv2d, norm: nn.Module) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and not norm.training
        and norm.affine
        and norm.running_mean is not None
        and conv.bias is None
    )


def block(lightnl: nn.Module, x: Tensor) -> Tensor:
    """``z`` of the block ``lightnl`` at ``x`` `(N, C, H, W)`."""
    y, conv, norm = lightnl.product(x), lightnl.conv, lightnl.bn
    if type(norm) is nn.Identity:  # after fuse()
        return conv(y).add_(x)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
    return F.conv2d(y, conv.weight * scale.view(-1, 1, 1, 1), shift, padding=1, groups=lightnl.channels).add_(x)
