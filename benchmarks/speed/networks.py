"""Whole networks beside each other, ours and torchvision's: ``python benchmarks/speed/networks.py``.

Latency at batch 1 of each network as it is (eager), as ``torch.compile`` makes it (compiled; on a GPU with CUDA graphs,
without which small kernels wait for Python) and in ONNX Runtime from the file that ``python -m trials export`` would
write (onnx, on the CPU only), and the speed of its training: forward, backward and a step of SGD, eager. PyTorch's
networks are in channels_last, as in our trials; all is in float32.

A round lets each network do a run in each runtime, in a random order, so that a machine that is slower for a while
makes none slower than another; ratios are those of the same round. A run is a call that is not timed, after which
caches hold what this network needs, and two that are; in training it is one step.

What LightNL takes is of the same network with its LightNL blocks removed (--without). MACs of torchvision's networks
are those of convolutions and matrix products; of ours also of pooling, 0.2%.

The default takes about five minutes on two idle cores, half of them torch.compile's and most of the rest the exports;
--runtimes eager training takes one.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks.speed.paired import paired  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space import ABSENT, LightNL, build, load_network, macs, named_networks  # noqa: E402
from search_space.backbones import ARGUMENTS, shipped_backbones  # noqa: E402
from search_space.cost.latency import clock  # noqa: E402
from search_space.entry_point import Parser, path_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.progress import progress  # noqa: E402
from search_space.whole_file import check_writable, write_whole  # noqa: E402
from trials.export import FORMATS, TOLERANCE, largest_difference  # noqa: E402

EAGER, COMPILED, ONNX, TRAINING = RUNTIMES = ('eager', 'compiled', 'onnx', 'training')
NETWORKS = ('mobilenet_v2', 'mobilenet_v3_large', 'autonl-s', 'autonl-l')
CALLS = 2
"""Timed calls of a run."""

Run = Callable[[], float]
"""One run; gives its milliseconds, of a call or a training step."""

Times = dict[tuple[str, str], list[float]]
"""Runtime and network to the milliseconds of each round."""


def without(name: str) -> str:
    return f'{name} without LightNL'


def check_runtimes(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: a runtime cannot be had here.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda: PyTorch sees no GPU here')
    if args.device == 'cuda' and ONNX in args.runtimes:
        raise ValueError('--runtimes onnx is measured on the CPU only; leave it out on cuda')
    if args.device == 'cpu' and COMPILED in args.runtimes and shutil.which(os.environ.get('CXX', 'g++')) is None:
        raise ValueError('--runtimes compiled needs a C++ compiler, and there is none: leave it out')


def make_networks(args: argparse.Namespace) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """The networks, and their MACs, both by name.

    Raises:
        ValueError: there is no such network.
    """
    networks, cost = {}, {}
    for name in args.networks:
        if name in shipped_backbones():
            networks[name] = torchvision.models.get_model(name, weights=None, **ARGUMENTS.get(name, {}))
            cost[name] = counted_macs(networks[name], args.input_size)
            continue
        skeleton, sample = load_network(name)
        samples = {name: sample}
        if name in args.without:
            samples[without(name)] = sample | {label: ABSENT for label in sample if label.endswith('/lightnl')}
        for title, chosen in samples.items():
            networks[title] = build(skeleton, chosen)
            cost[title] = macs(skeleton, args.input_size)(chosen)
            for block in networks[title].modules():
                if isinstance(block, LightNL):
                    nn.init.ones_(block.bn.weight)  # which starts at 0, where nothing shows of what the block computes
    for name in args.without:
        if without(name) not in networks:
            raise ValueError(f'--without {name}: it must be one of --networks, and of ours')
    return networks, cost


def counted_macs(network: nn.Module, input_size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, input_size, input_size))
    return counter.get_total_flops() / 2


class Stopwatch:
    """Reads the clock when all that was asked of the device is done."""

    def __init__(self, device: str):
        self.read = time.thread_time if clock(device) == 'thread' else time.perf_counter
        self.wait = torch.cuda.synchronize if device == 'cuda' else (lambda: None)

    def milliseconds(self, call: Callable[[], object], calls: int) -> float:
        self.wait()
        started = self.read()
        for _ in range(calls):
            call()
        self.wait()
        return 1e3 * (self.read() - started) / calls


def inference(call: Callable[[], object], watch: Stopwatch) -> Run:
    def run() -> float:
        with torch.inference_mode():
            call()
            return watch.milliseconds(call, CALLS)

    return run


def training(network: nn.Module, watch: Stopwatch, args: argparse.Namespace) -> Run:
    """Steps on one batch, over and over."""
    network = on_device(copy.deepcopy(network).train(), args)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images = on_device(torch.randn(args.batch, 3, args.input_size, args.input_size), args)
    labels = torch.arange(args.batch, device=args.device) % 10

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return lambda: watch.milliseconds(step, 1)


def on_device(what, args: argparse.Namespace):
    return what.to(args.device, memory_format=torch.channels_last)


def onnx_call(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """The network in ONNX Runtime, from a file's content that was checked.

    Raises:
        ValueError: its logits are not PyTorch's.
    """
    size = image.shape[-1]
    exported = FORMATS['onnx'].read(FORMATS['onnx'].write(network, size, {}))
    difference = largest_difference(exported, network, size)
    if not difference <= TOLERANCE:
        raise ValueError(f"the logits in ONNX Runtime are not PyTorch's, but differ by up to {difference:.1g}")
    return lambda: exported(image)


def prepare(networks: dict[str, nn.Module], args: argparse.Namespace) -> tuple[dict[tuple[str, str], Run], dict]:
    """The runs, and how many seconds each took to make, by runtime and network."""
    watch, runs, seconds = Stopwatch(args.device), {}, {}
    image = torch.randn(1, 3, args.input_size, args.input_size)
    for name, network in progress(networks.items(), 'networks made'):
        network.eval()
        for runtime in args.runtimes:
            started = time.perf_counter()
            if runtime == TRAINING:
                run = training(network, watch, args)
            else:
                call = onnx_call(network, image) if runtime == ONNX else pytorch_call(network, image, runtime, args)
                run = inference(call, watch)
            run()  # compiles, where there is something to compile
            runs[runtime, name], seconds[runtime, name] = run, time.perf_counter() - started
    return runs, seconds


def pytorch_call(network: nn.Module, image: torch.Tensor, runtime: str, args) -> Callable[[], object]:
    module, x = on_device(copy.deepcopy(network), args), on_device(image, args)
    if runtime == COMPILED:
        module = torch.compile(module, mode='reduce-overhead' if args.device == 'cuda' else None)
    return lambda: module(x)


def measure(runs: dict[tuple[str, str], Run], args: argparse.Namespace) -> Times:
    """Rounds of inference, then, fewer as they take longer, rounds of training."""
    times: Times = defaultdict(list)
    draw = random.Random(0)
    for rounds, subjects in (
        (args.rounds, [subject for subject in runs if subject[0] != TRAINING]),
        (args.training_rounds, [subject for subject in runs if subject[0] == TRAINING]),
    ):
        for _ in progress(range(rounds if subjects else 0), 'rounds'):
            for subject in draw.sample(subjects, len(subjects)):
                times[subject].append(runs[subject]())
    return times


def report(times: Times, seconds: dict, cost: dict[str, float], sizes: dict[str, int], args) -> str:
    first, width = args.networks[0], max(map(len, cost)) + 2
    lines = [f'{"":{width}}{"M MACs":>10}{"M parameters":>14}']
    lines += [f'{name:{width}}{cost[name] / 1e6:10.2f}{sizes[name] / 1e6:14.3f}' for name in cost]
    for runtime in args.runtimes:
        unit = f'images/s of {args.batch}' if runtime == TRAINING else 'ms of 1'
        made = {COMPILED: 's to compile', ONNX: 's to export'}.get(runtime, '')
        lines += ['', f'{runtime:{width}}{unit:>16}{"time / first":>14}{"95% interval":>17}{made:>15}'.rstrip()]
        for name in cost:
            found = times[runtime, name]
            median = statistics.median(found)
            speed = f'{1e3 * args.batch / median:16.1f}' if runtime == TRAINING else f'{median:16.2f}'
            ratio, low, high = paired(found, times[runtime, first])
            took = f'{seconds[runtime, name]:15.0f}' if made else ''
            lines.append(f'{name:{width}}{speed}{ratio:14.3f}{f"{low:.3f} to {high:.3f}":>17}{took}')
    for name in args.without:
        lines += [
            '',
            f'LightNL of {name} takes {1 - cost[without(name)] / cost[name]:.1%} of its MACs, and of its time',
        ]
        for runtime in args.runtimes:
            left, low, high = paired(times[runtime, without(name)], times[runtime, name])
            lines.append(f'  {runtime:{width - 2}}{1 - left:7.1%}   95% interval {1 - high:.1%} to {1 - low:.1%}')
    return '\n'.join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--networks',
        nargs='+',
        default=NETWORKS,
        metavar='NETWORK',
        help=f"{', '.join(named_networks())}, a network's file, or torchvision's name of one; ratios are to the first "
        f'(default: {" ".join(NETWORKS)})',
    )
    parser.add_argument(
        '--without',
        nargs='*',
        metavar='NETWORK',
        help='which of them to measure without LightNL, too (default: autonl-l, if it is among them)',
    )
    parser.add_argument('--runtimes', nargs='+', choices=RUNTIMES, help='(default: all; on cuda all but onnx)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=whole_number, default=2, help='of the CPU (default: 2)')
    parser.add_argument('--input-size', type=whole_number, default=224, metavar='PIXELS', help='(default: 224)')
    parser.add_argument('--batch', type=whole_number, help='images of a training step (default: 16, on cuda 128)')
    parser.add_argument('--rounds', type=whole_number, default=20, help='of inference (default: 20)')
    parser.add_argument('--training-rounds', type=whole_number, default=6, help='(default: 6)')
    parser.add_argument('--csv', type=path_argument, metavar='FILE', help='where the milliseconds of each round go')
    args = parser.parse_args(arguments)
    args.runtimes = args.runtimes or [name for name in RUNTIMES if args.device == 'cpu' or name != ONNX]
    args.without = [name for name in ['autonl-l'] if name in args.networks] if args.without is None else args.without
    args.batch = args.batch or {'cpu': 16, 'cuda': 128}[args.device]
    return args


def main() -> int:
    args = parse()
    warnings.filterwarnings('ignore')
    logging.getLogger('torch').setLevel(logging.ERROR)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache  # or what an earlier run compiled would be taken from there
        check_runtimes(args)
        if args.csv:
            check_writable(args.csv)
        networks, cost = make_networks(args)
        runs, seconds = prepare(networks, args)
        times = measure(runs, args)
    sizes = {name: sum(weights.numel() for weights in network.parameters()) for name, network in networks.items()}
    print(
        f'{args.input_size}×{args.input_size}, float32, on {args.device}, threads: {args.threads} '
        f'({clock(args.device)} clock), torch {torch.__version__}; {args.rounds} rounds of inference, '
        f'{args.training_rounds} of training; {time.perf_counter() - started:.0f} s in all'
    )
    print(report(times, seconds, cost, sizes, args))
    if args.csv:
        rows = [
            {'runtime': runtime, 'network': name, 'round': number, 'ms': ms}
            for (runtime, name), found in times.items()
            for number, ms in enumerate(found)
        ]
        write_whole(args.csv, pd.DataFrame(rows).to_csv(index=False).encode())
    return 0


if __name__ == '__main__':
    sys.exit(run_command('networks.py', main))
