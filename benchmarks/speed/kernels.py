"""LightNL's kernels for GPUs beside PyTorch's operators and the block's floor: ``python benchmarks/speed/kernels.py``.

At every row shape of ``mobile``, in evaluation and in a training step (forward and backward), in float32 and bfloat16:

    error           of the kernels, against the formula in float64: relative, of the values and of the input's gradient
    plain, kernels  milliseconds of a block of PyTorch's operators, and of one of the kernels
    floor           the block without its product: depthwise convolution, BN and sum, of PyTorch's operators

eager is as the block is called, graph a CUDA graph of the same, in which nothing waits for Python. Launches are of CUDA
kernels, as the profiler counts them. What the lines at the end say of USED_FROM belongs into
``search_space/lightnl/gpu.py``: from which size on the kernels are faster at every shape, called eagerly.

Without a GPU (--device cpu) the kernels run in Triton's interpreter: errors are what they are on a GPU, times are none.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from benchmarks.whole_number import block_shape, whole_number  # noqa: E402
from search_space import load_skeleton  # noqa: E402
from search_space.cost.macs import row_sizes  # noqa: E402
from search_space.entry_point import Parser, path_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.lightnl import gpu  # noqa: E402
from search_space.lightnl.block import LightNL  # noqa: E402
from search_space.lightnl.macs import compact_channels  # noqa: E402
from search_space.whole_file import check_writable, write_whole  # noqa: E402

EVALUATION, TRAINING = MODES = ('evaluation', 'training')
EAGER, GRAPH = 'eager', 'graph'
PLAIN, KERNELS, FLOOR = 'plain', 'kernels', 'floor'
TYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
TOLERANCE = {'float32': 1e-4, 'bfloat16': 2e-2}
"""What an error may be: a few roundings of the type, of values; of gradients four times that."""
GOAL = 1.5
"""Times the floor."""
ERROR_BATCH = 4


@dataclass(frozen=True)
class Line:
    """What was measured of one shape, batch, mode, type and runtime. Times are milliseconds, the medians of rounds."""

    channels: int
    height: int
    width: int
    batch: int
    mode: str
    type: str
    runtime: str
    error: float
    gradient_error: float
    plain: float
    kernels: float
    floor: float
    plain_launches: int
    kernel_launches: int

    @property
    def elements(self) -> int:
        return self.batch * self.channels * self.height * self.width


class Floor(nn.Module):
    """``x + BN(DWConv(x))``, with the convolution and BN of a block."""

    def __init__(self, block: LightNL):
        super().__init__()
        self.conv, self.bn = block.conv, block.bn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(x))


def formula(block: LightNL, x: Tensor) -> Tensor:
    """``x + BN(DWConv(y))`` as it is written."""
    k = compact_channels(block.channels, block.ratio)
    x_s = x[:, :, :: block.stride, :: block.stride]
    context = torch.einsum('nkij,ncij->nkc', x_s[:, :k], x_s) / (x.shape[2] * x.shape[3])
    y = torch.einsum('nkhw,nkc->nchw', x[:, :k], context)
    return x + block.bn(functional.conv2d(y, block.conv.weight, padding=1, groups=block.channels))


def call(module: nn.Module, x: Tensor, mode: str) -> Callable[[], tuple[Tensor, ...]]:
    """One call of ``module`` in ``mode``; gives the values and, in training, the gradient of ``x``."""
    module.train(mode == TRAINING)
    if mode == EVALUATION:

        def evaluate() -> tuple[Tensor]:
            with torch.no_grad():
                return (module(x),)

        return evaluate
    leaves, grad = [x.detach().requires_grad_(), *module.parameters()], torch.ones_like(x)

    def step() -> tuple[Tensor, Tensor]:
        z = module(leaves[0])
        return z, torch.autograd.grad(z, leaves, grad)[0]

    return step


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def errors(block: LightNL, shape: tuple[int, ...], mode: str, dtype: torch.dtype, args) -> tuple[float, float]:
    """Of the values and of the input's gradient, which is none in evaluation."""
    x = tensor((min(ERROR_BATCH, args.batch[0]), *shape), dtype, args)
    gpu._switch = 'on'
    found = call(copy.deepcopy(block), x, mode)()
    exact_block = copy.deepcopy(block).double().train(mode == TRAINING)
    exact_x = x.double().requires_grad_()
    exact_z = formula(exact_block, exact_x)
    if mode == EVALUATION:
        return error(found[0], exact_z.detach()), 0.0
    (exact_grad,) = torch.autograd.grad(exact_z, exact_x, torch.ones_like(exact_z))
    return error(found[0].detach(), exact_z.detach()), error(found[1], exact_grad)


def tensor(shape: tuple[int, ...], dtype: torch.dtype, args) -> Tensor:
    return torch.randn(shape, device=args.device).to(dtype).contiguous(memory_format=torch.channels_last)


def milliseconds(function: Callable[[], object], args) -> float:
    """The median of some rounds, each of as many calls as take ``args.milliseconds``."""
    wait = torch.cuda.synchronize if args.device == 'cuda' else (lambda: None)

    def once(calls: int) -> float:
        wait()
        started = time.perf_counter()
        for _ in range(calls):
            function()
        wait()
        return 1e3 * (time.perf_counter() - started) / calls

    first = once(1)
    calls = max(1, int(args.milliseconds / max(first, 1e-3)))
    return statistics.median(once(calls) for _ in range(args.rounds))


def in_graph(function: Callable[[], object]) -> Callable[[], None]:
    """A CUDA graph of one call of ``function``."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def launches(function: Callable[[], object], args) -> int:
    """CUDA kernels of a call; without a GPU those that are launched in the interpreter."""
    if args.device == 'cpu':
        count, real = [], gpu._kernels
        gpu._kernels = lambda: count.append(1) or real()
        try:
            function()
        finally:
            gpu._kernels = real
        return len(count)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def measure(shape: tuple[int, int, int], batch: int, mode: str, type_: str, args) -> list[Line]:
    torch.manual_seed(0)
    dtype = TYPES[type_]
    block = LightNL(shape[0], args.ratio, args.stride)
    for value in (block.bn.weight, block.bn.bias):
        nn.init.normal_(value)
    block = block.to(args.device, memory_format=torch.channels_last)
    found_errors = errors(block, shape, mode, dtype, args)
    block, floor = (copy.deepcopy(block).to(dtype) for _ in range(2))
    x, times, counts = tensor((batch, *shape), dtype, args), {}, {}
    for subject, module, switch in (
        (PLAIN, block, 'off'),
        (KERNELS, block, 'on'),
        (FLOOR, Floor(floor), 'off'),
    ):
        gpu._switch = switch
        function = call(module, x, mode)
        function()
        times[EAGER, subject] = milliseconds(function, args)
        counts[subject] = launches(function, args)
        if args.device == 'cuda':
            times[GRAPH, subject] = milliseconds(in_graph(function), args)
    return [
        Line(
            *shape,
            batch,
            mode,
            type_,
            runtime,
            *found_errors,
            *(times[runtime, subject] for subject in (PLAIN, KERNELS, FLOOR)),
            counts[PLAIN],
            counts[KERNELS],
        )
        for runtime in dict.fromkeys(runtime for runtime, _ in times)
    ]


HEADING = (
    '| C×H×W | batch | mode | type | runtime | error, of gradient | launches | plain ms | kernels ms | floor ms '
    '| plain / floor | kernels / floor | plain / kernels |'
)


def row(line: Line) -> str:
    return (
        f'| {line.channels}×{line.height}×{line.width} | {line.batch} | {line.mode} | {line.type} | {line.runtime} '
        f'| {line.error:.0e}, {line.gradient_error:.0e} | {line.plain_launches} → {line.kernel_launches} '
        f'| {line.plain:.3f} | {line.kernels:.3f} | {line.floor:.3f} | {line.plain / line.floor:.2f} '
        f'| {line.kernels / line.floor:.2f} | {line.plain / line.kernels:.2f} |'
    )


def used_from(lines: list[Line], mode: str) -> int | None:
    """Elements of a map from which the kernels are faster wherever both were measured eagerly; None: nowhere."""
    of_mode = [line for line in lines if line.mode == mode and line.runtime == EAGER]
    slower = [line.elements for line in of_mode if line.kernels >= line.plain]
    faster = [line.elements for line in of_mode if line.elements > max(slower, default=0)]
    return min(faster, default=None)


def report(lines: list[Line]) -> str:
    """A line per mode and runtime of what became of the goal, one of the errors, and one of USED_FROM."""
    texts = []
    for mode in MODES:
        for runtime in dict.fromkeys(line.runtime for line in lines):
            ratios = [line.kernels / line.floor for line in lines if (line.mode, line.runtime) == (mode, runtime)]
            met = sum(ratio <= GOAL for ratio in ratios)
            texts.append(
                f'{mode}, {runtime}: kernels / floor, goal at most {GOAL}: met at {met} of {len(ratios)}; '
                f'the largest {max(ratios):.2f}'
            )
    wrong = [line for line in lines if not is_right(line)]
    texts.append(f'kernels against the formula: {len(lines) - len(wrong)} of {len(lines)} within a few roundings')
    texts.append(f'USED_FROM = { ({mode: used_from(lines, mode) for mode in (EVALUATION, TRAINING)}) }')
    return '\n'.join(texts)


def is_right(line: Line) -> bool:
    return line.error <= TOLERANCE[line.type] and line.gradient_error <= 4 * TOLERANCE[line.type]


def write(file: Path, lines: list[Line]) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Line)], lineterminator='\n')
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    write_whole(file, out.getvalue().encode())


def row_shapes() -> list[tuple[int, int, int]]:
    """The distinct shapes `(C, H, W)` of the rows of ``mobile``."""
    skeleton = load_skeleton('mobile')
    sizes = row_sizes(skeleton)[1:]
    return list(dict.fromkeys((row.channels, size, size) for row, size in zip(skeleton.rows, sizes, strict=False)))


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shapes', type=block_shape, nargs='+', metavar='CxHxW', help='by default the rows of mobile')
    parser.add_argument('--batch', type=whole_number, nargs='+', default=[8, 64], help='images (default: 8 64)')
    parser.add_argument('--types', nargs='+', choices=TYPES, default=list(TYPES), help='(default: both)')
    parser.add_argument('--ratio', type=float, default=0.25, help="LightNL's channel ratio (default: 0.25)")
    parser.add_argument('--stride', type=whole_number, default=1, help="LightNL's spatial stride (default: 1)")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda')
    parser.add_argument('--rounds', type=whole_number, default=5, help='(default: 5)')
    parser.add_argument('--milliseconds', type=float, default=20, help='of a round (default: 20)')
    parser.add_argument('--csv', type=path_argument, metavar='FILE', help='all of it, anew after each shape')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda: torch sees no GPU here')
    if args.device == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError("--device cpu: kernels run in Triton's interpreter, which TRITON_INTERPRET=1 asks for")
    if args.csv:
        check_writable(args.csv)
    LightNL(1, args.ratio, args.stride)
    if args.device == 'cpu':
        gpu._is_on_gpu = lambda x: True
    card = torch.cuda.get_device_name() if args.device == 'cuda' else "Triton's interpreter"
    print(
        f'LightNL r={args.ratio:g}, s={args.stride}, channels-last, on {card}, torch {torch.__version__}; '
        f'medians of {args.rounds} rounds\n\n{HEADING}\n{"|---" * 13}|'
    )
    lines: list[Line] = []
    for shape in args.shapes or row_shapes():
        for batch in args.batch:
            for type_ in args.types:
                for mode in MODES:
                    new = measure(shape, batch, mode, type_, args)
                    print('\n'.join(map(row, new)), flush=True)
                    lines += new
        if args.csv:
            write(args.csv, lines)
    print(f'\n{report(lines)}')
    return 0 if all(is_right(line) for line in lines) else 1


if __name__ == '__main__':
    sys.exit(run_command('kernels.py', main))
