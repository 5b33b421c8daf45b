"""``python -m benchmarks.ground_truth``: train every network of a small space, and say what the table shows.

python -m benchmarks.ground_truth train       trains what the table lacks; stop it when you like, and start it again
python -m benchmarks.ground_truth describe    spread, noise between seeds, what each choice does, and the goals
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, kendalltau

from benchmarks.goals import met
from benchmarks.whole_number import whole_macs
from search_space import Skeleton
from search_space.entry_point import Parser, path_argument, run, whole_argument
from search_space.rules import whole

from .table import BEST, FILE, RECIPE, GroundTruth

NEAR_BEST = 0.01
"""Networks this far below the best are said to be at the ceiling."""
STEP = 0.1
"""Of the histogram of trainings."""
KNOWN = 2
"""Standard errors that the effect of a choice must exceed to be told from noise."""

LEAST_SEEDS, LEAST_TAU = 3, 0.7
"""Of a table that is good enough to rank strategies on: seeds, and Kendall's tau between two halves of them."""
FAILED = 0.1
"""A training this far below another one of its network has failed."""


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog='python -m benchmarks.ground_truth',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    train = commands.add_parser('train', help='train what the table lacks')
    train.add_argument('--table', type=path_argument, default=FILE, metavar='FILE', help="by default the package's")
    count = whole_argument(whole(1, 10_000))
    train.add_argument('--recipe', type=path_argument, default=RECIPE, metavar='FILE', help='by default recipe.yaml')
    train.add_argument('--seeds', type=count, metavar='N', help='of each network (default: as the recipe says)')
    train.add_argument('--processes', type=count, default=os.cpu_count(), help='at once (default: one per CPU)')
    describe = commands.add_parser('describe', help='print spread, noise between seeds, and what each choice does')
    describe.add_argument('--table', type=Path, default=FILE, metavar='FILE', help="by default the package's")
    describe.add_argument(
        '--budgets', type=whole_macs, nargs='+', metavar='MACS', help="(default: the table's three, see GroundTruth)"
    )
    args = parser.parse_args(arguments)
    return run(parser.prog, lambda: _train(args) if args.command == 'train' else _describe(args))


def _train(args: argparse.Namespace) -> None:
    from .train import train

    print(f'{train(args.table, args.seeds, args.processes, args.recipe)} trainings; {args.table} has them all')


def _describe(args: argparse.Namespace) -> None:
    truth = GroundTruth(args.table)
    print(description(truth, args.budgets or truth.budgets))


def description(truth: GroundTruth, budgets) -> str:
    """Spread, noise between seeds, what each choice does; under each budget the best, and what one seed would pick."""
    accuracy, recipe = truth.accuracy, {k: v for k, v in truth.recipe.items() if k != 'skeleton'}
    quantiles = np.quantile(accuracy, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    lines = [
        f'{len(truth.networks)} networks of {truth.skeleton.name}, each from {len(truth.seeds)} seeds, '
        f'{truth.seconds.sum() / 3600:.1f} hours of training ({truth.seconds.mean():.1f} s each)',
        f'recipe: {", ".join(f"{key} {value}" for key, value in recipe.items())}',
        'test accuracy, mean over seeds: '
        + ', '.join(f'{n} {q:.2%}' for n, q in zip(('least', '5%', '25%', 'median', '75%', '95%', 'best'), quantiles)),
        f'within {NEAR_BEST:.0%} of the best: {(accuracy >= accuracy.max() - NEAR_BEST).mean():.1%} of the networks',
        f'trainings by test accuracy, in steps of {STEP:.0%}: {_histogram(truth.test)}',
        *_noise(truth),
        *_effects(truth),
    ]
    for budget in budgets:
        within = np.flatnonzero(truth.within(budget))
        best = within[accuracy[within].argmax()]
        lines.append(
            f'best of the {len(within)} networks within {budget:,.0f} MACs: {accuracy[best]:.2%}, '
            f'{truth.macs[best]:,} MACs: {written(truth.skeleton, truth.networks[best])}'
        )
        picks = [within[truth.validation[within, seed].argmax()] for seed in range(len(truth.seeds))]
        lines.append(
            '  the one of the highest validation accuracy from one seed, by seed: '
            + ', '.join(f'regret {truth.regret(p, budget):.2%}, {truth.top(p, budget):.1%} are better' for p in picks)
        )
        if len(truth.seeds) > 1:
            lines.append(_test_luck(truth, within))
        lines += _effects_within(truth, within)
    return '\n'.join([*lines, *goals(truth)])


def _histogram(accuracies: np.ndarray) -> str:
    steps, counts = np.unique((accuracies / STEP).astype(int), return_counts=True)
    return ', '.join(f'from {step * STEP:.0%}: {count}' for step, count in zip(steps, counts))


def goals(truth: GroundTruth) -> list[str]:
    """What makes a table good enough to rank strategies on, and whether this one is."""
    best = truth.best()
    deviation, error = float(truth.accuracy[best].std(ddof=1)), truth.standard_error(best)
    failed = truth.test < truth.test.max(1, keepdims=True) - FAILED
    on_row_1 = np.array([1 in truth.skeleton.lightnl_positions(sample) for sample in truth.networks])
    of_row_1 = failed[on_row_1]
    low, high = binomtest(int(of_row_1.sum()), of_row_1.size).proportion_ci(method='exact') if of_row_1.size else (0, 1)
    taus = taus_of_halves(truth)
    tau = float(np.mean(taus)) if taus else math.nan
    effects = _effects_of(truth, truth.skeleton.choices(), range(len(truth.networks)))
    known = [label for label, effect in effects.items() if effect.apart > KNOWN * effect.standard_error]
    return [
        f'goal: at least {LEAST_SEEDS} seeds: {len(truth.seeds)}; {met(len(truth.seeds) >= LEAST_SEEDS)}',
        f"goal: Kendall's tau between two halves of the seeds at least {LEAST_TAU}: {tau:.3f}, the mean of "
        f'{", ".join(f"{each:.3f}" for each in taus)}; {met(tau >= LEAST_TAU)}',
        f'goal: no training fails, by being {FAILED:.0%} below another one of its network: {failed.sum()} of '
        f'{failed.size}; {met(not failed.any())}',
        f'  with LightNL on row 1 {of_row_1.sum()} of {of_row_1.size} [{low:.1%}, {high:.1%}]; the lowest test '
        f'accuracy there is {truth.test[on_row_1].min(initial=1):.2%}',
        f'goal: standard deviation of the best {BEST:.0%} of the networks above the standard error of their means: '
        f'{deviation:.2%}, {error:.2%}; {met(deviation > error)}',
        f'goal: more than one choice is told from noise: {", ".join(known) or "none"}; {met(len(known) > 1)}',
    ]


def taus_of_halves(truth: GroundTruth) -> list[float]:
    """Kendall's tau of the mean accuracies from two disjoint halves of the seeds, for each way to halve them.

    Of an odd number of seeds one half has one more.
    """
    seeds = range(len(truth.seeds))
    halves = {
        frozenset({half, tuple(seed for seed in seeds if seed not in half)})
        for half in itertools.combinations(seeds, len(seeds) // 2)
        if half
    }
    means = [[truth.test[:, half].mean(1) for half in pair] for pair in sorted(halves, key=sorted)]
    return [float(kendalltau(*pair).statistic) for pair in means]


def _test_luck(truth: GroundTruth, within: np.ndarray) -> str:
    """What the best by the test accuracy of one seed is by that of the others: how well the table
    knows its own best."""
    places = []
    for seed in range(len(truth.seeds)):
        others = np.delete(truth.test[within], seed, axis=1).mean(1)
        pick = truth.test[within, seed].argmax()
        better = (others > others[pick]).mean()
        places.append(f'{others.max() - others[pick]:.2%} below the best, {better:.1%} are better')
    return '  the one of the highest test accuracy from one seed, by that of the others: ' + ', '.join(places)


def _noise(truth: GroundTruth) -> list[str]:
    tau = kendalltau(truth.validation.mean(1), truth.accuracy).statistic
    lines = [f"Kendall's tau of validation and test accuracy, means over seeds: {tau:.3f}"]
    if len(truth.seeds) > 1:
        upper = truth.accuracy >= np.quantile(truth.accuracy, 0.25)
        for what, of in (('all networks', np.full_like(upper, True)), ('the upper three quarters of them', upper)):
            test = truth.test[of]
            noise, between = np.sqrt(test.var(1, ddof=1).mean()), kendalltau(test[:, 0], test[:, 1]).statistic
            lines.append(
                f'noise between seeds, {what}: standard deviation {noise:.2%} of a training, '
                f"{noise / len(truth.seeds) ** 0.5:.2%} of a mean over seeds, where the means' own is "
                f"{test.mean(1).std(ddof=1):.2%}; Kendall's tau of the first two seeds {between:.3f}"
            )
    return lines


def _effects(truth: GroundTruth) -> list[str]:
    lines = ['mean accuracy and MACs where a choice shows; ±: the standard error by noise alone']
    for made, networks, effects in _effects_by_strength(truth, range(len(truth.networks))):
        of = f'the {len(networks)} networks with {_list(made)}' if made else 'all networks'
        lines += [f'  of {of}:', *(f'    {label}: {effect}' for label, effect in effects.items())]
    return lines


def _effects_within(truth: GroundTruth, within: Iterable[int]) -> list[str]:
    """In short, a line where :func:`_effects` has a paragraph."""
    lines = ['  mean accuracy of these, best candidate and how far the worst is below it, ± as above']
    for made, networks, effects in _effects_by_strength(truth, within):
        of = f'the {len(networks)} with {_list(made)}' if made else 'all'
        apart = ', '.join(f'{k} {e.best} {e.apart:.2%} ± {e.standard_error:.2%}' for k, e in effects.items())
        lines.append(f'    of {of}: {apart}')
    return lines


def _list(made: dict[str, Any]) -> str:
    return ', '.join(f'{label} {candidate}' for label, candidate in made.items())


def _effects_by_strength(
    truth: GroundTruth, networks: Iterable[int]
) -> Iterator[tuple[dict[str, Any], list[int], dict[str, _Effect]]]:
    """What each choice does: over all of ``networks``, then over those that made the choice which does most as it is
    best, and so on while the strongest of those left is beyond the noise.

    Yields:
        The choices that are made, the networks that made them, and the effect of each of the other choices.
    """
    labels, there, made = list(truth.skeleton.choices()), list(networks), {}
    while effects := _effects_of(truth, labels, there):
        yield dict(made), there, effects
        first = max(effects, key=lambda label: effects[label].apart)
        if not effects[first].apart > KNOWN * effects[first].standard_error:
            break
        made[first] = effects[first].best
        there = [index for index in there if truth.shown[index].get(first) == made[first]]
        labels.remove(first)


@dataclass
class _Effect:
    """Of one choice: candidate to mean accuracy and to mean MACs, and the standard error that training noise gives a
    difference of accuracies."""

    means: dict[Any, float]
    macs: dict[Any, float]
    standard_error: float

    @property
    def best(self):
        return max(self.means, key=self.means.get)

    @property
    def apart(self) -> float:
        return max(self.means.values()) - min(self.means.values())

    def __str__(self) -> str:
        means = ', '.join(
            f'{candidate} {mean:.2%} at {self.macs[candidate]:,.0f} MACs' for candidate, mean in self.means.items()
        )
        return f'{means}; apart by {self.apart:.2%} ± {self.standard_error:.2%}'


def _effects_of(truth: GroundTruth, labels: Iterable[str], networks: Iterable[int]) -> dict[str, _Effect]:
    """Of those of ``labels`` that have several candidates among ``networks``."""
    effects = {label: _effect(truth, label, networks) for label in labels}
    return {label: effect for label, effect in effects.items() if len(effect.means) > 1}


def _effect(truth: GroundTruth, label: str, networks: Iterable[int]) -> _Effect:
    """The effect of a choice over those of ``networks`` that show it."""
    of: dict[Any, list[int]] = {}
    for index in networks:
        choices = truth.shown[index]
        if label in choices:
            of.setdefault(choices[label], []).append(index)
    means = {candidate: float(truth.accuracy[indices].mean()) for candidate, indices in of.items()}
    cost = {candidate: float(truth.macs[indices].mean()) for candidate, indices in of.items()}
    effect = _Effect(means, cost, math.nan)
    if len(truth.seeds) > 1 and len(means) > 1:
        variance = truth.test[list(itertools.chain(*of.values()))].var(1, ddof=1).mean() / len(truth.seeds)
        ends = of[effect.best], of[min(means, key=means.get)]
        effect.standard_error = float(np.sqrt(variance * sum(1 / len(indices) for indices in ends)))
    return effect


def written(skeleton: Skeleton, sample: dict[str, Any]) -> str:
    """A network in a line: where its LightNL is, then the other choices."""
    positions = skeleton.lightnl_positions(sample)
    others = [f'{k} {v}' for k, v in sample.items() if not k.rpartition('/')[2].startswith('lightnl')]
    lightnl = ', '.join(f'{row}: {ratio:g}/{stride}' for row, (ratio, stride) in positions.items())
    return '; '.join([f'LightNL {lightnl}' if lightnl else 'no LightNL', *others])


if __name__ == '__main__':
    sys.exit(main())
