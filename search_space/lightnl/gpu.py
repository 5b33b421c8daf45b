"""LightNL on a GPU in few launches: operators over the Triton kernels, their gradients, and when they are used.

    autonl::contexts   x -> (1/P) · x_scᵀ x_s
    autonl::convolved  x, context, weight -> DWConv3×3(x_c · context)
    autonl::block      the whole block, with what its gradient needs; BN's statistics are the batch's or given
    autonl::evaluated  the whole block with given statistics, in two launches

Each is an operator of PyTorch's, whose results a fake implementation describes: ``torch.compile``, CUDA graphs,
``torch.export`` and activation checkpointing take it as one step. Their gradients have no gradients: who asks for those
is told so.

Maps are contiguous or in channels-last, of float32, bfloat16 or float16; sums are in float32. Results do not depend on
the order in which the programs of a GPU end.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .macs import compact_channels, compact_positions

__all__ = ['SWITCH', 'USED_FROM', 'block', 'contexts', 'convolved', 'is_hooked', 'takes_over']

SWITCH = 'AUTONL_GPU_KERNELS'
"""The environment variable: ``on``, wherever the kernels can be used; ``off``, nowhere; by default, by
:data:`USED_FROM`."""

USED_FROM: dict[str, int | None] = {'evaluation': None, 'training': None}
"""Elements N·C·H·W of a map from which the kernels were measured to be faster than PyTorch's operators; None: nowhere.
They have not been measured on a GPU. ``bash benchmarks/on_gpu.sh`` prints what belongs here."""

_HAS_TRITON = importlib.util.find_spec('triton') is not None
TYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_COMPACT_CHANNELS = 128
"""Above it a tile of the context would not stay in a program's registers."""

PROGRAMS = 264
"""To be launched, where the map is large enough: two for each of the multiprocessors of an H100."""


def _setting() -> str | None:
    value = os.environ.get(SWITCH)
    if value not in (None, '', 'on', 'off'):
        raise ValueError(f'{SWITCH} must be on or off, or not be set, but is {value!r}')
    return value or None


_switch = _setting()


def takes_over(lightnl: nn.Module, x: Tensor) -> bool:
    """Whether the kernels are used for the block ``lightnl`` at ``x`` `(N, C, H, W)`: whether they can be, and the
    switch says so or without it what was measured.

    They cannot where something waits for the convolution or BN to be called as modules, where the convolution is
    another, and where TorchScript or ONNX records PyTorch's own operators.
    """
    if _switch == 'off' or not isinstance(x, Tensor) or not _is_on_gpu(x):
        return False
    least = USED_FROM['training' if lightnl.training else 'evaluation']
    if _switch != 'on' and (least is None or x.numel() < least):
        return False
    conv = lightnl.conv
    return (
        x.dim() == 4
        and x.shape[1] == lightnl.channels
        and x.dtype in TYPES
        and x.numel() > 0
        and compact_channels(lightnl.channels, lightnl.ratio) <= MOST_COMPACT_CHANNELS
        and type(conv) is nn.Conv2d
        and conv.bias is None
        and not is_hooked(conv)
        and not is_hooked(lightnl.bn)
        and not torch.jit.is_tracing()
        and not torch.onnx.is_in_onnx_export()
        and _HAS_TRITON
    )


def _is_on_gpu(x: Tensor) -> bool:
    return x.is_cuda and torch.version.cuda is not None


def is_hooked(module: nn.Module) -> bool:
    """Whether something waits for ``module`` to be called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@functools.cache
def _kernels() -> ModuleType:
    from . import triton_kernels

    return triton_kernels


@functools.cache
def _is_interpreted() -> bool:
    from triton import JITFunction

    return not isinstance(_kernels().evaluation, JITFunction)


@dataclass(frozen=True)
class _Tiles:
    """How the maps `(N, C, H, W)` of one format are cut into tiles, and what every kernel is told of it."""

    n: int
    channels: int
    height: int
    width: int
    x_p: int
    x_c: int
    block: int
    precision: str
    wide: bool

    def of_products(self, k: int) -> dict:
        """Tiles of a kernel that multiplies matrices, and how it is compiled: for a wide context with more warps, whose
        registers hold it, and less of it on its way to shared memory at a time."""
        padded = max(16, 1 << (k - 1).bit_length())  # no fewer than a tensor core multiplies
        options = {'num_warps': 8, 'num_stages': 2} if padded > 32 else {'num_warps': 4, 'num_stages': 3}
        tiles = {'KP': padded, 'BC': self.block, 'BP': TILE, 'PRECISION': self.precision, 'WIDE': self.wide}
        return tiles | options

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def columns(self) -> int:
        """Tiles beside each other in the channels."""
        return math.ceil(self.channels / self.block)

    def split(self, positions: int, tile: int, images: int, most: int) -> tuple[int, int]:
        """Parts of an image's positions, as many as the GPU can use, and the positions of a part, whole tiles."""
        tiles = math.ceil(positions / tile)
        wanted = min(math.ceil(PROGRAMS / (images * self.columns)), tiles, most)
        chunk = math.ceil(tiles / wanted) * tile
        return math.ceil(positions / chunk), chunk


TILE, FLAT_TILE = 64, 128
"""Positions of a tile of the products, and of what only reads and writes."""

MOST_PARTS = 16
"""Parts of a context: whoever reads it sums them."""

MOST_MOMENTS, ROWS = 128, 64
"""Programs that look at the channels for BN: whoever reads what they found merges it, so many at a time."""


def _tiles(x: Tensor) -> _Tiles:
    n, channels, height, width = x.shape
    x_p, x_c = (1, height * width) if x.is_contiguous() else (channels, 1)
    block = 32 if channels > 16 else 16
    precision = 'tf32' if torch.backends.cuda.matmul.allow_tf32 else 'tf32x3'
    return _Tiles(n, channels, height, width, x_p, x_c, block, precision, _is_interpreted())


def _memory_format(x: Tensor) -> torch.memory_format:
    """Of the results: channels-last where ``x`` is in it, otherwise contiguous."""
    is_channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_channels_last else torch.contiguous_format


def _dense(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the memory format of the results for ``like``."""
    return x.contiguous(memory_format=_memory_format(like))


def _context_parts(x: Tensor, k: int, stride: int) -> Tensor:
    """The context `(parts, N, k, C)` of a dense ``x``, to be summed."""
    tiles = _tiles(x)
    compact = compact_positions(tiles.height, tiles.width, stride)
    parts, chunk = tiles.split(compact, TILE, tiles.n, MOST_PARTS)
    found = x.new_empty((parts, tiles.n, k, tiles.channels), dtype=torch.float32)
    _kernels().context_parts[tiles.n, parts, tiles.columns](
        x, found, tiles.n, tiles.channels, tiles.positions, k, tiles.width, math.ceil(tiles.width / stride), compact,
        stride, chunk, 1 / tiles.positions, tiles.x_p, tiles.x_c,
        **tiles.of_products(k),
    )  # fmt: skip
    return found


def _convolution(x: Tensor, parts: Tensor, weight: Tensor, moments: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """``u`` as dense ``x``, the summed context `(N, k, C)`, and the moments `(programs, 3, C)` if they are wanted."""
    tiles, k = _tiles(x), parts.shape[2]
    count, chunk = tiles.split(tiles.positions, TILE, tiles.n, MOST_MOMENTS)
    groups = min(tiles.n, max(1, MOST_MOMENTS // count)) if moments else tiles.n
    u, context = torch.empty_like(x), torch.empty_like(parts[0])
    found = parts.new_empty((groups * count, 3, tiles.channels)) if moments else None
    _kernels().convolution[groups, count, tiles.columns](
        x, parts, weight, u, context, found, tiles.n, tiles.channels, tiles.height, tiles.width, k, len(parts), chunk,
        tiles.x_p, tiles.x_c,
        MOMENTS=moments, **tiles.of_products(k),
    )  # fmt: skip
    return u, context, found


def _input_gradient(
    x: Tensor,
    k: int,
    *,
    grad: Tensor | None = None,
    grad_y: Tensor | None = None,
    context: Tensor | None = None,
    grad_context: Tensor | None = None,
    stride: int = 1,
) -> Tensor:
    """The gradient of a dense ``x``, of the sum, of ``x_c`` in ``y`` and of ``x_s`` and ``x_sc``, as far as given."""
    tiles = _tiles(x)
    grad_x = torch.empty_like(x)
    _kernels().input_gradient[tiles.n, math.ceil(tiles.positions / TILE), tiles.columns](
        grad, x, grad_y, context, grad_context, grad_x, tiles.n, tiles.channels, tiles.height, tiles.width, k, stride,
        1 if grad_context is None else len(grad_context), 1 / tiles.positions, tiles.x_p, tiles.x_c,
        RESIDUAL=grad is not None, ATTEND=grad_y is not None, CONTEXT=grad_context is not None,
        **tiles.of_products(k),
    )  # fmt: skip
    return grad_x


@dataclass(frozen=True)
class _Norm:
    """What the gradient of BN needs: ``u``, its statistics `(3, C)`, whether they are the batch's, scale and eps."""

    u: Tensor
    statistics: Tensor
    of_batch: bool
    scale: Tensor
    eps: float


def _convolution_gradient(
    grad: Tensor, x: Tensor, context: Tensor, weight: Tensor, norm: _Norm | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of ``y``, of the context in parts `(parts, N, k, C)`, of the weight, and of BN's scale and shift."""
    tiles, k = _tiles(x), context.shape[1]
    parts, chunk = tiles.split(tiles.positions, TILE, tiles.n, MOST_PARTS)
    grad_y = torch.empty_like(x)
    grad_context = context.new_empty((parts, *context.shape))
    grad_weight = context.new_empty((parts * tiles.n, 9, tiles.channels))
    sums = grad_scale = grad_shift = None
    if norm is not None:
        rows = tiles.n * tiles.positions
        sums = context.new_empty((min(MOST_MOMENTS, math.ceil(rows / FLAT_TILE)), 2, tiles.channels))
        grad_scale, grad_shift = (context.new_empty(tiles.channels) for _ in range(2))
        _kernels().batch_norm_sums[len(sums), tiles.columns](
            grad, norm.u, norm.statistics, sums, tiles.channels, tiles.positions, rows, norm.eps, tiles.x_p, tiles.x_c,
            BC=tiles.block, BP=FLAT_TILE,
        )  # fmt: skip
    _kernels().convolution_gradient[tiles.n, parts, tiles.columns](
        grad, x, norm and norm.u, context, weight, norm and norm.scale, norm and norm.statistics, sums, grad_y,
        grad_context, grad_weight, grad_scale, grad_shift, tiles.n, tiles.channels, tiles.height, tiles.width, k,
        0 if sums is None else len(sums), chunk, norm.eps if norm else 0.0, tiles.x_p, tiles.x_c,
        NORM=norm is not None, BATCH=norm is not None and norm.of_batch,
        ROWS=ROWS,
        **tiles.of_products(k),
    )  # fmt: skip
    return grad_y, grad_context, _weight_gradient(grad_weight, weight), grad_scale, grad_shift


def _weight_gradient(parts: Tensor, weight: Tensor) -> Tensor:
    """The sum of ``parts`` `(parts, 9, C)`, in the shape and type of ``weight`` `(C, 1, 3, 3)`."""
    return parts.sum(0).t().reshape(weight.shape).to(weight.dtype)


def _context_shape(x: Tensor, k: int) -> tuple[int, int, int]:
    return x.shape[0], k, x.shape[1]


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=_memory_format(x))


# autonl::contexts


@torch.library.custom_op('autonl::contexts', mutates_args=())
def _contexts(x: Tensor, k: int, stride: int) -> Tensor:
    parts = _context_parts(_dense(x, x), k, stride)
    return parts[0] if len(parts) == 1 else parts.sum(0)


@_contexts.register_fake
def _(x, k, stride):
    return x.new_empty(_context_shape(x, k), dtype=torch.float32)


@torch.library.custom_op('autonl::contexts_backward', mutates_args=())
def _contexts_backward(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    return _input_gradient(_dense(x, x), grad.shape[1], grad_context=grad.float().contiguous()[None], stride=stride)


@_contexts_backward.register_fake
def _(grad, x, stride):
    return _like(x)


def _save_contexts(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.stride = inputs[2]


def _contexts_gradient(ctx, grad):
    return _contexts_backward(grad, ctx.saved_tensors[0], ctx.stride), None, None


# autonl::convolved


@torch.library.custom_op('autonl::convolved', mutates_args=())
def _convolved(x: Tensor, context: Tensor, weight: Tensor) -> Tensor:
    return _convolution(_dense(x, x), context.float().contiguous()[None], weight.contiguous(), moments=False)[0]


@_convolved.register_fake
def _(x, context, weight):
    return _like(x)


@torch.library.custom_op('autonl::convolved_backward', mutates_args=())
def _convolved_backward(grad: Tensor, x: Tensor, context: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, precise = _dense(x, x), context.float().contiguous()
    grad_y, parts, grad_weight, _, _ = _convolution_gradient(_dense(grad, x), x, precise, weight.contiguous(), None)
    return _input_gradient(x, context.shape[1], grad_y=grad_y, context=precise), parts.sum(0), grad_weight


@_convolved_backward.register_fake
def _(grad, x, context, weight):
    return _like(x), context.new_empty(context.shape, dtype=torch.float32), torch.empty_like(weight)


def _save_convolved(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _convolved_gradient(ctx, grad):
    x, context, weight = ctx.saved_tensors
    grad_x, grad_context, grad_weight = _convolved_backward(grad.to(x.dtype), x, context, weight)
    return grad_x, grad_context.to(context.dtype), grad_weight


# autonl::block and autonl::evaluated


@torch.library.custom_op('autonl::block', mutates_args=())
def _block(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
    k: int,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = _dense(x, x)
    tiles, rows = _tiles(x), x.shape[0] * x.shape[2] * x.shape[3]
    u, context, moments = _convolution(x, _context_parts(x, k, stride), weight.contiguous(), moments=mean is None)
    z, statistics = torch.empty_like(x), context.new_empty((3, tiles.channels))
    programs = min(math.ceil(rows / FLAT_TILE), max(1, 4 * PROGRAMS // tiles.columns))
    _kernels().normalisation[programs, tiles.columns](
        x, u, moments, scale, shift, mean, variance, z, statistics, tiles.channels, tiles.positions, rows,
        0 if moments is None else len(moments), eps, tiles.x_p, tiles.x_c,
        BATCH=moments is not None, ROWS=ROWS,
        BC=tiles.block, BP=FLAT_TILE,
    )  # fmt: skip
    return z, u, context, statistics


@_block.register_fake
def _(x, weight, scale, shift, mean, variance, eps, k, stride):
    context = x.new_empty(_context_shape(x, k), dtype=torch.float32)
    return _like(x), _like(x), context, x.new_empty((3, x.shape[1]), dtype=torch.float32)


@torch.library.custom_op('autonl::block_backward', mutates_args=())
def _block_backward(
    grad: Tensor,
    x: Tensor,
    u: Tensor,
    context: Tensor,
    statistics: Tensor,
    weight: Tensor,
    scale: Tensor,
    of_batch: bool,
    eps: float,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, norm = _dense(x, x), _Norm(u, statistics, of_batch, scale, eps)
    grad = _dense(grad, x)
    grad_y, parts, grad_weight, grad_scale, grad_shift = _convolution_gradient(
        grad, x, context, weight.contiguous(), norm
    )
    grad_x = _input_gradient(
        x, context.shape[1], grad=grad, grad_y=grad_y, context=context, grad_context=parts, stride=stride
    )
    return grad_x, grad_weight, grad_scale.to(scale.dtype), grad_shift.to(scale.dtype)


@_block_backward.register_fake
def _(grad, x, u, context, statistics, weight, scale, of_batch, eps, stride):
    return _like(x), torch.empty_like(weight), torch.empty_like(scale), torch.empty_like(scale)


def _save_block(ctx, inputs, output):
    x, weight, scale, _, mean, _, eps, _, stride = inputs
    _, u, context, statistics = output
    ctx.save_for_backward(x, u, context, statistics, weight, scale)
    ctx.settings = mean is None, eps, stride


def _block_gradient(ctx, grad, *unused):
    x, *others = ctx.saved_tensors
    gradients = _block_backward(grad.to(x.dtype), x, *others, *ctx.settings)
    return *gradients, None, None, None, None, None


@torch.library.custom_op('autonl::evaluated', mutates_args=())
def _evaluated(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    k: int,
    stride: int,
) -> Tensor:
    x = _dense(x, x)
    tiles = _tiles(x)
    parts = _context_parts(x, k, stride)
    count, chunk = tiles.split(tiles.positions, TILE, tiles.n, tiles.positions)
    z = torch.empty_like(x)
    _kernels().evaluation[tiles.n, count, tiles.columns](
        x, parts, weight.contiguous(), scale, shift, mean, variance, z, tiles.n, tiles.channels, tiles.height,
        tiles.width, k, len(parts), chunk, eps, tiles.x_p, tiles.x_c,
        **tiles.of_products(k),
    )  # fmt: skip
    return z


@_evaluated.register_fake
def _(x, weight, scale, shift, mean, variance, eps, k, stride):
    return _like(x)


def _once(operator: str):
    def refuse(ctx, *grads):
        raise NotImplementedError(
            f"{operator}: the kernels' gradient of LightNL has no gradient; set {SWITCH}=off for gradients of gradients"
        )

    return refuse


_contexts.register_autograd(_contexts_gradient, setup_context=_save_contexts)
_convolved.register_autograd(_convolved_gradient, setup_context=_save_convolved)
_block.register_autograd(_block_gradient, setup_context=_save_block)
for _operator in (_contexts_backward, _convolved_backward, _block_backward, _evaluated):
    _operator.register_autograd(_once(_operator._qualname))


def contexts(x: Tensor, ratio: float, strides: Iterable[int]) -> dict[int, Tensor]:
    """``(1/P) · x_scᵀ x_s`` `(N, k, C)` of ``x`` `(N, C, H, W)`, in float32, by spatial stride."""
    k = compact_channels(x.shape[1], ratio)
    return {stride: _contexts(x, k, stride) for stride in strides}


def convolved(x: Tensor, context: Tensor, weight: Tensor) -> Tensor:
    """``DWConv3×3(x_c · context)``, `(N, C, H, W)` as ``x``.

    Args:
        x: `(N, C, H, W)`.
        context: `(N, k, C)`.
        weight: `(C, 1, 3, 3)`.
    """
    return _convolved(x, context, weight)


def block(lightnl: nn.Module, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """``x + BN(DWConv3×3(y))`` of the block ``lightnl``, `(N, C, H, W)`; what training changes in BN is changed.

    Another norm layer than ``nn.BatchNorm2d``, such as BN over several processes, is called as the module that it is.

    Args:
        lightnl: a :class:`LightNL`.
        x: `(N, C, H, W)`.
        scale, shift: BN's, `(C,)`, its own by default.
    """
    k, bn, weight = compact_channels(x.shape[1], lightnl.ratio), lightnl.bn, lightnl.conv.weight
    if not _is_plain_batch_norm(bn, x):
        u = convolved(x, _contexts(x, k, lightnl.stride), weight)
        return x + (bn(u) if scale is None else functional_call(bn, {'weight': scale, 'bias': shift}, u))
    arguments = x, weight, bn.weight if scale is None else scale, bn.bias if shift is None else shift
    if not bn.training:
        running = bn.running_mean, bn.running_var, bn.eps, k, lightnl.stride
        needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments)
        return _block(*arguments, *running)[0] if needs_gradient else _evaluated(*arguments, *running)
    z, _, _, statistics = _block(*arguments, None, None, bn.eps, k, lightnl.stride)
    with torch.no_grad():
        mean, _, unbiased = statistics.to(bn.running_mean.dtype)
        torch._foreach_lerp_([bn.running_mean, bn.running_var], [mean, unbiased], bn.momentum)
        bn.num_batches_tracked.add_(1)
    return z


def _is_plain_batch_norm(bn: nn.Module, x: Tensor) -> bool:
    """Whether ``bn`` does what the kernels do; of one value a channel PyTorch's own says that it has no variance."""
    return (
        type(bn) is nn.BatchNorm2d
        and bn.affine
        and bn.track_running_stats
        and bn.momentum is not None
        and x.numel() > x.shape[1]
    )
