"""``python -m benchmarks.ground_truth``: the table of an experiment's trainings, and what it shows."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from search_space import Skeleton, load_skeleton
from search_space.entry_point import Parser, path_argument
from search_space.entry_point import run as run_command

from .table import BUDGETS, FILE, RESULTS, GroundTruth, read_table, shown, write_table

NEAR_BEST = 0.01
"""Networks this far below the best are said to be at the ceiling."""
STEP = 0.1
"""Of the histogram of trainings."""
KNOWN = 2
"""Standard errors that the effect of a choice must exceed to be told from noise."""


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog='python -m benchmarks.ground_truth', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    collect = commands.add_parser('collect', help='write the table of an experiment of experiment.yaml, or add to it')
    collect.add_argument('experiment', help="NNI's id, the experiment's folder, or the URL of its web UI")
    collect.add_argument(
        '--out', type=path_argument, default=FILE, metavar='FILE', help=f'by default {FILE.name} beside it'
    )
    describe = commands.add_parser('describe', help='print spread, noise between seeds, and what each choice does')
    describe.add_argument('--table', type=Path, default=FILE, metavar='FILE', help="by default the package's")
    describe.add_argument('--budgets', type=float, nargs='+', default=BUDGETS, metavar='MACS')
    args = parser.parse_args(arguments)
    try:
        if args.command == 'collect':
            return _collect(args.experiment, args.out)
        print(description(GroundTruth(args.table), args.budgets))
        return 0
    except (ValueError, OSError) as error:
        print(f'python -m benchmarks.ground_truth: {error}', file=sys.stderr)
        return 2


def _collect(name: str, out: Path) -> int:
    from analysis.experiment import find_experiment

    experiment = find_experiment(name)
    arguments = (experiment.profile()['params'].get('tuner') or {}).get('classArgs') or {}
    trials = dict.fromkeys(event['trialJobId'] for event in experiment.trial_events())
    records = [record for record in map(_record, (experiment.trial_file(t, 'trial.json') for t in trials)) if record]
    if not records:
        raise ValueError(f'experiment {experiment.id}: no training of the ground truth has ended in it')
    recipes, rows = {}, {}
    for record in records:
        parameters, result = record['parameters'], record['result']
        skeleton = load_skeleton(parameters['skeleton'])
        recipe = {key: value for key, value in parameters.items() if key not in ('seed', *skeleton.choices())}
        recipes[json.dumps(recipe, sort_keys=True)] = recipe
        row = {key: parameters[key] for key in (*skeleton.choices(), 'seed')}
        rows[tuple(row.values())] = row | {
            'validation_accuracy': result['default'],
            **{key: result[key] for key in ('test_accuracy', 'macs', 'params', 'seconds')},
        }
    if len(recipes) > 1:
        raise ValueError(
            f'experiment {experiment.id}: its trainings are of {len(recipes)} recipes; one table holds one'
        )
    (recipe,) = recipes.values()
    recipe = {key: value for key, value in recipe.items() if key not in ('strategy', 'stage')}
    rows = _in_table(out, recipe) | rows
    write_table(out, recipe, list(rows.values()))
    wanted = arguments.get('seeds', 1) * sum(1 for _ in load_skeleton(recipe['skeleton']).networks())
    print(f'{out}: {len(rows)} of {wanted} trainings')
    if len(rows) < wanted:
        print(
            f'those that are missing: nnictl resume {experiment.id}, then collect again; or, from the table of the '
            f'package, nnictl create --config benchmarks/ground_truth/experiment.yaml',
            file=sys.stderr,
        )
        return 1
    return 0


def _in_table(file: Path, recipe: dict[str, Any]) -> dict[tuple, dict[str, Any]]:
    """The rows of a table that is there already, by network and seed."""
    if not file.exists():
        return {}
    known, frame = read_table(file)
    if known != recipe:
        raise ValueError(f'{file}: a table of another recipe is there: move it away, or name another file with --out')
    keys = [*load_skeleton(recipe['skeleton']).choices(), 'seed']
    rows = frame[[*keys, *RESULTS]].to_dict('records')
    return {tuple(row[key] for key in keys): row for row in rows}


def _record(text: str | None) -> dict[str, Any] | None:
    """A trial's parameters and result; None where it has none, or was no training of the ground truth."""
    try:
        record = json.loads(text or '')
        return record if record['parameters']['strategy'] == 'ground-truth' else None
    except (ValueError, KeyError, TypeError):
        return None


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
    return '\n'.join(lines)


def _histogram(accuracies: np.ndarray) -> str:
    steps, counts = np.unique((accuracies / STEP).astype(int), return_counts=True)
    return ', '.join(f'from {step * STEP:.0%}: {count}' for step, count in zip(steps, counts))


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
        there = [index for index in there if shown(truth.skeleton, truth.networks[index]).get(first) == made[first]]
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
        choices = shown(truth.skeleton, truth.networks[index])
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
    sys.exit(run_command('python -m benchmarks.ground_truth', main))
