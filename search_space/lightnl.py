"""The Lightweight Non-Local (LightNL) block, and the conventional non-local block that it replaces."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .block_cost import compact_channels, compact_positions, lightnl_macs, non_local_macs, product_macs

__all__ = [
    'LightNL',
    'NonLocal',
    'affinity_first',
    'attend',
    'compact_channels',
    'compact_positions',
    'context_first',
    'contexts',
    'lightnl_macs',
    'lightnl_product',
    'non_local_macs',
    'product_macs',
    'residual_sum',
]


def _rows(x: Tensor) -> Tensor:
    """``x`` `(N, C, H, W)` as the paper's matrices, a row a position: `(N, P, C)`, a view of either memory format."""
    return x.flatten(2).transpose(1, 2)


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """``rows`` `(N, P, ·)` as maps `(N, ·, H, W)` of ``like``'s height and width."""
    return rows.transpose(1, 2).unflatten(2, like.shape[2:])


def _strided(x: Tensor, stride: int) -> Tensor:
    """``x_s`` `(N, p, C)`, of which ``x_sc`` are the leading columns; a view at stride 1."""
    if stride > 1:
        memory_format = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
        x = x[:, :, ::stride, ::stride].contiguous(memory_format=memory_format)
    return _rows(x)


def _is_channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1


def _matmul(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """``a · b`` `(N, m, n)`, in memory as the rows of ``like`` `(N, C, H, W)` are: its user need not copy it."""
    if _is_channels_last(like):
        return torch.bmm(a, b)
    return torch.bmm(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)


def _narrow(rows: Tensor, context: Tensor, add_to: Tensor | None = None) -> Tensor:
    """``rows · contextᵀ`` `(N, m, k)`, through its transpose: BLAS is slower at a matrix of few columns than at one of
    few rows.

    Args:
        rows: `(N, m, C)`.
        context: `(N, k, C)`.
        add_to: `(N, m, k)`, to be added.
    """
    rows = rows.transpose(1, 2)
    product = torch.bmm(context, rows) if add_to is None else torch.baddbmm(add_to.transpose(1, 2), context, rows)
    return product.transpose(1, 2)


def _mean_product(a: Tensor, b: Tensor, positions: int) -> Tensor:
    """``(1/P) · a · b``, divided before it is rounded: in half precision a sum over a large map would overflow."""
    return torch.baddbmm(a.new_zeros(1, 1, 1), a, b, beta=0, alpha=1 / positions)


def _contexts(x: Tensor, k: int, strides: tuple[int, ...]) -> tuple[Tensor, ...]:
    rows = _rows(x)
    compact = [_strided(x, stride) for stride in strides]
    return rows[..., :k], *(_mean_product(x_s[..., :k].transpose(1, 2), x_s, rows.shape[1]) for x_s in compact)


def _attend(x_c: Tensor, context: Tensor, like: Tensor) -> Tensor:
    return _maps(_matmul(x_c, context, like), like)


class _Contexts(torch.autograd.Function):
    """``x_c`` and the contexts. Autograd by itself would pad every part's gradient to all of ``x`` and add them up."""

    @staticmethod
    def forward(ctx, x: Tensor, k: int, strides: tuple[int, ...]):
        ctx.save_for_backward(x)  # and not the strided copies: so the gradient has a gradient too
        ctx.k, ctx.strides = k, strides
        return _contexts(x, k, strides)

    @staticmethod
    def backward(ctx, grad_x_c: Tensor, *grad_contexts: Tensor):
        (x,), k = ctx.saved_tensors, ctx.k
        grad = None
        for stride, grad_context in sorted(zip(ctx.strides, grad_contexts), key=lambda pair: pair[0]):
            x_s = _strided(x, stride)
            grad_context = grad_context.to(x.dtype) / (x.shape[2] * x.shape[3])  # autocast may have made it half
            grad_s = _matmul(x_s[..., :k], grad_context, x)
            if stride == 1:
                grad = _maps(grad_s, x)
                grad_x_c = _narrow(x_s, grad_context, grad_x_c)
            else:
                grad_s[..., :k] += _narrow(x_s, grad_context)
                grad = torch.zeros_like(x) if grad is None else grad
                strided = grad[:, :, ::stride, ::stride]
                strided += _maps(grad_s, strided)
        grad[:, :k] += _maps(grad_x_c, x)
        return grad, None, None


class _Attend(torch.autograd.Function):
    """``x_c · context``, whose gradient autograd by itself would take through a narrow product."""

    @staticmethod
    def forward(ctx, x_c: Tensor, context: Tensor, like: Tensor):
        ctx.save_for_backward(x_c, context)
        return _attend(x_c, context, like)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x_c, context = (saved.to(grad.dtype) for saved in ctx.saved_tensors)  # autocast may have made the product half
        rows = _rows(grad)
        return _narrow(rows, context), torch.bmm(x_c.transpose(1, 2), rows), None


def contexts(x: Tensor, ratio: float, strides: Iterable[int]) -> tuple[Tensor, dict[int, Tensor]]:
    """``x_c`` `(N, P, k)` of ``x`` `(N, C, H, W)`, and ``(1/P) · x_scᵀ x_s`` `(N, k, C)` by spatial stride."""
    strides = tuple(strides)
    product = _Contexts.apply if torch.is_grad_enabled() and x.requires_grad else _contexts
    x_c, *found = product(x, compact_channels(x.shape[1], ratio), strides)
    return x_c, dict(zip(strides, found))


def attend(x_c: Tensor, context: Tensor, like: Tensor) -> Tensor:
    """``x_c · context`` `(N, C, H, W)`, with height, width and memory format of ``like`` `(N, C, H, W)`.

    Args:
        x_c: `(N, P, k)`.
        context: `(N, k, C)`.
    """
    needs_gradient = torch.is_grad_enabled() and (x_c.requires_grad or context.requires_grad)
    return (_Attend.apply if needs_gradient else _attend)(x_c, context, like)


def residual_sum(x: Tensor, branch: Tensor, kept: bool) -> Tensor:
    """``x + branch``, in the memory of ``branch`` unless that is ``kept`` by somebody else or of another type."""
    return x + branch if kept or branch.dtype != x.dtype else branch.add_(x)


def affinity_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · (x_c x_scᵀ) x_s``, through the `P × p` affinity; ``x`` and ``y`` are `(N, C, H, W)`."""
    k = compact_channels(x.shape[1], ratio)
    x_c, x_s = _rows(x)[..., :k], _strided(x, stride)
    x_sc = x_c if stride == 1 else x_s[..., :k]  # one gradient to be padded, not two
    affinity = _mean_product(x_c, x_sc.transpose(1, 2), x_c.shape[1])
    return _maps(_matmul(affinity, x_s, x), x)


def context_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · x_c (x_scᵀ x_s)``, through the `k × C` context; ``x`` and ``y`` are `(N, C, H, W)`."""
    x_c, of_stride = contexts(x, ratio, [stride])
    return attend(x_c, of_stride[stride], x)


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
        hooked = self.hooked()
        if self.bn.training or hooked or x.is_cuda:
            branch = self.bn(self.conv(self.product(x)))
        else:  # BN in the convolution: a pass over y less; a GPU waits longer for the folding to be launched
            branch = nn.functional.conv2d(self.product(x), *self._folded(), padding=1, groups=self.channels)
        return residual_sum(x, branch, kept=hooked)

    def hooked(self) -> bool:
        """Whether something waits for the convolution or BN to be called as modules: pruning, a counter of MACs."""
        return any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in (self.conv, self.bn)
        )

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight `(C, 1, 3, 3)` and bias `(C,)` of the convolution with BN's statistics and scale in it."""
        bn = self.bn
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        return self.conv.weight * scale[:, None, None, None], torch.addcmul(bn.bias, bn.running_mean, scale, value=-1)

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
