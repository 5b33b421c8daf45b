"""How often a network with LightNL learns to use it: ``python benchmarks/quality/learning.py --csv learning.csv``.

On cued digits a training either learns to use LightNL and ends far above 80%, or it does not and stays at 50 to 60%.
Luck decides which, and so it decides comparisons. Here networks with LightNL on row 1 alone, of each ratio and stride
that the skeleton has, and with LightNL on every row, are trained from scratch from a number of seeds, as trials are.
A training has failed when its validation accuracy, at its end, is below 65%.

Recipes are those of ``experiment.yaml`` (``main-job``) and of ``benchmarks/ground_truth`` (``ground-truth``). Variants
change one thing of them:

    default           the recipe as it is
    scale from 0      the skeleton's lightnl_scale is 0: a fresh block is the identity
    fewer images      the main job's: a quarter as many, each four times as often
    one-cycle         the learning rate peaks at 30% of the training, at 0.005
    no clipping       the gradient may be of any norm
    before            all that the main job's recipe has changed, undone

Another variant is made by ``--set``:

    python benchmarks/quality/learning.py --csv learning.csv --recipes main-job --first-seed 100 --seeds 8
    python benchmarks/quality/learning.py --csv learning.csv --networks 1:0.125/2 --set weight_decay=0.1

Rows of the CSV are not computed again, so a run that was stopped goes on. Choose on some seeds, report on others.

Printed are failures, with the exact 95% interval of their rate (Clopper and Pearson, 1934), and the mean accuracy of
those that learn, with Student's 95% interval. Variants are compared with the first one over the same networks and
seeds: failures of one alone, with the exact two-sided p that both are as likely to (McNemar), and the difference in
accuracy where both learn.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from analysis import mean_interval  # noqa: E402
from benchmarks.kept_rows import digest, in_any_order, keep, keys, read_rows  # noqa: E402
from benchmarks.quality.search_quality import changed  # noqa: E402
from benchmarks.quiet import quiet  # noqa: E402
from search_space.entry_point import Parser, path_argument, run, whole_argument  # noqa: E402
from search_space.rules import whole  # noqa: E402
from search_space.skeleton import ABSENT, PRESENT, Sample, Skeleton, row_name  # noqa: E402
from search_space.skeleton_file import SKELETON_RULES, load_skeleton  # noqa: E402
from search_space.whole_file import check_writable  # noqa: E402
from trials.identity import skeleton_content  # noqa: E402

FAILED_BELOW = 0.65
"""Validation accuracy: between what the best network without LightNL gets and what the worst gets that uses it."""

MAIN_JOB, GROUND_TRUTH = 'main-job', 'ground-truth'

FEWER_IMAGES = {'dataset/canvases': 6000, 'epochs': 12, 'learning_rate_warmup': 0.5}
ONE_CYCLE = {'schedule': 'one-cycle', 'learning_rate': 0.005, 'learning_rate_warmup': 0}
NO_CLIPPING = {'gradient_clip': 0}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    'default': {MAIN_JOB: {}, GROUND_TRUTH: {}},
    'scale from 0': {MAIN_JOB: {'lightnl_scale': 0}, GROUND_TRUTH: {'lightnl_scale': 0}},
    'fewer images': {MAIN_JOB: FEWER_IMAGES},
    'one-cycle': {MAIN_JOB: ONE_CYCLE},
    'no clipping': {MAIN_JOB: NO_CLIPPING, GROUND_TRUTH: NO_CLIPPING},
    'before': {MAIN_JOB: {**FEWER_IMAGES, **ONE_CYCLE, **NO_CLIPPING, 'lightnl_scale': 0}},
}
"""Name to recipe to the keys that it changes; not there for a recipe that it would not change."""

RECIPES = {
    MAIN_JOB: (ROOT / 'experiment.yaml', 'retrain'),
    GROUND_TRUTH: (ROOT / 'benchmarks' / 'ground_truth' / 'recipe.yaml', 'recipe'),
}
"""Name to the file, and the key of the recipe in it, of an experiment's tuner or of the ground truth."""

EVERY_ROW = 'every row'
KEY = ['recipe', 'variant', 'settings', 'network', 'seed']


def recipe_of(name: str) -> dict[str, Any]:
    """The flat recipe, with the name of its skeleton and, as a key of its own, that skeleton's ``lightnl_scale``."""
    file, key = RECIPES[name]
    given = yaml.safe_load(file.read_text('utf-8'))
    given = given.get('tuner', {}).get('classArgs', given)
    return {
        'skeleton': given['skeleton'],
        'lightnl_scale': load_skeleton(given['skeleton']).lightnl_scale,
        **given[key],
    }


def networks(skeleton: Skeleton) -> dict[str, Sample]:
    """Name (``1:ratio/stride``) to a network with LightNL on row 1 alone, for each ratio and stride of that row; and
    one with it on every row that may have it. Whatever else is searched is at its first candidate."""
    choices = skeleton.choices()
    first = {label: ABSENT if ABSENT in values else values[0] for label, values in choices.items()}
    everywhere = {label: PRESENT if PRESENT in values else values[0] for label, values in choices.items()}
    row = row_name(0)
    found = {}
    for ratio, stride in itertools.product(*map(skeleton.rows[0].candidates, ('lightnl_ratio', 'lightnl_stride'))):
        made = {f'{row}/lightnl': PRESENT, f'{row}/lightnl_ratio': ratio, f'{row}/lightnl_stride': stride}
        found[f'1:{ratio:g}/{stride}'] = {label: made.get(label, candidate) for label, candidate in first.items()}
    return found | {EVERY_ROW: everywhere}


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        recipe, variant, network: their names.
        parameters: of the trial, but for its skeleton.
        skeleton: of the space that the network is of.
        seed: of the trial.
    """

    recipe: str
    variant: str
    network: str
    parameters: dict[str, Any]
    skeleton: Skeleton
    seed: int

    def identity(self) -> tuple:
        """In the order of :data:`KEY`."""
        settings = digest([self.parameters, skeleton_content(self.skeleton)])
        return self.recipe, self.variant, settings, self.network, self.seed

    @contextmanager
    def trial(self) -> Iterator[Any]:
        """Its parameters, as NNI would give them; within, their skeleton is in a file of its own.

        Raises:
            ValueError: they are not valid.
        """
        from trials.parameters import TrialParameters
        from trials.trained_network import skeleton_text

        given = {'strategy': 'none', 'stage': 'retrain', 'seed': self.seed}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / 'skeleton.yaml'
            file.write_text(skeleton_text(self.skeleton))
            yield TrialParameters.from_flat({**self.parameters, **given, 'skeleton': str(file)})

    def rows(self) -> list[dict[str, Any]]:
        """The keys with what was measured, in a list of one."""
        import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
        from trials.run import run_trial

        quiet()
        started = time.process_time()
        with self.trial() as trial:
            result, _ = run_trial(trial, lambda metrics: None)
        measured = {'validation_accuracy': result['default'], 'cpu_seconds': time.process_time() - started}
        return [dict(zip(KEY, self.identity())) | measured]


def failures(accuracy: pd.Series) -> str:
    """``n of N [low, high]``: failed trainings, and the exact interval of their rate."""
    from scipy.stats import binomtest

    failed = int((accuracy < FAILED_BELOW).sum())
    low, high = binomtest(failed, len(accuracy)).proportion_ci(method='exact')
    return f'{failed} of {len(accuracy)} [{low:.1%}, {high:.1%}]'


def line(name: str, accuracy: pd.Series, seconds: pd.Series) -> str:
    middle, low, high, _ = mean_interval(accuracy[accuracy >= FAILED_BELOW])
    learnt = f'{middle:.2%} [{low:.2%}, {high:.2%}]'.replace('nan%', '-')
    return f'  {name:16}{failures(accuracy):28}{learnt:28}{seconds.median():6.0f}'


def compared(first: pd.Series, other: pd.Series) -> str:
    """Failures and accuracy of ``other`` against ``first``, over the networks and seeds of both."""
    from scipy.stats import binomtest

    both = pd.concat([first, other], axis=1, keys=['first', 'other']).dropna()
    failed = both < FAILED_BELOW
    alone = int((failed['first'] & ~failed.other).sum()), int((failed.other & ~failed['first']).sum())
    p = binomtest(alone[1], sum(alone)).pvalue if sum(alone) else 1.0
    learnt = both[~failed.any(axis=1)]
    points = '{:+.2f} [{:+.2f}, {:+.2f}]'.format(*mean_interval(100 * (learnt.other - learnt['first'])))
    return (
        f'{alone[1]} failed that do not there and {alone[0]} the other way round, of {len(both)} (p = {p:.2g}); '
        f'accuracy {points.replace("+nan", "-")} points where both learn'
    )


def report(frame: pd.DataFrame) -> str:
    """The tables of all recipes, of the CSV's rows ``frame``."""
    lines = []
    for recipe, of_recipe in frame.groupby('recipe', sort=False):
        first = None
        for variant, of_variant in of_recipe.groupby('variant', sort=False):
            lines.append(f'{recipe}, {variant}')
            lines.append(f'  {"network":16}{"failed":28}{"accuracy of the others":28}{"CPU s":>6}')
            for name, one in of_variant.groupby('network', sort=False):
                lines.append(line(name, one.validation_accuracy, one.cpu_seconds))
            alone = of_variant[of_variant.network != EVERY_ROW]
            if alone.network.nunique() > 1:
                lines.append(line('row 1 alone', alone.validation_accuracy, alone.cpu_seconds))
            accuracy = of_variant.set_index(['network', 'seed']).validation_accuracy
            if first is None:
                first = variant, accuracy
            else:
                lines.append(f'  against {first[0]}: {compared(first[1], accuracy)}')
            lines.append('')
    return '\n'.join(lines[:-1])


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """A seed of all networks and variants after the other, so that a run that is stopped has as many of each.

    Raises:
        ValueError: a network is not one of those, or a setting is not valid.
    """
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = []
    of_recipe = {name: networks(load_skeleton(recipe_of(name)['skeleton'])) for name in args.recipes}
    known = list(dict.fromkeys(itertools.chain.from_iterable(of_recipe.values())))
    for network in args.networks or []:
        if network not in known:
            raise ValueError(f'--networks: there is no {network!r}, but {", ".join(known)}')
    for name, variant in itertools.product(args.recipes, args.variants):
        if name not in VARIANTS[variant]:
            continue
        settings, _ = changed({**recipe_of(name), **VARIANTS[variant][name]}, {}, args.set)
        skeleton = load_skeleton(settings.pop('skeleton'))
        scale = settings.pop('lightnl_scale')
        SKELETON_RULES['lightnl_scale'].check('--set lightnl_scale', scale)
        skeleton = dataclasses.replace(skeleton, lightnl_scale=scale)
        for network, sample in of_recipe[name].items():
            if network in (args.networks or known):
                called = ' '.join([variant, *args.set])
                jobs += [Job(name, called, network, settings | sample, skeleton, seed) for seed in seeds]
                with jobs[-1].trial():
                    pass  # which says what is wrong with it
    return sorted({job.identity(): job for job in jobs}.values(), key=lambda job: job.seed)


def parser() -> Parser:
    parser = Parser(prog='learning.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = whole_argument(whole(1, 10_000))
    parser.add_argument('--recipes', nargs='+', choices=list(RECIPES), default=list(RECIPES), metavar='NAME')
    parser.add_argument('--variants', nargs='+', choices=list(VARIANTS), default=['default'], metavar='NAME')
    parser.add_argument('--networks', nargs='+', metavar='NAME', help=f'such as 1:0.125/2 or "{EVERY_ROW}"')
    parser.add_argument('--seeds', type=count, default=16, metavar='N', help='of each network (default: 16)')
    parser.add_argument('--first-seed', type=whole_argument(whole(0, 2**63 - 1)), default=0, metavar='N')
    parser.add_argument('--set', nargs='*', default=[], metavar='NAME=VALUE', help='of the recipe, instead of its own')
    parser.add_argument('--processes', type=count, default=os.cpu_count(), help='at once (default: one per CPU)')
    parser.add_argument(
        '--csv', type=path_argument, required=True, metavar='FILE', help='rows there are not computed again'
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    return run('learning.py', lambda: measure(args))


def measure(args: argparse.Namespace) -> None:
    """Train what the CSV lacks, each row being there as soon as it is known; then print the tables from it."""
    check_writable(args.csv)
    jobs = jobs_of(args)
    place = {job.identity(): place for place, job in enumerate(jobs)}
    frame = read_rows(args.csv, KEY)
    done = set(keys(frame, KEY))
    left = [job for job in jobs if job.identity() not in done]
    frame = keep(frame, args.csv, in_any_order(Job.rows, left, args.processes), 'trainings', len(left))
    frame['place'] = [place.get(key) for key in keys(frame, KEY)]
    print(report(frame.dropna(subset='place').sort_values('place')))


if __name__ == '__main__':
    sys.exit(main())
