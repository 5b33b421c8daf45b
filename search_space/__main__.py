"""``python -m search_space choices``: a space's choices in NNI's search space format."""

from __future__ import annotations

import argparse
import json
import sys

from .skeleton import load_skeleton, nni_search_space


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m search_space', description='Look at a model space.')
    commands = parser.add_subparsers(dest='command', required=True)
    choices = commands.add_parser(
        'choices',
        help="print a space's choices in NNI's search space format",
        description="Print a space's choices in NNI's search space format, for searchSpaceFile.",
    )
    choices.add_argument('skeleton', help="a shipped skeleton's name, or the path of a YAML file like it")
    args = parser.parse_args(arguments)
    try:
        skeleton = load_skeleton(args.skeleton)
    except ValueError as error:
        print(f'python -m search_space: {error}', file=sys.stderr)
        return 2
    print(json.dumps(nni_search_space(skeleton.choices()), indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
