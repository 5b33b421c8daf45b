"""``python -m search_space``: look at networks and spaces, and at what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from .cost.macs import Cost
from .entry_point import Parser, path_argument, run, whole_argument
from .lookup import look_up, look_up_network
from .rules import MOST_RUNS, MOST_THREADS, MOST_TIMED, whole
from .show.compare_nl import compare_nl, comparison_text
from .show.describe import describe_network, describe_space, network_text, space_text
from .show.draw import draw
from .skeleton import Skeleton, nni_search_space
from .skeleton_file import LARGEST_INPUT, load_skeleton
from .whole_file import check_writable

NETWORK = 'a shipped network, or the path of a YAML file with the keys skeleton and rows'
SKELETON = 'a shipped skeleton, or the path of a YAML file like it'


_pixels = whole_argument(whole(1, LARGEST_INPUT, of=' of pixels'))
_runs = whole_argument(whole(1, MOST_RUNS))
_networks = whole_argument(whole(2, 10_000))
_batch = whole_argument(whole(1, MOST_TIMED))
_threads = whole_argument(whole(1, MOST_THREADS))
_seed = whole_argument(whole(0, 2**63 - 1))


def _add_input_size(command: argparse.ArgumentParser, default: str = "the skeleton's own") -> None:
    command.add_argument(
        '--input-size', type=_pixels, metavar='PIXELS', help=f'side of the square input; by default {default}'
    )


def parser() -> argparse.ArgumentParser:
    top = Parser(prog='python -m search_space', description='Look at networks and spaces.')
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def add(name: str, run, summary: str, details: str = '') -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=f'{summary[0].upper()}{summary[1:]}. {details}'.strip()
        )
        command.set_defaults(run=run)
        return command

    describe = add(
        'describe',
        _describe,
        'print the rows, shapes, MACs and parameters of a network, or the choices and the size of a space',
    )
    describe.add_argument('name', help=f'{NETWORK}; or {SKELETON}')
    describe.add_argument('--space', action='store_true', help='describe the whole space that the network is of')
    _add_input_size(describe)
    describe.add_argument(
        '--latency', metavar='FILE', help='say the milliseconds too, by a table that the command latency wrote'
    )
    describe.add_argument(
        '--json',
        action='store_true',
        help='print JSON: macs and params (and latency_ms) are numbers for a network, min and max of a space',
    )

    compare = add(
        'compare-nl',
        _compare_nl,
        'print what a non-local block after each of the 17 bottlenecks of MobileNetV2 costs, conventional and LightNL',
    )
    _add_input_size(compare, '224')
    compare.add_argument('--json', action='store_true', help='print JSON: a list with block, macs and times_less')

    picture = add(
        'draw',
        _draw,
        'draw a network: its rows by resolution, kernels, expansions, squeeze-excite, and where LightNL sits',
        'The colour of a block is its kernel, its height the expansion; a disc is LightNL, a ring one with a stride.',
    )
    picture.add_argument('name', help=NETWORK)
    picture.add_argument(
        '--out',
        type=path_argument,
        required=True,
        metavar='FILE',
        help='where the picture goes: a .png or a .svg file',
    )
    picture.add_argument('--title', help='what stands over it; by default the name of the network or of its file')
    _add_input_size(picture)

    latency = add(
        'latency',
        _latency,
        'time every row variant of a space on the device at hand, and show how well their sum predicts networks',
        'One thread is timed by its own busy time, which other programs do not add to; several by the clock on the '
        'wall.',
    )
    latency.add_argument('skeleton', help=SKELETON)
    latency.add_argument(
        '--out', type=path_argument, metavar='FILE', help='where the table goes, as JSON, for describe --latency'
    )
    _add_input_size(latency)
    latency.add_argument('--runs', type=_runs, default=20, help='timed runs of each, of which the median counts (20)')
    latency.add_argument('--batch', type=_batch, default=1, help='images at a time (1)')
    latency.add_argument('--threads', type=_threads, default=1, help="PyTorch's threads on the CPU (1)")
    latency.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='what is timed (cpu)')
    latency.add_argument(
        '--networks', type=_networks, default=30, help='random networks to test the prediction on, at least 2 (30)'
    )
    latency.add_argument('--seed', type=_seed, default=0, help='of the random networks (0)')

    choices = add('choices', _choices, "print a space's choices in NNI's search space format", 'For searchSpaceFile.')
    choices.add_argument('skeleton', help=SKELETON)
    return top


def _describe(args) -> str:
    skeleton, sample = look_up(args.name)
    latency = _load_latency(args.latency, skeleton, args.input_size) if args.latency else None
    if sample is None or args.space:
        space = describe_space(skeleton, args.input_size, latency)
        return json.dumps(space, indent=2) if args.json else space_text(space)
    network = describe_network(skeleton, sample, args.input_size, latency)
    return json.dumps(network, indent=2) if args.json else network_text(network)


def _load_latency(path: str, skeleton: Skeleton, input_size: int | None) -> Cost:
    from .cost.latency import LatencyTable

    table = LatencyTable.load(path)
    measured = table.conditions['input_size']
    if measured != (input_size or skeleton.input_size):
        raise ValueError(f'{path} was measured at {measured}×{measured}: give --input-size {measured} with it')
    return table.cost(skeleton)


def _compare_nl(args) -> str:
    comparison = compare_nl(args.input_size)
    return json.dumps(comparison, indent=2) if args.json else comparison_text(comparison)


def _draw(args) -> str:
    check_writable(args.out)
    skeleton, sample = look_up_network(args.name)
    draw(skeleton, sample, args.title or Path(args.name).stem, args.out, args.input_size)
    return f'wrote {args.out}'


def _latency(args) -> str:
    import torch

    from .cost.latency import latency_text, measure, predict
    from .progress import progress

    skeleton = load_skeleton(args.skeleton)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('argument --device: PyTorch sees no CUDA device here; use cpu')
    if args.out:
        check_writable(args.out)  # before the minute that the measuring takes
    torch.set_num_threads(args.threads)
    table = measure(
        skeleton,
        args.input_size,
        batch=args.batch,
        runs=args.runs,
        device=args.device,
        progress=partial(progress, what='row variants'),
    )
    if args.out:
        table.save(args.out)
    prediction = predict(
        skeleton,
        table,
        args.networks,
        seed=args.seed,
        device=args.device,
        progress=partial(progress, what='networks'),
    )
    text = latency_text(table, table.cost(skeleton), prediction)
    return f'{text}\nwrote {args.out}' if args.out else text


def _choices(args) -> str:
    return json.dumps(nni_search_space(load_skeleton(args.skeleton).choices()), indent=2)


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    return run(f'python -m search_space {args.command}', lambda: print(args.run(args)))


if __name__ == '__main__':
    sys.exit(main())
