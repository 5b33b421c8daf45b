"""What each part of AutoNL's relaxation is good for: ``python benchmarks/quality/ablations.py``.

One part is switched off or replaced at a time, and the search repeated from the same seeds, for as many passes over the
data. With the table of ``benchmarks/ground_truth`` the picks have a regret and a rank; ``--retrain`` trains them, where
another version of the task is searched, as tuning does:

    python benchmarks/quality/ablations.py --csv ablations.csv    # rows of the CSV are not computed again
    python benchmarks/quality/ablations.py --variants default 'one level' --set dataset/colours=3 --retrain
    python benchmarks/quality/ablations.py --variants default --set autonl.margin=0.2 epochs=12    # another default

Variants:

    default            as AutoNL is
    folded kernel      insertion is gated by the norm of the kernel that BN is folded into, not of the plain one
    soft gates         a gate lets sigmoid(norm - threshold) through, not 0 or 1; the selection is on hard ones
    one level          weights and thresholds take one step together, on the weights' whole batch, nothing drawn
    nothing drawn      weight steps train the gates' own network, never a candidate that is drawn
    half drawn         weight steps draw a candidate for half of the choices, not for all
    drawn late         they draw from the middle of warm-up on, not from the first step
    insertion kept     they never draw insertion of LightNL
    insertion early    they draw it from the first step on
    no warm-up         thresholds and cost come in with the first epoch
    no margin          thresholds start at 0.001, not 0.1, below their norms
    fixed cost weight  cost-weight * log(MACs), no budget: one network, whatever budget it fits
    gates alone        no selection at the end: the gates' own network, a search for each budget
    selection alone    thresholds are not learned: the selection chooses from a supernet with all gates open
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.ground_truth.table import FILE, GroundTruth  # noqa: E402
from benchmarks.kept_rows import in_any_order, keep, keys, read_rows  # noqa: E402
from benchmarks.quality.search_quality import STRATEGIES, changed, digest_of  # noqa: E402
from benchmarks.whole_number import whole_macs, whole_number  # noqa: E402
from search_space import PRESENT  # noqa: E402
from search_space.entry_point import Parser, path_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.whole_file import check_writable  # noqa: E402
from strategies.experiment.seeds import derived_seed  # noqa: E402

KEY = ['variant', 'seed', 'settings']
SEARCH_EPOCHS = 6
"""Of the default's search, 4 of them warm-up."""


@dataclass
class Variant:
    """One part of the search made otherwise.

    Attributes:
        arguments: of AutoNL, that are others.
        patches: attribute of a class or module of ``strategies.autonl`` (``module.Class.name``) to what takes its
            place there, a function of this file.
        one_budget: a search for each budget, not one for all.
        no_budget: a search without one.
        one_step: an epoch is one pass over the data even after warm-up.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    patches: dict[str, str] = field(default_factory=dict)
    one_budget: bool = False
    no_budget: bool = False
    one_step: bool = False

    def epochs(self, epochs: int, warmup: int) -> int:
        """Of its search, for as many passes as two-step epochs after ``warmup`` epochs of the default make."""
        own = self.arguments.get('warmup_epochs', warmup)
        passes = 2 * epochs - min(epochs, warmup)
        return passes if self.one_step else max(1, round((passes + min(own, passes)) / 2))


VARIANTS = {
    'default': Variant(),
    'folded kernel': Variant(patches={'gated_lightnl.GatedInsertion.norm': 'folded_norm'}),
    'soft gates': Variant(patches={'gate.gate': 'soft_gate'}),
    'one level': Variant(patches={'module.AutoNLModule.training_step': 'one_level_step'}, one_step=True),
    'nothing drawn': Variant({'drawn_share': 0.0}),
    'half drawn': Variant({'drawn_share': 0.5}),
    'drawn late': Variant(patches={'module.AutoNLModule.draws': 'from_the_middle_of_warmup'}),
    'insertion kept': Variant(patches={'module.AutoNLModule.may_be_drawn': 'any_but_insertion'}),
    'insertion early': Variant(patches={'module.AutoNLModule.may_be_drawn': 'any_but_presence'}),
    'no warm-up': Variant({'warmup_epochs': 0}),
    'no margin': Variant({'margin': 0.001}),
    'fixed cost weight': Variant(no_budget=True),
    'gates alone': Variant(patches={'module.front': 'no_front'}, one_budget=True),
    'selection alone': Variant({'threshold_travel': 0.0}),
}


def from_the_middle_of_warmup(module, batch_idx: int) -> bool:
    """Weight steps of the first half of warm-up draw nothing."""
    from strategies.autonl.module import UNDRAWN_EVERY

    return 2 * module.trainer.current_epoch >= module.warmup_epochs and batch_idx % UNDRAWN_EVERY > 0


def any_but_presence(module, label: str) -> bool:
    """Insertion of LightNL is drawn as every choice is."""
    return not label.endswith('/presence')


def any_but_insertion(module, label: str) -> bool:
    """Neither presence of a row nor insertion of LightNL is drawn."""
    return not label.endswith(('/presence', '/lightnl'))


def folded_norm(insertion):
    """``‖γ / σ · W_d‖² / C``: of the depthwise kernel with its BN folded in, by the variance that BN keeps."""
    lightnl = insertion[PRESENT]
    scale = lightnl.bn.weight / (lightnl.bn.running_var + lightnl.bn.eps).sqrt()
    weight = lightnl.conv.weight * scale[:, None, None, None]
    return weight.square().sum()[None] / len(weight)


def soft_gate(u, at=None):
    """``sigmoid(u)``, forward too."""
    import torch

    at = u if at is None else at
    return torch.sigmoid(u - u.detach() + at.detach())


def one_level_step(module, batch, batch_idx):
    """One step of weights and thresholds, on the training batch: ``cross-entropy + λ · log(cost)`` after warm-up."""
    from torch import is_tensor

    weights, thresholds = module._optimizers()
    result = module.training_module.training_step(batch['train'], batch_idx)
    loss = result if is_tensor(result) else result['loss']
    module.loss_name = 'weight loss'
    learns = module.trainer.current_epoch >= module.warmup_epochs
    if learns:
        cost = module.cost.expected(module.choice_weights())
        loss = loss + module.objective(cost)
    weights.zero_grad()
    thresholds.zero_grad()
    module.manual_backward(loss)
    weights.step()
    if learns:
        thresholds.step()
        module.objective.adapt(cost.detach(), module._threshold_steps())
    module.advance_lr_schedulers(batch_idx)
    return result


def no_front(measured, budgets, sample, least_fill):
    """In place of the selection: what the gates have chosen."""
    return [sample for _ in budgets]


@contextmanager
def made_otherwise(variant: Variant) -> Iterator[list[float]]:
    """The search as the variant has it. Yields a list that gets :func:`left_behind` at the end of the search,
    before the selection."""
    from strategies.autonl import gate
    from strategies.autonl.module import AutoNLModule

    find, hard = AutoNLModule._find, gate.gate
    lost: list[float] = []

    def measured_find(module) -> None:
        if not lost:  # it is called once more when training has ended
            lost.append(left_behind(module))
        with patch.object(gate, 'gate', hard):
            find(module)

    with ExitStack() as stack:
        for place, replacement in variant.patches.items():
            stack.enter_context(patch(f'strategies.autonl.{place}', globals()[replacement]))
        stack.enter_context(patch.object(AutoNLModule, '_find', measured_find))
        yield lost


def left_behind(module) -> float:
    """Held-out accuracy of the supernet under its gates as they are, minus that of the network that they choose."""
    from benchmarks.quality.one_shot_search import BATCHES, accuracy

    classifier, supernet = module.training_module, module.training_module.model
    batches = list(itertools.islice(module.trainer.train_dataloader['val'], BATCHES))
    training = {part: part.training for part in classifier.modules()}
    try:
        whole = accuracy(classifier.eval(), batches)
        classifier.set_model(supernet.freeze(supernet.skeleton.canonical(module.export())).eval())
        return whole - accuracy(classifier, batches)
    finally:
        classifier.set_model(supernet)
        for part, was_training in training.items():
            part.training = was_training


@dataclass
class Job:
    """A variant, from a seed: everything that its rows depend on."""

    variant: str
    seed: int
    recipe: dict[str, Any]
    arguments: dict[str, Any]
    budgets: list[float]
    table: str | None
    digest: str | None
    train: dict[str, Any] | None

    def identity(self) -> tuple:
        """In the order of :data:`KEY`."""
        return self.variant, self.seed, self.settings()

    def settings(self) -> str:
        own = {'recipe': self.recipe, 'arguments': self.arguments, 'budgets': self.budgets, 'train': self.train}
        return json.dumps(own | {'table': self.digest}, sort_keys=True)


def rows_of(job: Job) -> list[dict]:
    """A row per budget."""
    from benchmarks.quality.one_shot_search import search

    variant = VARIANTS[job.variant]
    arguments = {**job.arguments, **variant.arguments}
    path = arguments.pop('class')
    epochs = variant.epochs(job.recipe['epochs'], job.arguments.get('warmup_epochs', 0))
    parameters = {**job.recipe, 'epochs': epochs, 'seed': job.seed, 'class': path}
    parameters |= {f'class/{key}': value for key, value in arguments.items()}
    searches = [[budget] for budget in job.budgets] if variant.one_budget else [job.budgets]
    rows = []
    for budgets in searches:
        target = {} if variant.no_budget else {'class/target_macs': budgets}
        with made_otherwise(variant) as lost:
            found = search({**parameters, **target})
        skeleton = found.supernet.skeleton
        samples = found.module.selected * (len(budgets) if variant.no_budget else 1)
        for budget, sample in zip(budgets, map(skeleton.canonical, samples), strict=True):
            rows.append(row(job, found, sample, budget) | {'left_behind': lost[0], 'cpu_seconds': found.cpu_seconds})
    return rows


def row(job: Job, found, sample: dict, budget: float) -> dict:
    from search_space import macs

    skeleton = found.supernet.skeleton
    positions, cost = skeleton.lightnl_positions(sample), macs(skeleton)(sample)
    made = {
        'variant': job.variant,
        'seed': job.seed,
        'max_macs': float(budget),
        'lightnl': json.dumps(positions),
        'row_1': 1 in positions,
        'macs': cost,
        'fits': cost <= budget,
        'supernet_accuracy': found.accuracy(sample),
        'regret': math.nan,
        'top': math.nan,
        'test_accuracy': math.nan,
        'settings': job.settings(),
    }
    if job.table is not None and made['fits']:
        truth = GroundTruth(job.table)
        pick = truth.index(sample)
        made |= {'regret': truth.regret(pick, budget), 'top': truth.top(pick, budget)}
    if job.train is not None:
        from trials.parameters import TrialParameters
        from trials.run import run_trial

        own = {'strategy': 'autonl', 'stage': 'test', 'seed': derived_seed(job.seed, 'test')}
        trained = run_trial(TrialParameters.from_flat({**job.train, **own, **sample}), lambda metrics: None)[0]
        made['test_accuracy'] = trained['test_accuracy']
    return made


def report(frame: pd.DataFrame) -> str:
    """A line per budget and variant, over seeds; the change is the median of the seeds' own differences to default."""
    what, best = ('regret', -1) if frame.regret.notna().any() else ('test_accuracy', 1)
    if frame[what].isna().all():
        what = 'supernet_accuracy'
    lines = [
        f'{"MACs":>11}  {"variant":18}{"seeds":>6}{"fits":>6}{"row 1":>7}{"median MACs":>13}  '
        f'{what.replace("_", " "):26}{"top":>8}{"change":>9}{"left behind":>13}{"CPU s":>7}'
    ]
    for budget, of_budget in frame.groupby('max_macs'):
        default = of_budget[of_budget.variant == 'default'].set_index('seed')[what]
        for name in [name for name in VARIANTS if name in set(of_budget.variant)]:
            of = of_budget[of_budget.variant == name].set_index('seed')
            low, middle, high = of[what].quantile([0.25, 0.5, 0.75])
            spread = '-' if pd.isna(middle) else f'{middle:.2%} [{low:.2%}, {high:.2%}]'
            change = (best * (of[what] - default)).median()
            lines.append(
                f'{budget:11,.0f}  {name:18}{len(of):6}{int(of.fits.sum()):6}{int(of.row_1.sum()):7}'
                f'{of.macs.median():13,.0f}  {spread:26}{_or_dash(of.top.median(), ".1%"):>8}'
                f'{_or_dash(change, "+.2%"):>9}{_or_dash(of.left_behind.median(), "+.2%"):>13}'
                f'{of.cpu_seconds.median():7.0f}'
            )
    return '\n'.join(lines)


def _or_dash(value: float, form: str) -> str:
    return '-' if pd.isna(value) else format(value, form)


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """All that the command line asks for.

    Raises:
        ValueError: a change is of nothing that there is, or not valid; or the table is none.
    """
    truth = GroundTruth(args.table)
    table, train = str(args.table), truth.recipe
    budgets = args.budgets or truth.budgets
    recipe, strategies = changed({**train, 'epochs': SEARCH_EPOCHS}, {'autonl': STRATEGIES['autonl']}, args.set)
    task = {key for key in {*recipe, *train} if key.startswith(('dataset', 'skeleton'))}
    if any(recipe.get(key) != train.get(key) for key in task):
        table = None  # it is of another task
        train = {**train, **{key: value for key, value in recipe.items() if key in task}}
    _check(recipe, strategies['autonl'], args.variants, budgets)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    digest = table and digest_of(args.table)
    retrained = train if args.retrain else None
    return [
        Job(variant, seed, recipe, strategies['autonl'], budgets, table, digest, retrained)
        for seed in seeds
        for variant in args.variants
    ]


def _check(recipe: dict, arguments: dict, variants: list[str], budgets: list[float]) -> None:
    from benchmarks.quality.one_shot_search import trial_and_clip
    from strategies.experiment.strategy_class import make_strategy

    trial_and_clip({'seed': 0, 'class': 'strategies.AutoNL', **recipe})
    for name in variants:
        own = {**arguments, **VARIANTS[name].arguments}
        own |= {} if VARIANTS[name].no_budget else {'target_macs': budgets}
        make_strategy(own.pop('class'), own)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--variants', nargs='+', choices=list(VARIANTS), default=list(VARIANTS), metavar='NAME')
    parser.add_argument('--seeds', type=whole_number, default=10, metavar='N', help='of each variant (default: 10)')
    parser.add_argument('--first-seed', type=int, default=0, metavar='N')
    parser.add_argument('--budgets', type=whole_macs, nargs='+', metavar='MACS', help="(default: the table's three)")
    parser.add_argument('--table', type=Path, default=FILE, metavar='FILE', help='the ground truth (default: ours)')
    parser.add_argument(
        '--set', nargs='*', default=[], metavar='NAME=VALUE', help="of the searches' recipe, or autonl.ARGUMENT=VALUE"
    )
    parser.add_argument('--retrain', action='store_true', help='train each pick from scratch, for its test accuracy')
    parser.add_argument('--processes', type=whole_number, default=os.cpu_count(), help='at once (default: one per CPU)')
    parser.add_argument(
        '--csv', type=path_argument, metavar='FILE', help='keep rows there; rows there are not computed again'
    )
    args = parser.parse_args(arguments)
    try:
        jobs = jobs_of(args)
        if args.csv:
            check_writable(args.csv)
        frame = read_rows(args.csv, KEY)
    except (ValueError, OSError) as error:
        print(f'ablations.py: {error}', file=sys.stderr)
        return 2
    if jobs[0].table is None:
        print('no ground truth of this task: no regret; --retrain trains the picks', file=sys.stderr)
    wanted, done = {job.identity(): job for job in jobs}, set(keys(frame, KEY))
    left = [job for identity, job in wanted.items() if identity not in done]
    frame = keep(frame, args.csv, in_any_order(rows_of, left, args.processes), 'searches', len(left))
    print(report(frame[[key in wanted for key in keys(frame, KEY)]]))
    return 0


if __name__ == '__main__':
    sys.exit(run_command('ablations.py', main))
