"""``python -m search_space``: look at networks and spaces, and at what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .compare_nl import compare_nl, comparison_text
from .describe import describe_network, describe_space, network_text, space_text
from .draw import draw
from .lookup import look_up, look_up_network
from .skeleton import load_skeleton, nni_search_space

NETWORK = 'a shipped network, or the path of a YAML file with the keys skeleton and sample'


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how it is used, ``--help`` says."""

    def error(self, message: str):
        self.exit(2, f'{self.prog}: {message}\n')


def _input_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of pixels from 1 to 8192')
    return int(text)


def _add_input_size(command: argparse.ArgumentParser, default: str = "the skeleton's own") -> None:
    command.add_argument(
        '--input-size', type=_input_size, metavar='PIXELS', help=f'side of the square input; by default {default}'
    )


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog='python -m search_space', description='Look at networks and spaces.')
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
    describe.add_argument('name', help=f'{NETWORK}; or a shipped skeleton, or the path of a YAML file like it')
    describe.add_argument('--space', action='store_true', help='describe the whole space that the network is of')
    _add_input_size(describe)
    describe.add_argument(
        '--json',
        action='store_true',
        help='print JSON: macs and params are numbers for a network, and have the keys min and max for a space',
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
    picture.add_argument('--out', required=True, metavar='FILE', help='where the picture goes: a .png or a .svg file')
    picture.add_argument('--title', help='what stands over it; by default the name of the network or of its file')
    _add_input_size(picture)

    choices = add('choices', _choices, "print a space's choices in NNI's search space format", 'For searchSpaceFile.')
    choices.add_argument('skeleton', help="a shipped skeleton's name, or the path of a YAML file like it")
    return top


def _describe(args) -> str:
    skeleton, sample = look_up(args.name)
    if sample is None or args.space:
        space = describe_space(skeleton, args.input_size)
        return json.dumps(space, indent=2) if args.json else space_text(space)
    network = describe_network(skeleton, sample, args.input_size)
    return json.dumps(network, indent=2) if args.json else network_text(network)


def _compare_nl(args) -> str:
    comparison = compare_nl(args.input_size)
    return json.dumps(comparison, indent=2) if args.json else comparison_text(comparison)


def _draw(args) -> str:
    skeleton, sample = look_up_network(args.name)
    draw(skeleton, sample, args.title or Path(args.name).stem, args.out, args.input_size)
    return f'wrote {args.out}'


def _choices(args) -> str:
    return json.dumps(nni_search_space(load_skeleton(args.skeleton).choices()), indent=2)


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        print(args.run(args))
    except (ValueError, OSError) as error:
        print(f'python -m search_space {args.command}: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
