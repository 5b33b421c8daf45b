"""LightNL's Triton kernels: the context, the convolution of its product, BN, and the gradients of the three.

A map `(N, C, H, W)` is read as rows of positions: ``(n, p, c)`` is the element ``n·C·P + p·x_p + c·x_c``. Contiguous
maps have ``x_p = 1`` and ``x_c = P``, those in channels-last ``x_p = C`` and ``x_c = 1``. Sums are in float32. What is
summed over positions or images is summed in parts, each by one program in one order, and the parts in one order again:
nothing depends on which program ends first.

A tile has ``BP`` positions, ``BC`` channels or ``KP`` compact channels. ``PRECISION`` is of products of float32. Under
``WIDE`` tiles are multiplied as float32: Triton's interpreter would multiply the bits of bfloat16.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    'batch_norm_sums',
    'context_parts',
    'convolution',
    'convolution_gradient',
    'evaluation',
    'input_gradient',
    'normalisation',
]


_SIZES = [
    'N', 'H', 'W', 'P', 'K', 'compact_width', 'p', 'stride', 'part_count', 'programs', 'rows', 'eps', 'share',
]  # fmt: skip
"""Arguments whose value a kernel is not compiled for: else there were one for each batch size."""


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, WIDE: tl.constexpr):
    if WIDE:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=PRECISION)
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def _sum_of_parts(parts, at, there, count, step):
    """The sum of ``count`` tiles of float32, each ``step`` elements after the one before it."""
    total = tl.load(parts + at, mask=there, other=0.0)
    for part in range(1, count):
        total += tl.load(parts + part * step + at, mask=there, other=0.0)
    return total


@triton.jit
def _channel_vector(vector, c, C):
    return tl.load(vector + c, mask=c < C, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def context_parts(
    x, parts, N, C, P, K, W, compact_width, p, stride, chunk, share, x_p, x_c,
    KP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """``share · x_scᵀ x_s`` of each chunk of the ``p`` strided positions, `(chunks, N, K, C)`."""
    n, part = tl.program_id(0), tl.program_id(1)
    c, i = tl.program_id(2) * BC + tl.arange(0, BC), tl.arange(0, KP)
    image = x + n.to(tl.int64) * C * P
    first = part * chunk
    last = tl.minimum(first + chunk, p)
    total = tl.zeros([KP, BC], tl.float32)
    for start in range(first, last, BP):
        q = start + tl.arange(0, BP)
        at = ((q // compact_width) * W + q % compact_width) * stride
        x_sc = tl.load(
            image + i[:, None] * x_c + at[None, :] * x_p, mask=(i < K)[:, None] & (q < last)[None, :], other=0.0
        )
        x_s = tl.load(
            image + at[:, None] * x_p + c[None, :] * x_c, mask=(q < last)[:, None] & (c < C)[None, :], other=0.0
        )
        total += _dot(x_sc, x_s, PRECISION, WIDE)
    at_context = ((part * N + n) * K + i[:, None]) * C + c[None, :]
    tl.store(parts + at_context, total * share, mask=(i < K)[:, None] & (c < C)[None, :])


@triton.jit
def _convolved(
    image, context, weight, q, c, last, C, H, W, K, x_p, x_c,
    KP: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """``DWConv3×3(x_c · context)`` at the positions ``q`` `(BP,)` of an image, `(BP, BC)`: ``y`` is made for each of
    the nine neighbours of a position, and never written to memory."""
    i = tl.arange(0, KP)
    row, column = q // W, q % W
    u = tl.zeros([q.shape[0], c.shape[0]], tl.float32)
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        inside = (row + down >= 0) & (row + down < H) & (column + right >= 0) & (column + right < W) & (q < last)
        x_c_tile = tl.load(
            image + (q + down * W + right)[:, None] * x_p + i[None, :] * x_c,
            mask=inside[:, None] & (i < K)[None, :],
            other=0.0,
        )
        y = _dot(x_c_tile, context, PRECISION, WIDE)
        u += y * tl.load(weight + c * 9 + tap, mask=c < C, other=0.0).to(tl.float32)[None, :]
    return u


@triton.jit(do_not_specialize=_SIZES)
def evaluation(
    x, parts, weight, scale, shift, mean, variance, z, N, C, H, W, K, part_count, chunk, eps, x_p, x_c,
    KP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """``z = x + BN(DWConv(x_c · context))`` with the running statistics; the context is the sum of its ``parts``."""
    P = H * W
    n, part = tl.program_id(0), tl.program_id(1)
    c, i = tl.program_id(2) * BC + tl.arange(0, BC), tl.arange(0, KP)
    image, out = x + n.to(tl.int64) * C * P, z + n.to(tl.int64) * C * P
    at_context = (n * K + i[:, None]) * C + c[None, :]
    total = _sum_of_parts(parts, at_context, (i < K)[:, None] & (c < C)[None, :], part_count, N * K * C)
    context = total.to(x.dtype.element_ty)
    a = _channel_vector(scale, c, C) * tl.rsqrt(_channel_vector(variance, c, C) + eps)
    b = _channel_vector(shift, c, C) - _channel_vector(mean, c, C) * a
    first = part * chunk
    last = tl.minimum(first + chunk, P)
    for start in range(first, last, BP):
        q = start + tl.arange(0, BP)
        u = _convolved(image, context, weight, q, c, last, C, H, W, K, x_p, x_c, KP, PRECISION, WIDE)
        at = q[:, None] * x_p + c[None, :] * x_c
        there = (q < last)[:, None] & (c < C)[None, :]
        x_tile = tl.load(image + at, mask=there, other=0.0).to(tl.float32)
        tl.store(out + at, x_tile + u * a[None, :] + b[None, :], mask=there)


@triton.jit(do_not_specialize=_SIZES)
def convolution(
    x, parts, weight, u, context_out, moments, N, C, H, W, K, part_count, chunk, x_p, x_c,
    MOMENTS: tl.constexpr, KP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """``u = DWConv(x_c · context)``; the summed context `(N, K, C)`; and under ``MOMENTS`` the count, the mean and the
    squared deviations of what each program has of a channel of ``u``, `(programs, 3, C)`."""
    P = H * W
    group, part = tl.program_id(0), tl.program_id(1)
    c, i = tl.program_id(2) * BC + tl.arange(0, BC), tl.arange(0, KP)
    count, mean, squares = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
    first = part * chunk
    last = tl.minimum(first + chunk, P)
    for n in range(group, N, tl.num_programs(0)):
        image, out = x + tl.cast(n, tl.int64) * C * P, u + tl.cast(n, tl.int64) * C * P
        there = (i < K)[:, None] & (c < C)[None, :]
        at_context = (n * K + i[:, None]) * C + c[None, :]
        total = _sum_of_parts(parts, at_context, there, part_count, N * K * C)
        if part == 0:
            tl.store(context_out + at_context, total, mask=there)
        context = total.to(x.dtype.element_ty)
        for start in range(first, last, BP):
            q = start + tl.arange(0, BP)
            tile = _convolved(image, context, weight, q, c, last, C, H, W, K, x_p, x_c, KP, PRECISION, WIDE)
            there_u = (q < last)[:, None] & (c < C)[None, :]
            tl.store(out + q[:, None] * x_p + c[None, :] * x_c, tile, mask=there_u)
            if MOMENTS:
                new = tl.minimum(last - start, BP).to(tl.float32)
                new_mean = tl.sum(tile, 0) / new
                deviation = tl.where(there_u, tile - new_mean[None, :], 0.0)
                new_squares = tl.sum(deviation * deviation, 0)
                count, mean, squares = _merged(count, mean, squares, new, new_mean, new_squares)
    if MOMENTS:
        at = (group * tl.num_programs(1) + part) * 3 * C + c
        tl.store(moments + at, count, mask=c < C)
        tl.store(moments + at + C, mean, mask=c < C)
        tl.store(moments + at + 2 * C, squares, mask=c < C)


@triton.jit
def _merged(count, mean, squares, new, new_mean, new_squares):
    """Number, mean and squared deviations of both of two parts of some values, from those of each. Source: Chan, Golub
    and LeVeque (1979): there is no difference of large sums in it."""
    both, step = tl.maximum(count + new, 1.0), new_mean - mean
    return count + new, mean + step * (new / both), squares + new_squares + step * step * (count * new / both)


@triton.jit
def _merged_moments(moments, c, C, programs, ROWS: tl.constexpr, BC: tl.constexpr):
    """Number, mean and squared deviations of a channel's values, from what each of the ``programs`` has of them."""
    count, mean, squares = (tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32))
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        there = (row < programs)[:, None] & (c < C)[None, :]
        at = row[:, None] * 3 * C + c[None, :]
        counts = tl.load(moments + at, mask=there, other=0.0)
        means = tl.load(moments + at + C, mask=there, other=0.0)
        new = tl.sum(counts, 0)
        new_mean = tl.sum(counts * means, 0) / tl.maximum(new, 1.0)
        deviations = means - new_mean[None, :]
        within = tl.load(moments + at + 2 * C, mask=there, other=0.0)
        new_squares = tl.sum(within + counts * deviations * deviations, 0)
        count, mean, squares = _merged(count, mean, squares, new, new_mean, new_squares)
    return count, mean, squares


@triton.jit(do_not_specialize=_SIZES)
def normalisation(
    x, u, moments, scale, shift, running_mean, running_variance, z, statistics, C, P, rows, programs, eps, x_p, x_c,
    BATCH: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """``z = x + BN(u)``; and mean, variance and unbiased variance of each channel of ``u``, `(3, C)`. The statistics
    are the running ones unless it is ``BATCH``."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    if BATCH:
        count, mean, squares = _merged_moments(moments, c, C, programs, ROWS, BC)
        variance, unbiased = squares / tl.maximum(count, 1.0), squares / tl.maximum(count - 1.0, 1.0)
    else:
        mean, variance = _channel_vector(running_mean, c, C), _channel_vector(running_variance, c, C)
        unbiased = variance
    if tl.program_id(0) == 0:
        tl.store(statistics + c, mean, mask=c < C)
        tl.store(statistics + C + c, variance, mask=c < C)
        tl.store(statistics + 2 * C + c, unbiased, mask=c < C)
    a = _channel_vector(scale, c, C) * tl.rsqrt(variance + eps)
    b = _channel_vector(shift, c, C) - mean * a
    for start in range(tl.program_id(0) * BP, rows, tl.num_programs(0) * BP):
        row = start + tl.arange(0, BP)
        there = (row < rows)[:, None] & (c < C)[None, :]
        at = ((row // P).to(tl.int64) * C * P + (row % P) * x_p)[:, None] + c[None, :] * x_c
        x_tile = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        u_tile = tl.load(u + at, mask=there, other=0.0).to(tl.float32)
        tl.store(z + at, x_tile + u_tile * a[None, :] + b[None, :], mask=there)


@triton.jit(do_not_specialize=_SIZES)
def batch_norm_sums(
    grad, u, statistics, sums, C, P, rows, eps, x_p, x_c, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """``Σ grad`` and ``Σ grad · û`` of what each program has of a channel, `(programs, 2, C)`."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mean = _channel_vector(statistics, c, C)
    deviation = tl.rsqrt(_channel_vector(statistics + C, c, C) + eps)
    shift, scale = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
    for start in range(tl.program_id(0) * BP, rows, tl.num_programs(0) * BP):
        row = start + tl.arange(0, BP)
        there = (row < rows)[:, None] & (c < C)[None, :]
        at = ((row // P).to(tl.int64) * C * P + (row % P) * x_p)[:, None] + c[None, :] * x_c
        grad_tile = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
        u_tile = tl.load(u + at, mask=there, other=0.0).to(tl.float32)
        shift += tl.sum(grad_tile, 0)
        scale += tl.sum(grad_tile * (u_tile - mean[None, :]) * deviation[None, :], 0)
    at = tl.program_id(0) * 2 * C + c
    tl.store(sums + at, shift, mask=c < C)
    tl.store(sums + at + C, scale, mask=c < C)


@triton.jit(do_not_specialize=_SIZES)
def convolution_gradient(
    grad, x, u, context, weight, scale, statistics, sums, grad_y, grad_context, grad_weight, grad_scale, grad_shift,
    N, C, H, W, K, programs, chunk, eps, x_p, x_c,
    NORM: tl.constexpr, BATCH: tl.constexpr, ROWS: tl.constexpr, KP: tl.constexpr, BC: tl.constexpr,
    BP: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """From the gradient of ``BN(u)``, or without ``NORM`` that of ``u``: the gradients of ``y``, of the context
    `(chunks, N, K, C)` and of the weight `(chunks, N, 9, C)` in parts, and of BN's scale and shift.

    The gradient of ``u`` is made from that of ``BN(u)`` where it is read, at the nine neighbours of a position, and
    never written to memory; so is ``y``.
    """
    P = H * W
    n, part = tl.program_id(0), tl.program_id(1)
    c, i, taps = tl.program_id(2) * BC + tl.arange(0, BC), tl.arange(0, KP), tl.arange(0, 16)
    first_of_image = n.to(tl.int64) * C * P
    if NORM:
        mean = _channel_vector(statistics, c, C)
        deviation = tl.rsqrt(_channel_vector(statistics + C, c, C) + eps)
        factor = _channel_vector(scale, c, C) * deviation
        shift_sum, scale_sum = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
        for start in range(0, programs, ROWS):
            rows = start + tl.arange(0, ROWS)
            there_rows = (rows < programs)[:, None] & (c < C)[None, :]
            at_rows = rows[:, None] * 2 * C + c[None, :]
            shift_sum += tl.sum(tl.load(sums + at_rows, mask=there_rows, other=0.0), 0)
            scale_sum += tl.sum(tl.load(sums + at_rows + C, mask=there_rows, other=0.0), 0)
        if (n == 0) & (part == 0):
            tl.store(grad_shift + c, shift_sum, mask=c < C)
            tl.store(grad_scale + c, scale_sum, mask=c < C)
        if BATCH:
            number = 1.0 * N * P
            shift_mean, scale_mean = shift_sum / number, scale_sum / number
    there_context = (i < K)[:, None] & (c < C)[None, :]
    at_context = (n * K + i[:, None]) * C + c[None, :]
    context_tile = tl.load(context + at_context, mask=there_context, other=0.0).to(x.dtype.element_ty)
    context_sum, weight_sum = tl.zeros([KP, BC], tl.float32), tl.zeros([16, BC], tl.float32)
    first = part * chunk
    last = tl.minimum(first + chunk, P)
    for start in range(first, last, BP):
        q = start + tl.arange(0, BP)
        row, column = q // W, q % W
        narrow = (q < last)[:, None] & (i < K)[None, :]
        x_c_tile = tl.load(x + first_of_image + q[:, None] * x_p + i[None, :] * x_c, mask=narrow, other=0.0)
        y = _dot(x_c_tile, context_tile, PRECISION, WIDE)
        y_sum = tl.zeros([BP, BC], tl.float32)
        for tap in range(9):
            down, right = 1 - tap // 3, 1 - tap % 3
            inside = (row + down >= 0) & (row + down < H) & (column + right >= 0) & (column + right < W) & (q < last)
            there = inside[:, None] & (c < C)[None, :]
            at = first_of_image + (q + down * W + right)[:, None] * x_p + c[None, :] * x_c
            grad_u = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
            if NORM:
                if BATCH:
                    unit = (tl.load(u + at, mask=there, other=0.0).to(tl.float32) - mean[None, :]) * deviation[None, :]
                    grad_u = grad_u - shift_mean[None, :] - unit * scale_mean[None, :]
                grad_u = tl.where(there, grad_u * factor[None, :], 0.0)
            y_sum += grad_u * tl.load(weight + c * 9 + tap, mask=c < C, other=0.0).to(tl.float32)[None, :]
            weight_sum += tl.where((taps == tap)[:, None], tl.sum(grad_u * y, 0)[None, :], 0.0)
        rounded = y_sum.to(x.dtype.element_ty)
        at_y = first_of_image + q[:, None] * x_p + c[None, :] * x_c
        tl.store(grad_y + at_y, rounded, mask=(q < last)[:, None] & (c < C)[None, :])
        context_sum += _dot(tl.trans(x_c_tile), rounded, PRECISION, WIDE)
    image = part * N + n
    tl.store(grad_context + (image * K + i[:, None]) * C + c[None, :], context_sum, mask=there_context)
    at_taps = (image * 9 + taps[:, None]) * C + c[None, :]
    tl.store(grad_weight + at_taps, weight_sum, mask=(taps < 9)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=_SIZES)
def input_gradient(
    grad, x, grad_y, context, grad_context, grad_x, N, C, H, W, K, stride, part_count, share, x_p, x_c,
    RESIDUAL: tl.constexpr, ATTEND: tl.constexpr, CONTEXT: tl.constexpr,
    KP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The gradient of ``x``, the sum of up to three: under ``RESIDUAL`` that of the sum, ``grad``; under ``ATTEND``
    what ``x_c`` has of ``y``'s; under ``CONTEXT`` what ``x_s`` and ``x_sc`` have of the context's, the sum of parts."""
    P = H * W
    n = tl.program_id(0)
    q = tl.program_id(1) * BP + tl.arange(0, BP)
    c, i = tl.program_id(2) * BC + tl.arange(0, BC), tl.arange(0, KP)
    first_of_image = n.to(tl.int64) * C * P
    of_image = n * K * C
    at = first_of_image + q[:, None] * x_p + c[None, :] * x_c
    there = (q < P)[:, None] & (c < C)[None, :]
    if RESIDUAL:  # noqa: SIM108 - both branches would be compiled
        total = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
    else:
        total = tl.zeros([BP, BC], tl.float32)
    strided = (q < P) & ((q // W) % stride == 0) & ((q % W) % stride == 0)
    if CONTEXT:
        x_sc = tl.load(
            x + first_of_image + q[:, None] * x_p + i[None, :] * x_c,
            mask=strided[:, None] & (i < K)[None, :],
            other=0.0,
        )
        at_context = of_image + i[:, None] * C + c[None, :]
        tile = _sum_of_parts(grad_context, at_context, (i < K)[:, None] & (c < C)[None, :], part_count, N * K * C)
        total += _dot(x_sc, (tile * share).to(x.dtype.element_ty), PRECISION, WIDE)
    if tl.program_id(2) * BC < K:  # some of these channels are compact ones
        for start in range(0, C, BC):
            j = start + tl.arange(0, BC)
            there_pair = (j < C)[:, None] & (c < K)[None, :]  # (BC, BC): what a channel has of the compact one
            at_j = first_of_image + q[:, None] * x_p + j[None, :] * x_c
            at_pair = of_image + c[None, :] * C + j[:, None]
            if ATTEND:
                pair = tl.load(context + at_pair, mask=there_pair, other=0.0).to(x.dtype.element_ty)
                of_y = tl.load(grad_y + at_j, mask=(q < P)[:, None] & (j < C)[None, :], other=0.0)
                total += _dot(of_y, pair, PRECISION, WIDE)
            if CONTEXT:
                gradient = _sum_of_parts(grad_context, at_pair, there_pair, part_count, N * K * C)
                x_s = tl.load(x + at_j, mask=strided[:, None] & (j < C)[None, :], other=0.0)
                total += _dot(x_s, (gradient * share).to(x.dtype.element_ty), PRECISION, WIDE)
    tl.store(grad_x + at, total, mask=there)
