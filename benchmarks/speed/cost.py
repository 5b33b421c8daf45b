"""``python benchmarks/speed/cost.py [SKELETON]``: the time of one cost evaluation, and of one differentiable one."""

from __future__ import annotations

import random
import sys
import timeit

import torch

from search_space import load_skeleton, macs, params
from search_space.entry_point import Parser
from search_space.entry_point import run as run_command


def milliseconds(function, runs: int) -> float:
    """The best of five averages over ``runs`` calls."""
    return min(timeit.repeat(function, number=runs, repeat=5)) / runs * 1e3


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument('skeleton', nargs='?', default='mobile', help='a shipped one, or a file (default: mobile)')
    torch.set_num_threads(1)
    skeleton = load_skeleton(parser.parse_args().skeleton)
    choices = skeleton.choices()
    sample = {name: random.choice(candidates) for name, candidates in choices.items()}
    alphas = {name: torch.randn(len(candidates), requires_grad=True) for name, candidates in choices.items()}
    weights = {name: alpha.softmax(0).detach().requires_grad_() for name, alpha in alphas.items()}
    cost, parameters = macs(skeleton), params(skeleton)

    def step() -> None:
        cost.expected(weights).log().backward()

    print(f'{skeleton.name}: {len(choices)} choices; milliseconds, one thread')
    print(f'  MACs of a sample               {milliseconds(lambda: cost(sample), 200):8.3f}')
    print(f'  parameters of a sample         {milliseconds(lambda: parameters(sample), 200):8.3f}')
    print(f'  expected MACs, forward         {milliseconds(lambda: cost.expected(weights), 50):8.3f}')
    print(f'  expected MACs, with gradient   {milliseconds(step, 50):8.3f}')
    print(f'  the tables, once per search    {milliseconds(lambda: macs(skeleton), 1):8.3f}')


if __name__ == '__main__':
    sys.exit(run_command('cost.py', main))
