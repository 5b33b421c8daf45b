"""The LightNL block beside what it replaces and beside its floor: ``python benchmarks/speed/block.py``.

On every row shape of ``mobile``, forward (evaluation, no gradients) and forward and backward (training), against

    floor    the block without its product: depthwise convolution, BN and sum, which no implementation can avoid
    einsum   the formula written down with einsum, in the order of fewer MACs
    SDPA     softmax attention of the same compact features, F.scaled_dot_product_attention, in the product's place
    NL       the conventional non-local block
    fused    LightNL after fuse(), BN in its convolution: forward only

``LightNL / sum`` is its time over that of the floor and the products together, the products' MACs at the speed of a
large matrix product (1024×1024×1024): what no implementation of these parts one after the other can beat.
``products / floor`` is what the products take, in units of the floor.

A round runs each in a random order, and ratios are of the runs of one round. What would form more than --most GiB of
affinities is not measured, but "-". Peak memory is that of tensors beyond input, weights and incoming gradient: on a
GPU as the allocator counts it, on a CPU as the profiler sees it, in a call that is not timed.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # its notices are none of the reader's; read when torch is imported
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor, nn

from benchmarks.speed.paired import paired
from benchmarks.whole_number import block_shape, whole_number
from search_space import LightNL, NonLocal, load_network, load_skeleton
from search_space.cost.latency import clock
from search_space.cost.macs import row_sizes
from search_space.entry_point import Parser, path_argument
from search_space.entry_point import run as run_command
from search_space.lightnl.block import fused
from search_space.lightnl.macs import compact_channels, compact_positions, product_macs
from search_space.whole_file import check_writable

LIGHTNL, FLOOR, EINSUM, SDPA, NL = 'LightNL', 'floor', 'einsum', 'SDPA', 'NL'
FUSED, COMPILED = 'fused', 'compiled'
FORWARD, STEP = 'forward', 'forward+backward'
RUN_SECONDS, FEWEST_ROUNDS = 2e-3, 6
"""How long a run takes at least (a shorter one is the clock's), and rounds of even the slowest."""

LARGEST_HEAP_BLOCK = 32_000_000
"""Bytes. Once glibc has freed a block of that size, what is smaller is kept for the next tensor and not given back to
the kernel: as in a training, and otherwise the first to run would pay for the page faults of all."""

Shape = tuple[int, int, int]
Product = Callable[[Tensor], Tensor]


def einsum_product(x: Tensor, ratio: float, stride: int) -> Tensor:
    """``y = (1/P) · (x_c x_scᵀ) x_s`` of ``x`` `(N, C, H, W)`, in the order of fewer MACs."""
    x_c, x_s = x[:, : compact_channels(x.shape[1], ratio)], x[:, :, ::stride, ::stride]
    x_sc = x_s[:, : x_c.shape[1]]
    affinity_macs, context_macs = product_macs(*x.shape[1:], ratio, stride)
    if affinity_macs < context_macs:
        affinity = torch.einsum('nkhw,nkij->nhwij', x_c, x_sc)
        y = torch.einsum('nhwij,ncij->nchw', affinity, x_s)
    else:
        context = torch.einsum('nkij,ncij->nkc', x_sc, x_s)
        y = torch.einsum('nkhw,nkc->nchw', x_c, context)
    return y / (x.shape[2] * x.shape[3])


def sdpa_product(x: Tensor, ratio: float, stride: int) -> Tensor:
    """Softmax attention of ``x_c`` to ``x_sc``, of the values ``x_s``; ``x`` and the result are `(N, C, H, W)`."""
    x_c, x_s = x[:, : compact_channels(x.shape[1], ratio)], x[:, :, ::stride, ::stride]
    query, key, value = (part.flatten(2).transpose(1, 2) for part in (x_c, x_s[:, : x_c.shape[1]], x_s))
    y = nn.functional.scaled_dot_product_attention(query, key, value)
    return y.transpose(1, 2).unflatten(2, x.shape[2:])


class Written(nn.Module):
    """``x + BN(DWConv(product(x)))`` as it is written, with the convolution and BN of a LightNL block."""

    def __init__(self, block: LightNL, product: Product):
        super().__init__()
        self.conv, self.bn, self.product = block.conv, block.bn, product

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(self.product(x)))


def blocks(channels: int, ratio: float, stride: int, compiled: bool) -> dict[str, nn.Module]:
    """The subjects at ``channels``, awake: with a BN scale of 1, not the 0 of a fresh block."""
    block = LightNL(channels, ratio, stride)
    found = {
        LIGHTNL: block,
        FLOOR: Written(block, lambda x: x),
        EINSUM: Written(block, lambda x: einsum_product(x, ratio, stride)),
        SDPA: Written(block, lambda x: sdpa_product(x, ratio, stride)),
        NL: NonLocal(channels),
    }
    for module in (block, found[NL]):
        nn.init.ones_(module.bn.weight)
    found[FUSED] = fused(block)
    if compiled:
        found[COMPILED] = torch.compile(block, dynamic=False)
    return found


def affinity_bytes(subject: str, shape: Shape, batch: int, stride: int, mode: str) -> float:
    """Bytes of the `P × p` matrices that a subject forms at a time, as far as it forms any."""
    _, height, width = shape
    p = compact_positions(height, width, stride if subject == SDPA else 1)
    together = {FORWARD: {NL: 1, SDPA: 2}, STEP: {NL: 2, SDPA: 3}}[mode].get(subject, 0)
    return 4 * together * batch * height * width * p


@dataclass
class Cell:
    """What was measured at one shape and batch, in one mode.

    Attributes:
        ms: subject to the milliseconds of its rounds; a slow subject has fewer of them.
        mebibytes: subject to its peak.
        left_out: subject to why it was not measured.
        products: milliseconds of the MACs of LightNL's product, and of its gradient, at the speed of a large one.
    """

    shape: Shape
    batch: int
    mode: str
    products: float
    ms: dict[str, list[float]] = field(default_factory=dict)
    mebibytes: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def ratio(self, over: str, under: str) -> tuple[float, float, float] | None:
        """See :func:`paired`; none where one of the two was not measured."""
        if over not in self.ms or under not in self.ms:
            return None
        return paired(self.ms[over], self.ms[under])

    def over_sum(self) -> tuple[float, float, float]:
        """LightNL's time over the floor's and the products' together; see :func:`paired`."""
        return paired(self.ms[LIGHTNL], [ms + self.products for ms in self.ms[FLOOR]])

    def products_to_floor(self) -> float:
        return self.products / statistics.median(self.ms[FLOOR])


def call(module: nn.Module, x: Tensor, mode: str) -> Callable[[], None]:
    """One call of ``module`` in ``mode``; ``x`` has no gradient."""
    if mode == FORWARD:
        module.eval()

        def forward() -> None:
            with torch.inference_mode():
                module(x)

        return forward
    module.train()
    leaf, grad = x.clone().requires_grad_(), torch.randn_like(x)

    def step() -> None:
        module(leaf).backward(grad)
        leaf.grad = None
        module.zero_grad(set_to_none=True)

    return step


def timer(device: str) -> Callable[[Callable[[], None], int], float]:
    """What takes the seconds per call of a function that is called a number of times."""
    read = time.thread_time if clock(device) == 'thread' else time.perf_counter
    wait = torch.cuda.synchronize if device == 'cuda' else (lambda: None)

    def seconds(function: Callable[[], None], calls: int) -> float:
        wait()
        started = read()
        for _ in range(calls):
            function()
        wait()
        return (read() - started) / calls

    return seconds


def large_product_speed(args: argparse.Namespace) -> float:
    """MACs per second of a 1024×1024×1024 matrix product, the best of 20."""
    side = 1024
    a, b = torch.randn(2, side, side, device=args.device)
    seconds = timer(args.device)
    return side**3 / min(seconds(lambda: a @ b, 1) for _ in range(20))


def peak_mebibytes(function: Callable[[], None], device: str) -> float:
    """Peak MiB of the tensors that ``function`` makes."""
    if device == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    allocated, peak = 0, 0
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]')
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak / 2**20


def measure(shape: Shape, batch: int, mode: str, subjects: list[str], args: argparse.Namespace) -> Cell:
    """Times ``subjects`` in rounds, until each but the slowest has had its share of ``args.seconds``."""
    torch.manual_seed(0)
    passes = {FORWARD: 1, STEP: 3}[mode]  # the gradient of a product is two more
    macs = passes * batch * min(product_macs(*shape, args.ratio, args.stride))
    cell = Cell(shape, batch, mode, 1e3 * macs / args.macs_per_second)
    memory_format = {'channels-last': torch.channels_last, 'contiguous': torch.contiguous_format}[args.layout]
    x = torch.randn(batch, *shape, device=args.device).contiguous(memory_format=memory_format)
    torch.compiler.reset()  # it compiles a function for eight shapes, and then no more
    modules = blocks(shape[0], args.ratio, args.stride, COMPILED in subjects)
    calls = {}
    for subject in subjects:
        gibibytes = affinity_bytes(subject, shape, batch, args.stride, mode) / 2**30
        if gibibytes > args.most:
            cell.left_out[subject] = f'its affinities would take {gibibytes:.0f} GiB'
        else:
            module = modules[subject].to(args.device, memory_format=memory_format)
            calls[subject] = call(module, x, mode)
    seconds, once = timer(args.device), {}
    for subject, function in calls.items():
        function()
        cell.mebibytes[subject] = peak_mebibytes(function, args.device)
        once[subject] = seconds(function, 1)
        once[subject] = min(once[subject], seconds(function, 2))
    repeats = {subject: max(1, math.ceil(RUN_SECONDS / max(once[subject], 1e-7))) for subject in calls}
    share = args.seconds / len(calls)
    rounds = {
        subject: min(args.rounds, max(FEWEST_ROUNDS, int(share / (repeats[subject] * once[subject]))))
        for subject in calls
    }
    cell.ms = {subject: [] for subject in calls}
    draw = random.Random(0)
    for index in range(max(rounds.values())):
        taking_part = [subject for subject in calls if index < rounds[subject]]
        for subject in draw.sample(taking_part, len(taking_part)):
            cell.ms[subject].append(1e3 * seconds(calls[subject], repeats[subject]))
    return cell


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    for mode in (FORWARD, STEP):
        subjects = [LIGHTNL, FLOOR, EINSUM, SDPA, NL] + [FUSED] * (mode == FORWARD) + [COMPILED] * args.compile
        for batch in args.batch:
            for shape in args.shapes:
                yield measure(shape, batch, mode, subjects, args)


COLUMNS = (
    (LIGHTNL, FLOOR),
    (EINSUM, LIGHTNL),
    (SDPA, LIGHTNL),
    (NL, LIGHTNL),
    (FUSED, LIGHTNL),
    (COMPILED, LIGHTNL),
)


def heading(args: argparse.Namespace) -> str:
    columns = [f'{f"{over} / {under}":>28}' for over, under in COLUMNS if over != COMPILED or args.compile]
    memory = ' / '.join((LIGHTNL, FLOOR, EINSUM, SDPA, NL))
    beginning = f'{"C×H×W":11}{"batch":>6}{"ms":>10}{"LightNL / sum":>24}'
    return f'{beginning}{"".join(columns)}{"products / floor":>18}   MiB: {memory}'


def line(cell: Cell, args: argparse.Namespace) -> str:
    """The line of the table: LightNL's milliseconds, ratios with their intervals, peak MiB."""
    text = f'{shape_text(cell.shape):11}{cell.batch:6}{statistics.median(cell.ms[LIGHTNL]):10.3f}'
    text += f'{"{:.2f} [{:.2f}, {:.2f}]".format(*cell.over_sum()):>24}'
    for over, under in COLUMNS:
        if over == COMPILED and not args.compile:
            continue
        ratio = cell.ratio(over, under)
        text += f'{"-" if ratio is None else "{:.3g} [{:.3g}, {:.3g}]".format(*ratio):>28}'
    text += f'{cell.products_to_floor():18.2f}'
    memory = (cell.mebibytes.get(subject) for subject in (LIGHTNL, FLOOR, EINSUM, SDPA, NL))
    return text + '   ' + ' / '.join('-' if value is None else f'{value:.3g}' for value in memory)


def shape_text(shape: Shape) -> str:
    return '×'.join(map(str, shape))


def left_out(found: list[Cell]) -> str:
    return '\n'.join(
        f'-: {subject} at {shape_text(cell.shape)}, batch {cell.batch}, {cell.mode}: {why}'
        for cell in found
        for subject, why in cell.left_out.items()
    )


def goals(found: list[Cell]) -> str:
    """A line per goal: at how many shapes it was met, and how far from it the worst one is."""
    lines = []
    for mode in (FORWARD, STEP):
        of_mode = [cell for cell in found if cell.mode == mode]
        for under, most in (('sum', {FORWARD: 1.25, STEP: 1.35}[mode]), (EINSUM, 1.0)):
            ratios = {
                id(cell): (cell.over_sum() if under == 'sum' else cell.ratio(LIGHTNL, under))[0] for cell in of_mode
            }
            worst = max(of_mode, key=lambda cell: ratios[id(cell)])
            met = sum(ratio <= most for ratio in ratios.values())
            value = ratios[id(worst)]
            lines.append(
                f'{mode + ", LightNL / " + under:34} goal: at most {most}; met at {met} of {len(of_mode)}; '
                f'the largest, {value:.2f} at {shape_text(worst.shape)}, batch {worst.batch}, '
                f'{"meets" if value <= most else "misses"} it by {abs(value / most - 1):.0%}'
            )
    return '\n'.join(lines)


def whole_network(args: argparse.Namespace) -> str:
    """NL against LightNL after each of MobileNetV2's rows at 224, one image, forward: their sums over the 17 rows."""
    skeleton, sample = load_network('mobilenet-v2')
    sizes = row_sizes(skeleton)[1:]
    rows = Counter((row.channels, size, size) for row, size in zip(skeleton.fix(sample).rows, sizes, strict=False))
    found = {shape: measure(shape, 1, FORWARD, [LIGHTNL, NL], args) for shape in rows}
    if any(cell.left_out for cell in found.values()):
        return 'NL over the rows of MobileNetV2 does not fit; see --most'
    sums = {
        subject: [sum(rows[shape] * ms for shape, ms in zip(rows, ms_of_round, strict=True)) for ms_of_round in zipped]
        for subject in (LIGHTNL, NL)
        for zipped in [list(zip(*(cell.ms[subject] for cell in found.values()), strict=False))]
    }
    ratio, low, high = paired(sums[NL], sums[LIGHTNL])
    return (
        f'NL / LightNL over the {rows.total()} rows of MobileNetV2 at 224, batch 1, {FORWARD}: '
        f'{statistics.median(sums[NL]):.0f} ms / {statistics.median(sums[LIGHTNL]):.2f} ms = '
        f'{ratio:.0f} [{low:.0f}, {high:.0f}]   goal: at least 100; '
        f'{"met" if ratio >= 100 else "missed"} by {abs(ratio / 100 - 1):.0%}'
    )


def write(file: Path, found: list[Cell]) -> None:
    """A line a cell and subject; ``ratio``, ``low``, ``high`` are of its time to LightNL's."""
    with file.open('w', newline='') as out:
        columns = ('channels', 'height', 'width', 'batch', 'mode', 'subject', 'ms', 'rounds', 'ratio', 'low', 'high')
        writer = csv.writer(out)
        writer.writerow([*columns, 'peak_mib'])
        for cell in found:
            for subject, ms in cell.ms.items():
                times = [f'{statistics.median(ms):.4f}', len(ms), *(f'{r:.3f}' for r in cell.ratio(subject, LIGHTNL))]
                memory = f'{cell.mebibytes[subject]:.3f}'
                writer.writerow([*cell.shape, cell.batch, cell.mode, subject, *times, memory])


def row_shapes() -> list[Shape]:
    """The distinct shapes `(C, H, W)` of the rows of ``mobile``."""
    skeleton = load_skeleton('mobile')
    sizes = row_sizes(skeleton)[1:]
    return list(dict.fromkeys((row.channels, size, size) for row, size in zip(skeleton.rows, sizes, strict=False)))


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--shapes',
        type=block_shape,
        nargs='+',
        metavar='CxHxW',
        help='by default those of mobile, and MobileNetV2 whole',
    )
    parser.add_argument('--batch', type=whole_number, nargs='+', default=[1, 8, 64], help='images (default: 1 8 64)')
    parser.add_argument('--ratio', type=float, default=0.25, help="LightNL's channel ratio (default: 0.25)")
    parser.add_argument('--stride', type=whole_number, default=1, help="LightNL's spatial stride (default: 1)")
    parser.add_argument('--layout', choices=['channels-last', 'contiguous'], default='channels-last')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=whole_number, default=1, help='of the CPU (default: 1)')
    parser.add_argument('--compile', action='store_true', help='the block under torch.compile too, a minute a shape')
    parser.add_argument('--seconds', type=float, default=2.5, help='for a line of the table (default: 2.5)')
    parser.add_argument('--rounds', type=whole_number, default=60, help='at most, for a line (default: 60)')
    parser.add_argument('--most', type=float, default=4.0, metavar='GIB', help='affinities at a time (default: 4)')
    parser.add_argument('--csv', type=path_argument, metavar='FILE', help='all times and peaks')
    args = parser.parse_args()
    if args.csv:
        check_writable(args.csv)  # before the minutes that it takes
    torch.set_num_threads(args.threads)
    everything = args.shapes is None
    args.shapes = args.shapes or row_shapes()
    LightNL(1, args.ratio, args.stride)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda: torch sees no GPU here')
    torch.ones(LARGEST_HEAP_BLOCK // 4)
    args.macs_per_second = large_product_speed(args)
    print(
        f'LightNL r={args.ratio}, s={args.stride}, {args.layout}, float32, on {args.device}, {args.threads} threads, '
        f'{clock(args.device)} clock, torch {torch.__version__}; a large product: {args.macs_per_second / 1e9:.0f} '
        'GMAC/s; ratios with 95% intervals'
    )
    found: list[Cell] = []
    for cell in cells(args):
        if not found or found[-1].mode != cell.mode:
            print(f'{cell.mode}\n{heading(args)}')
        found.append(cell)
        print(line(cell, args), flush=True)
    if any(cell.left_out for cell in found):
        print(left_out(found))
    print(goals(found))
    if everything:
        print(whole_network(args))
    if args.csv:
        write(args.csv, found)
    return 0


if __name__ == '__main__':
    sys.exit(run_command('block.py', main))
