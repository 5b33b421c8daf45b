"""How good the networks are that strategies pick, on a ground truth: ``python benchmarks/quality/search_quality.py``.

Every network of the space is known (``benchmarks/ground_truth``), so a pick has a regret (the true accuracy of the best
network within the MACs budget, minus its own) and a rank. The true accuracy is that on test data, the mean over seeds;
strategies never see it. All may spend the same compute: a search of AutoNL's and the training of what it found.

- ``autonl`` searches for real, once for all budgets (a front); its pick for a budget is the front's.
- ``autonl-evolved``: NNI's evolution picks from AutoNL's supernet, in place of AutoNL's own selection.
- ``darts`` and ``gumbel-darts``, NNI's, search for real on the same space, with the same recipe and in as many passes
  over the data. They know no budget: the pick is the most probable of the networks within it.
- ``random-one-shot``, NNI's, trains its supernet in as many passes; NNI's evolution then picks under each budget what
  has the highest accuracy in the supernet, on held-out data. These forward passes are not counted, nor are AutoNL's.
- ``random``, ``evolution`` and ``tpe``, NNI's, train networks from scratch, which the table answers: validation
  accuracy of one training, its seed drawn. The pick is the best by it. They go on to the end of the table, to tell when
  they get within 1% of the best, and when as far as AutoNL.

Kendall's tau is that of supernet and true accuracy over networks drawn from the space, the supernet's measured on
held-out data with the batches' own BN statistics.

    python benchmarks/quality/search_quality.py --csv quality.csv --plot quality.svg    # rows of the CSV are kept
    python benchmarks/quality/search_quality.py --csv benchmarks/results/search_quality.csv    # prints what is shipped
    python benchmarks/quality/search_quality.py --strategies random evolution tpe       # the table alone: minutes
    python benchmarks/quality/search_quality.py --set epochs=12 autonl.margin=0.2 --first-seed 1000  # tuning
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import yaml
from scipy.stats import kendalltau

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.goals import met  # noqa: E402
from benchmarks.ground_truth.table import FILE, GroundTruth  # noqa: E402
from benchmarks.kept_rows import in_any_order, keep, keys, read_rows  # noqa: E402
from benchmarks.whole_number import whole_macs, whole_number  # noqa: E402
from search_space.entry_point import Parser, path_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.skeleton import closest  # noqa: E402
from search_space.whole_file import check_writable  # noqa: E402
from strategies.experiment.arguments import HELD_OUT  # noqa: E402

EVOLUTION = {'population_size': 8, 'sample_size': 4, 'mutation_prob': 0.2}  # NNI's own are for thousands of networks
STRATEGIES: dict[str, dict[str, Any]] = {
    'autonl': {'class': 'strategies.AutoNL', 'cost_weight': 1.0, 'warmup_epochs': 4, 'drawn_share': 1.0},
    'darts': {'class': 'nni.nas.strategy.DARTS'},
    'gumbel-darts': {'class': 'nni.nas.strategy.GumbelDARTS'},
    'random-one-shot': {'class': 'nni.nas.strategy.RandomOneShot'},
    'random': {'class': 'nni.nas.strategy.Random'},
    'evolution': {'class': 'nni.nas.strategy.RegularizedEvolution', **EVOLUTION},
    'tpe': {'class': 'nni.nas.strategy.TPE', 'optimize_mode': 'maximize'},
}
EVOLVED = 'autonl-evolved'
"""The strategy that shares AutoNL's search."""
PICKED_BY_EVOLUTION = (EVOLVED, 'random-one-shot')
NAMES = ['autonl', EVOLVED, *[name for name in STRATEGIES if name != 'autonl']]
KEY = ['strategy', 'seed', 'settings']
MULTI_TRIAL = ('random', 'evolution', 'tpe')
SEARCH_EPOCHS = 4
"""Of AutoNL's search, all of them warm-up: of six settings the cheapest whose picks were no worse, on the seeds 1000 to
1003 (docs/results/search-quality.md). The others' epochs follow from the passes."""

SUPERNET_NETWORKS = 100
"""Networks that evolution measures in RandomOneShot's supernet, for each budget."""

NEAR_BEST = 0.01
LOST = 0.1
"""Regret of a pick that has no LightNL where it belongs, or is seldom trained to use it: noise alone is not as much."""

PLACES = 3
"""That are said of the picks of a strategy."""
LEAST_TAU = 0.6
"""Kendall's tau of supernet and table, wanted of AutoNL."""

NEVER = math.inf


@dataclass
class Settings:
    """What the rows of a run depend on, but for strategy and seed.

    Attributes:
        table: file of the ground truth.
        digest: of its content.
        recipe: of the searches: the table's, with another number of epochs.
        strategies: name to class and arguments.
        budgets: MACs.
        tau_networks: that Kendall's tau is over.
    """

    table: str
    digest: str
    recipe: dict[str, Any]
    strategies: dict[str, dict[str, Any]]
    budgets: list[float]
    tau_networks: int

    def passes(self) -> float:
        """Over the data, of every search: AutoNL's."""
        from strategies.experiment.one_shot_trial import search_passes

        passes = search_passes(SimpleNamespace(**self.strategies['autonl']), self.recipe['epochs'])
        return int(passes) if passes.is_integer() else passes

    def search_epochs(self) -> float:
        """Compute of a search: epochs of the training part."""
        return self.passes() * (1 - self.recipe.get('held_out', HELD_OUT))

    def of(self, strategy: str) -> str:
        """What a strategy's rows depend on; rows of other settings are not its."""
        search = searched_by(strategy)
        # The others' epochs follow from the passes.
        recipe = {key: value for key, value in self.recipe.items() if search == 'autonl' or key != 'epochs'}
        own = {'table': self.digest, 'recipe': recipe, 'budgets': self.budgets, 'passes': self.passes()}
        own |= {'strategy': self.strategies[search], 'tau_networks': self.tau_networks}
        if strategy in PICKED_BY_EVOLUTION:
            own |= {'evolution': self.strategies['evolution'], 'supernet_networks': SUPERNET_NETWORKS}
        return json.dumps(own, sort_keys=True)


def searched_by(name: str) -> str:
    """The strategy whose search gives the picks of ``name``."""
    return 'autonl' if name == EVOLVED else name


def one_shot_rows(truth: GroundTruth, settings: Settings, name: str, seed: int) -> list[dict]:
    """Search for real: a row per budget; of AutoNL's search, those of :data:`EVOLVED` too."""
    from benchmarks.quality.one_shot_search import passes, search
    from strategies.experiment.strategy_class import make_strategy

    arguments = dict(settings.strategies[name])
    path = arguments.pop('class')
    if name == 'autonl':
        arguments['target_macs'] = settings.budgets
    epochs = settings.recipe['epochs']
    if name != 'autonl':
        epochs = max(1, round(settings.passes() / passes(make_strategy(path, arguments), 1)))
    parameters = {**settings.recipe, 'epochs': epochs, 'seed': seed, 'class': path}
    found = search({**parameters, **{f'class/{key}': value for key, value in arguments.items()}})
    known: dict[int, float] = {}

    def supernet_accuracy(network: int) -> float:
        if network not in known:
            known[network] = found.accuracy(truth.networks[network])
        return known[network]

    def evolved_picks() -> list[int]:
        return [evolved(truth, settings, supernet_accuracy, seed, budget) for budget in settings.budgets]

    if name == 'autonl':
        picks = {name: [truth.index(sample) for sample in found.module.selected], EVOLVED: evolved_picks()}
    elif name == 'random-one-shot':
        picks = {name: evolved_picks()}
    else:
        picks = {name: [most_probable(truth, found.module.export_probs(), budget) for budget in settings.budgets]}
    drawn = np.random.default_rng(seed).permutation(len(truth.networks))[: settings.tau_networks]
    tau = kendalltau([supernet_accuracy(n) for n in drawn], truth.accuracy[drawn]).statistic
    spent = found.epochs + truth.recipe['epochs']
    return [
        row(truth, settings, of, seed, budget, pick, spent, [(spent, truth.regret(pick, budget))])
        | {'tau': float(tau), 'cpu_seconds': found.cpu_seconds}
        for of, of_budgets in picks.items()
        for budget, pick in zip(settings.budgets, of_budgets, strict=True)
    ]


def row(truth, settings, name, seed, budget, pick, spent, regrets) -> dict:
    """A row: the pick at equal compute, and the regret of the pick so far, from each epoch on at which it changes."""
    return {
        'strategy': name,
        'seed': seed,
        'max_macs': float(budget),
        'regret': truth.regret(pick, budget),
        'top': truth.top(pick, budget),
        'macs': int(truth.macs[pick]),
        'lightnl': json.dumps(truth.skeleton.lightnl_positions(truth.networks[pick])),
        'epochs': float(spent),
        'regrets': json.dumps(regrets),
        'tau': math.nan,
        'cpu_seconds': math.nan,
        'settings': settings.of(name),
    }


def most_probable(truth: GroundTruth, probabilities: dict[str, dict], budget: float) -> int:
    """Of the networks within the budget, that of the highest probability under independent choices.

    A ratio where LightNL is absent says nothing: what a network's canonical sample leaves open sums to 1.
    """

    def probability(network: int) -> float:
        sample = truth.shown[network]
        return math.prod(float(probabilities[label][candidate]) for label, candidate in sample.items())

    return max(np.flatnonzero(truth.within(budget)).tolist(), key=probability)


def space_of(truth: GroundTruth, budget: float):
    """The space as NNI's multi-trial strategies see it, of which only networks within the budget are drawn."""
    from search_space import LightNLSpace, macs
    from strategies.experiment.bounded_space import BoundedSpace

    space = BoundedSpace.from_model(LightNLSpace(truth.skeleton))
    space.cost, space.max_macs = macs(truth.skeleton), budget
    return space


def answered(truth: GroundTruth, settings: Settings, name: str, seed: int, max_macs: float, **engine):
    """The engine that a multi-trial strategy of NNI's has run on to its end."""
    from benchmarks.ground_truth.engine import TableEngine
    from strategies.experiment.strategy_class import make_strategy

    arguments = {'seed': seed, **settings.strategies[name]}
    path = arguments.pop('class')
    logging.getLogger('nni').setLevel(logging.ERROR)
    table = TableEngine(truth.index, macs=lambda network: truth.macs[network], max_macs=max_macs, **engine)
    with patch('nni.nas.strategy.hpo.time', SimpleNamespace(sleep=lambda seconds: None)):  # TPE's, after every model
        make_strategy(path, arguments)(space_of(truth, max_macs), table)
    return table


def evolved(truth: GroundTruth, settings: Settings, accuracy, seed: int, budget: float) -> int:
    """What evolution picks by the accuracy in a supernet."""
    engine = answered(truth, settings, 'evolution', seed, budget, accuracy=accuracy, cost=1, budget=SUPERNET_NETWORKS)
    return engine.picks()[-1].network


def multi_trial_rows(truth: GroundTruth, settings: Settings, name: str, seed: int) -> list[dict]:
    """Trainings from scratch, answered from the table: a row per budget."""
    training = np.random.default_rng(seed).integers(len(truth.seeds), size=len(truth.networks))
    each = truth.recipe['epochs']
    equal = settings.search_epochs() + each
    rows = []
    for budget in settings.budgets:
        engine = answered(
            truth,
            settings,
            name,
            seed,
            budget,
            accuracy=lambda network: float(truth.validation[network, training[network]]),
            cost=each,
            budget=math.inf,
        )
        picks = engine.picks()
        pick = [pick for pick in picks if pick.spent <= max(each, equal)][-1]
        regrets = [(float(p.spent), truth.regret(p.network, budget)) for p in picks]
        rows.append(row(truth, settings, name, seed, budget, pick.network, equal, regrets))
    return rows


def rows_of(settings: Settings, job: tuple[str, int]) -> list[dict]:
    name, seed = job
    truth = GroundTruth(settings.table)
    return (multi_trial_rows if name in MULTI_TRIAL else one_shot_rows)(truth, settings, name, seed)


def until(regrets: str, regret: float) -> float:
    """Epochs spent until the best so far is first within ``regret`` of the best."""
    return next((spent for spent, at in json.loads(regrets) if at <= regret + 1e-12), NEVER)


def until_few_are_lost(of_runs: Iterable[str], share: float) -> float:
    """Epochs spent until at most a ``share`` of the runs has a best so far that is lost, or none yet."""
    of_runs = [json.loads(regrets) for regrets in of_runs]

    def lost_at(epochs: float) -> float:
        then = [([regret for spent, regret in regrets if spent <= epochs] or [NEVER])[-1] for regrets in of_runs]
        return sum(regret > LOST for regret in then) / len(of_runs)

    return next((at for at in sorted({spent for c in of_runs for spent, _ in c}) if lost_at(at) <= share), NEVER)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per budget and strategy, over seeds.

    What never happens has taken infinity: a median of infinity is that of a strategy which in half of its runs does not
    get there.
    """
    lines = []
    for budget, of_budget in frame.groupby('max_macs'):
        autonl = of_budget[of_budget.strategy == 'autonl'].regret
        for name in [name for name in NAMES if name in set(of_budget.strategy)]:
            line = over_seeds(of_budget[of_budget.strategy == name], autonl)
            lines.append({'max_macs': budget, 'strategy': name, **line})
    return pd.DataFrame(lines)


def over_seeds(runs: pd.DataFrame, autonl: pd.Series) -> dict[str, float]:
    """What the runs of one strategy under one budget come to; ``autonl`` has the regrets of AutoNL's picks."""
    near = [until(regrets, NEAR_BEST) for regrets in runs.regrets]
    as_autonl = as_sure = math.nan
    if len(autonl):
        as_autonl = float(np.median([until(regrets, autonl.median()) for regrets in runs.regrets]))
        as_sure = until_few_are_lost(runs.regrets, (autonl > LOST).mean())
    line = {'seeds': len(runs), 'epochs': runs.epochs.median()}
    for what in ('regret', 'top'):
        low, middle, high = runs[what].quantile([0.25, 0.5, 0.75])
        line |= {what: middle, f'{what}_low': low, f'{what}_high': high}
    return line | {
        'lost': int((runs.regret > LOST).sum()),
        'near_best': float(np.median(near)),
        'never': near.count(NEVER),
        'as_autonl': as_autonl,
        'as_sure': as_sure,
        'tau': runs.tau.median(),
        'cpu_seconds': runs.cpu_seconds.median(),
    }


def picked(frame: pd.DataFrame) -> str:
    """Where most picks of each one-shot strategy have LightNL, ``row: ratio/stride``, over all budgets."""
    lines = []
    for name in [name for name in NAMES if name in set(frame.strategy) - set(MULTI_TRIAL)]:
        counts = frame[frame.strategy == name].lightnl.value_counts()
        most = [f'{_positions(json.loads(lightnl))} ({n})' for lightnl, n in counts.head(PLACES).items()]
        others = [f'others ({counts[PLACES:].sum()})'] * (len(counts) > PLACES)
        lines.append(f'LightNL of the picks of {name}: {", ".join(most + others)}')
    return '\n'.join(lines)


def _positions(positions: dict[str, list]) -> str:
    return ' and '.join(f'{row}: {ratio:g}/{stride}' for row, (ratio, stride) in positions.items()) or 'none'


def table(lines: pd.DataFrame) -> str:
    head = (
        f'{"MACs":>11}  {"strategy":16}{"seeds":>6}{"epochs":>8}  {"regret":24}{"top":22}{"lost":>5}'
        f'{"to 1%":>7}{"never":>7}{"as autonl":>11}{"as sure":>9}{"tau":>7}{"CPU s":>7}'
    )
    printed = [head]
    for line in lines.itertuples():
        regret = f'{line.regret:.2%} [{line.regret_low:.2%}, {line.regret_high:.2%}]'
        top = f'{line.top:.1%} [{line.top_low:.1%}, {line.top_high:.1%}]'
        printed.append(
            f'{line.max_macs:11,.0f}  {line.strategy:16}{line.seeds:6}{line.epochs:8.1f}  {regret:24}{top:22}'
            f'{line.lost:5}{_epochs(line.near_best):>7}{line.never:7}{_epochs(line.as_autonl):>11}'
            f'{_epochs(line.as_sure):>9}{_or_dash(line.tau, ".2f"):>7}{_or_dash(line.cpu_seconds, ".0f"):>7}'
        )
    return '\n'.join(printed)


def _epochs(value: float) -> str:
    return 'never' if value == NEVER else _or_dash(value, '.0f')


def _or_dash(value: float, form: str) -> str:
    return '-' if pd.isna(value) else format(value, form)


def goals(lines: pd.DataFrame, truth: GroundTruth) -> str:
    """What was wanted of AutoNL under each budget, and whether it was met, of the lines of :func:`summary`."""
    said = []
    for budget, of_budget in lines.groupby('max_macs'):
        by_name = of_budget.set_index('strategy')
        if 'autonl' not in by_name.index:
            continue
        own, at = by_name.loc['autonl'], f'{budget:,.0f} MACs: '
        error = truth.standard_error(truth.best(budget))  # what the table does not know of its best
        told = met(own.regret <= error)
        said.append(f"{at}regret {own.regret:.2%}; goal: at most the table's error, {error:.2%}; {told}")
        said.append(f'{at}{own.lost:.0f} of {own.seeds:.0f} picks are lost; goal: none; {met(own.lost == 0)}')
        said.append(f"{at}Kendall's tau {own.tau:.2f}; goal: at least {LEAST_TAU}; {met(own.tau >= LEAST_TAU)}")
        others = by_name[by_name.index.isin(MULTI_TRIAL)]
        if len(others):
            for column, aim in (('as_autonl', 'get as far'), ('as_sure', 'lose as few')):
                needed, first = others[column].min(), others[column].idxmin()
                what = f'of the multi-trial strategies none comes to {aim}'
                if needed != NEVER:
                    what = f'compute {own.epochs / needed:.2f} of what {first} needs to {aim}'
                said.append(f'{at}{what}; goal: at most 0.33; {met(own.epochs <= needed / 3)}')
        for name in by_name.index.difference(['autonl', *MULTI_TRIAL]):
            ahead = own.regret < by_name.loc[name].regret
            said.append(f'{at}regret {own.regret:.2%}, {name} {by_name.loc[name].regret:.2%}; {met(ahead)}')
    return '\n'.join(said)


def plot(frame: pd.DataFrame, file: Path) -> None:
    """Median regret of the best so far against compute, with its quartiles, a panel per budget; searches are points,
    drawn side by side from AutoNL's place on."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    budgets = sorted(frame.max_macs.unique())
    figure, panels = pyplot.subplots(
        1, len(budgets), figsize=(4.5 * len(budgets), 4), sharey=True, squeeze=False, layout='constrained'
    )
    for panel, budget in zip(panels[0], budgets):
        for number, name in enumerate(NAMES):
            of = frame[(frame.max_macs == budget) & (frame.strategy == name)]
            if of.empty:
                continue
            of_runs = [json.loads(regrets) for regrets in of.regrets]
            if name in MULTI_TRIAL:
                at = sorted({spent for regrets in of_runs for spent, _ in regrets})
                at = [spent for spent in at if all(regrets[0][0] <= spent for regrets in of_runs)]
                then = [[[r for spent, r in regrets if spent <= epochs][-1] for regrets in of_runs] for epochs in at]
                low, middle, high = np.quantile(then, [0.25, 0.5, 0.75], axis=1)
                panel.step(at, middle, where='post', color=f'C{number}', label=name)
                panel.fill_between(at, low, high, step='post', color=f'C{number}', alpha=0.15, linewidth=0)
            else:
                low, middle, high = of.regret.quantile([0.25, 0.5, 0.75])
                spread = [[middle - low], [high - middle]]
                beside = of.epochs.iloc[0] * 1.06**number  # all are at about the same place
                panel.errorbar(beside, middle, spread, fmt='o', color=f'C{number}', label=name, capsize=3)
        panel.set(xscale='log', xlabel='compute (epochs)', title=f'at most {budget:,.0f} MACs')
    panels[0][0].set_ylabel('regret (median and quartiles over seeds)')
    panels[0][0].legend()
    figure.savefig(file, metadata={'Date': None} if file.suffix == '.svg' else None)


def changed(recipe: dict[str, Any], strategies: dict[str, dict], changes: list[str]) -> tuple[dict, dict]:
    """Recipe and strategies after the changes ``NAME=VALUE``, of the recipe, and ``STRATEGY.ARGUMENT=VALUE``.

    Raises:
        ValueError: a change is neither.
    """
    recipe, strategies = dict(recipe), {name: dict(arguments) for name, arguments in strategies.items()}
    for change in changes:
        key, sign, value = change.partition('=')
        name, dot, argument = key.partition('.')
        if not sign:
            raise ValueError(f'--set takes NAME=VALUE or STRATEGY.ARGUMENT=VALUE, not {change!r}')
        if dot and name not in strategies:
            raise ValueError(f'--set {key}: no strategy {name!r}; {closest(name, strategies)}')
        into, key = (strategies[name], argument) if dot else (recipe, key)
        into[key] = yaml.safe_load(value)
    return recipe, strategies


def digest_of(file: Path) -> str:
    """What tells one table's content from another's."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the command line asks for.

    Raises:
        ValueError: the table is not there, or a change is of nothing that there is.
    """
    truth = GroundTruth(args.table)
    recipe = {**truth.recipe, 'epochs': SEARCH_EPOCHS}
    recipe, strategies = changed(recipe, STRATEGIES, args.set)
    for key in [key for key in {*recipe, *truth.recipe} if key.startswith(('dataset', 'skeleton'))]:
        if recipe.get(key) != truth.recipe.get(key):
            raise ValueError(f'--set {key}: the table is of {key}={truth.recipe.get(key)}; searches on it are too')
    budgets = args.budgets or truth.budgets
    for budget in budgets:
        truth.within(budget)
    return Settings(str(args.table), digest_of(args.table), recipe, strategies, budgets, args.tau_networks)


def check(settings: Settings, names: list[str]) -> None:
    """Refuse now what the searches would refuse later.

    Raises:
        ValueError: a recipe, or a strategy's argument, is not valid.
    """
    from benchmarks.quality.one_shot_search import trial_and_clip
    from strategies.experiment.strategy_class import make_strategy

    trial_and_clip({'seed': 0, 'class': 'strategies.AutoNL', **settings.recipe})
    logging.getLogger('nni').setLevel(logging.ERROR)
    for name in names:
        arguments = dict(settings.strategies[name])
        make_strategy(arguments.pop('class'), arguments)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', type=Path, default=FILE, metavar='FILE', help='the ground truth (default: ours)')
    parser.add_argument('--strategies', nargs='+', choices=NAMES, default=NAMES, metavar='NAME')
    parser.add_argument('--seeds', type=whole_number, default=20, metavar='N', help='of each strategy (default: 20)')
    parser.add_argument('--first-seed', type=int, default=0, metavar='N')
    parser.add_argument('--budgets', type=whole_macs, nargs='+', metavar='MACS', help="(default: the table's three)")
    parser.add_argument(
        '--set',
        nargs='*',
        default=[],
        metavar='NAME=VALUE',
        help="of the searches' recipe, or STRATEGY.ARGUMENT=VALUE of a strategy",
    )
    parser.add_argument(
        '--tau-networks', type=whole_number, default=50, metavar='N', help="of Kendall's tau (default: 50)"
    )
    parser.add_argument('--processes', type=whole_number, default=os.cpu_count(), help='at once (default: one per CPU)')
    parser.add_argument(
        '--csv', type=path_argument, metavar='FILE', help='keep rows there; rows there are not computed again'
    )
    parser.add_argument('--plot', type=path_argument, metavar='FILE', help='draw regret against compute')
    args = parser.parse_args(arguments)
    try:
        settings = settings_of(args)
        check(settings, list(map(searched_by, args.strategies)))
        for file in filter(None, (args.csv, args.plot)):
            check_writable(file)
        frame = read_rows(args.csv, [*KEY, 'max_macs', 'regrets'])
    except (ValueError, OSError) as error:
        print(f'search_quality.py: {error}', file=sys.stderr)
        return 2
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    done = set(keys(frame, KEY))
    left = [(name, seed) for seed in seeds for name in args.strategies if (name, seed, settings.of(name)) not in done]
    # Seed by seed: what is there early is of all strategies.
    jobs = list(dict.fromkeys((searched_by(name), seed) for name, seed in left))
    found = in_any_order(partial(rows_of, settings), jobs, args.processes)
    frame = keep(frame, args.csv, found, 'searches', len(jobs)).drop_duplicates([*KEY, 'max_macs'])
    of_these = frame.settings == frame.strategy.map(settings.of)
    frame = frame[of_these & frame.seed.isin(seeds) & frame.strategy.isin(args.strategies)]
    lines = summary(frame)
    print(
        f'{args.table}: {json.dumps(settings.recipe)}\n'
        'regret, and top, the share of networks that are better: median [quartiles] of the picks at equal compute\n'
        f'lost: picks of a regret over {LOST:.0%}; never: runs that are at no time within 1% of the best\n'
        "to 1%, as autonl: median epochs until the best so far is within 1% of the best, as good as autonl's median;\n"
        "as sure: epochs until no more of the runs are lost than of autonl's"
    )
    print(table(lines))
    print(picked(frame))
    print(goals(lines, GroundTruth(args.table)))
    if args.plot:
        plot(frame, args.plot)
    return 0


if __name__ == '__main__':
    sys.exit(run_command('search_quality.py', main))
