"""The affinity product of LightNL in its two orders, and their gradients: functions of tensors, without parameters.

:func:`lightnl_product` is all that the block asks for. What takes over the whole block is in :mod:`.cpu` and
:mod:`.gpu`.

Nothing here looks at values. All of it can be traced, scripted, exported, compiled, mapped over and differentiated any
number of times.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value, statically_known_true

from .macs import compact_channels, product_macs

__all__ = ['affinity_first', 'attend', 'context_first', 'contexts', 'lightnl_product', 'non_local_product']


def _rows(x: Tensor) -> Tensor:
    """``x`` `(N, C, H, W)` as the paper's matrices, a row a position: `(N, P, C)`, a view of either memory format."""
    return x.flatten(2).transpose(1, 2)


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """``rows`` `(N, P, ·)` as maps `(N, ·, H, W)` of ``like``'s height and width."""
    return rows.transpose(1, 2).unflatten(2, like.shape[2:])


def _is_channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1


def _strided(x: Tensor, stride: int) -> Tensor:
    """``x_s`` `(N, p, C)`, of which ``x_sc`` are the leading columns; at stride 1 a view."""
    if stride == 1:
        return _rows(x)
    x_s = x[:, :, ::stride, ::stride]
    if _is_channels_last(x):
        return x_s.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).flatten(1, 2)
    return _rows(x_s.clone(memory_format=torch.contiguous_format))


def _zeros(x: Tensor, of: Tensor) -> Tensor:
    """Zeros of the shape and the memory format of ``x``, over what ``of`` is mapped over in :func:`torch.vmap`."""
    n, channels, height, width = x.shape
    if _is_channels_last(x):
        return of.new_zeros(n, height, width, channels).permute(0, 3, 1, 2)
    return of.new_zeros(x.shape)


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


def _is_recorded() -> bool:
    """Whether operations are being recorded, by ``torch.compile``, ``torch.export`` or TorchScript's tracer.

    Records get plain operations: a counter of MACs knows them, an open size may enter them, autograd sees through them.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _mean_product(a: Tensor, b: Tensor, positions: int) -> Tensor:
    """``(1/P) · a · b``, divided before it is rounded: in half precision a sum over a large map would overflow."""
    if _is_recorded():
        return torch.bmm(a / positions, b)
    return torch.baddbmm(a.new_zeros(1, 1, 1), a, b, beta=0, alpha=1 / positions)  # no pass over ``a``


def _contexts(x: Tensor, k: int, strides: list[int]) -> list[Tensor]:
    """``x_c`` and the context of each stride."""
    rows = _rows(x)
    found = [rows[..., :k]]
    for stride in strides:
        x_s = _strided(x, stride)
        found.append(_mean_product(x_s[..., :k].transpose(1, 2), x_s, rows.shape[1]))
    return found


def _attend(x_c: Tensor, context: Tensor, like: Tensor) -> Tensor:
    return _maps(_matmul(x_c, context, like), like)


class _Contexts(torch.autograd.Function):
    """``x_c`` and the contexts. Autograd by itself would pad every part's gradient to all of ``x`` and add them up."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, k: int, strides: list[int]) -> tuple[Tensor, ...]:
        return tuple(_contexts(x, k, strides))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.k, ctx.strides = inputs
        ctx.save_for_backward(x)  # and not the strided copies: so the gradient has a gradient too
        ctx.save_for_forward(x)

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
                grad = _zeros(x, grad_s) if grad is None else grad
                strided = grad[:, :, ::stride, ::stride]
                strided += _maps(grad_s, strided)
        grad[:, :k] += _maps(grad_x_c, x)
        return grad, None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_: None) -> tuple[Tensor, ...]:
        (x,), k = ctx.saved_tensors, ctx.k
        tangents = [_rows(tangent)[..., :k]]
        for stride in ctx.strides:
            x_s, moved = _strided(x, stride), _strided(tangent, stride)
            both = moved[..., :k].transpose(1, 2) @ x_s + x_s[..., :k].transpose(1, 2) @ moved
            tangents.append(both / (x.shape[2] * x.shape[3]))
        return tuple(tangents)


class _Attend(torch.autograd.Function):
    """``x_c · context``, whose gradient autograd by itself would take through a narrow product."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_c: Tensor, context: Tensor, like: Tensor) -> Tensor:
        return _attend(x_c, context, like)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x_c, context, like = inputs
        ctx.size = like.shape[2:]
        ctx.save_for_backward(x_c, context)
        ctx.save_for_forward(x_c, context)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x_c, context = (saved.to(grad.dtype) for saved in ctx.saved_tensors)  # autocast may have made the product half
        rows = _rows(grad)
        return _narrow(rows, context), torch.bmm(x_c.transpose(1, 2), rows), None

    @staticmethod
    def jvp(ctx, x_c_tangent: Tensor, context_tangent: Tensor, _: None) -> Tensor:
        x_c, context = ctx.saved_tensors
        return (x_c_tangent @ context + x_c @ context_tangent).transpose(1, 2).unflatten(2, ctx.size)


def _takes_gradient(*tensors: Tensor) -> bool:
    """Whether autograd is to take the gradients written here, and not its own of the plain operations."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) and not _is_recorded()


def contexts(x: Tensor, ratio: float, strides: Iterable[int]) -> tuple[Tensor, dict[int, Tensor]]:
    """``x_c`` `(N, P, k)` of ``x`` `(N, C, H, W)`, and ``(1/P) · x_scᵀ x_s`` `(N, k, C)` by spatial stride."""
    strides = list(strides)
    product = _Contexts.apply if _takes_gradient(x) else _contexts
    x_c, *found = product(x, compact_channels(x.shape[1], ratio), strides)
    return x_c, dict(zip(strides, found))


def attend(x_c: Tensor, context: Tensor, like: Tensor) -> Tensor:
    """``x_c · context`` `(N, C, H, W)`, with height, width and memory format of ``like`` `(N, C, H, W)`.

    Args:
        x_c: `(N, P, k)`.
        context: `(N, k, C)`.
    """
    return (_Attend.apply if _takes_gradient(x_c, context) else _attend)(x_c, context, like)


def affinity_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · (x_c x_scᵀ) x_s``, through the `P × p` affinity; ``x`` and ``y`` are `(N, C, H, W)`."""
    k = compact_channels(x.shape[1], ratio)
    x_c, x_s = _rows(x)[..., :k], _strided(x, stride)
    x_sc = x_c if stride == 1 else x_s[..., :k]  # one gradient to be padded, not two
    affinity = _mean_product(x_c, x_sc.transpose(1, 2), x_c.shape[1])
    return _maps(_matmul(affinity, x_s, x), x)


def context_first(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · x_c (x_scᵀ x_s)``, through the `k × C` context; ``x`` and ``y`` are `(N, C, H, W)`."""
    if torch.jit.is_scripting():
        x_c, context = _contexts(x, compact_channels(x.shape[1], ratio), [stride])
        return _attend(x_c, context, x)
    else:
        x_c, by_stride = contexts(x, ratio, [stride])
        return attend(x_c, by_stride[stride], x)


def lightnl_product(x: Tensor, ratio: float, stride: int) -> Tensor:
    """The affinity product by whichever order costs fewer MACs at the shape of ``x`` `(N, C, H, W)`.

    Where height and width are left open, in a network that is exported or compiled for any size, it is
    :func:`context_first`, whose cost grows with the number of positions and not with its square.
    """
    _, channels, height, width = x.shape
    affinity_macs, context_macs = product_macs(channels, height, width, ratio, stride)
    is_affinity_cheaper = affinity_macs < context_macs
    if not torch.jit.is_scripting() and torch.compiler.is_compiling():
        is_affinity_cheaper = statically_known_true(is_affinity_cheaper)
    if is_affinity_cheaper:
        return affinity_first(x, ratio, stride)
    if not torch.jit.is_scripting():
        is_compiled_to_learn = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        if is_compiled_to_learn and torch.is_grad_enabled() and not has_static_value(height * width):
            # Inductor fails where what a convolution keeps for its gradient is a view of an open size. Exact, as 2 is.
            x_c, by_stride = contexts(x, ratio, [stride])
            return 2 * attend(x_c / 2, by_stride[stride], x)
    return context_first(x, ratio, stride)


def non_local_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """``(1/P) θ φᵀ g`` of the conventional non-local block; all are `(N, C, H, W)`."""
    rows = theta.flatten(2).transpose(1, 2)
    affinity = torch.bmm(rows, phi.flatten(2) / rows.shape[1])
    return torch.bmm(g.flatten(2), affinity.transpose(1, 2)).view_as(g)
