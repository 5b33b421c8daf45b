"""What attention adds to a body, and what it costs: ``python benchmarks/quality/attention.py --csv attention.csv``.

The paper claims that LightNL does the work of the conventional non-local block at a small part of its cost, "without
sacrificing the performance". Here one body is trained with each kind of block at the same rows, from the same seeds: on
cued digits, whose answer needs two far-apart places at once, and on real images, Fashion-MNIST.

    none              the body: the skeleton's first candidates, every row there
    squeeze-excite    in the rows, on their expanded features, ratio 0.25 (Hu et al., CVPR 2018)
    non-local         the conventional block on the rows' projected features (Wang et al., CVPR 2018)
    LightNL r/s       LightNL of channel ratio r and stride s at the same places

Skeletons and recipes are those of ``experiment.yaml`` and ``experiments/fashion-mnist.yaml``. Rows of the CSV are not
computed again, so a run that was stopped goes on; when all are there, the table is printed from them alone.

    python benchmarks/quality/attention.py --csv attention.csv --tasks cued-digits --seeds 8
    python benchmarks/quality/attention.py --csv attention.csv --rows 1 --set epochs=12 dataset/folder=data

Accuracy is that of the test data, on which nothing is chosen: its mean over the seeds, and Student's 95% interval of
that mean. Differences are of the same seed. Training is CPU seconds of one thread. Latency is that of one image on one
thread, the median of rounds in which each network has its turn; ratios are those of the same round, or seed.

All of it takes about three hours of one core, an hour and a half of two.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import time
import warnings
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
from benchmarks.speed.paired import paired  # noqa: E402
from search_space.entry_point import Parser, path_argument, run, whole_argument  # noqa: E402
from search_space.lightnl.macs import non_local_macs  # noqa: E402
from search_space.rules import whole  # noqa: E402
from search_space.skeleton import ABSENT, PRESENT, Row, Skeleton  # noqa: E402
from search_space.skeleton_file import load_skeleton  # noqa: E402
from search_space.whole_file import check_writable  # noqa: E402

EXPERIMENTS = {
    'cued-digits': ROOT / 'experiment.yaml',
    'fashion-mnist': ROOT / 'experiments' / 'fashion-mnist.yaml',
}
NONE, NON_LOCAL = 'none', 'non-local'
BLOCKS: dict[str, dict[str, Any]] = {
    NONE: {},
    'squeeze-excite': {'se': 0.25},
    NON_LOCAL: {'lightnl': PRESENT},  # LightNL, whose place it takes
    **{
        f'LightNL {ratio}/{stride}': {'lightnl': PRESENT, 'lightnl_ratio': ratio, 'lightnl_stride': stride}
        for ratio in (0.25, 0.125)
        for stride in (1, 2)
    },
}
"""Kind of block to what is other in the rows that have it."""
RUNS = 8
"""Of each network in a round of latencies."""
PLAY_NO_PART = {'initial', 'recalibrate', 'seed', 'stage', 'strategy', 'teacher'}
"""Parameters of a trial that this benchmark sets itself, or does not know."""
TRAINING, LATENCY = 'training', 'latency'
KEY = ['settings', 'measured', 'block', 'seed']


@dataclass(frozen=True)
class Bed:
    """A task and the rows that have blocks: what every training of it depends on, but for block and seed.

    Attributes:
        task: its name.
        recipe: flat parameters of a trial, the skeleton among them.
        rows: numbers of the rows that have a block, from 1.
    """

    task: str
    recipe: dict[str, Any]
    rows: tuple[int, ...]

    def body(self) -> Skeleton:
        """The skeleton's first candidates, with every row and without a block.

        Raises:
            ValueError: it has not the rows.
        """
        skeleton = load_skeleton(self.recipe['skeleton'])
        if max(self.rows) > len(skeleton.rows):
            raise ValueError(f'--rows: {skeleton.name} has {len(skeleton.rows)} rows, not {max(self.rows)}')
        plain = {'presence': PRESENT, 'lightnl': ABSENT, 'se': 0}
        return dataclasses.replace(
            skeleton,
            rows=tuple(
                dataclasses.replace(row, **{key: row.candidates(key)[0] for key in Row.SEARCHED} | plain)
                for row in skeleton.rows
            ),
        )

    def with_block(self, block: str) -> Skeleton:
        """The body with the block in its rows; where that is the non-local block, with LightNL in its place."""
        body = self.body()
        rows = (
            dataclasses.replace(row, **BLOCKS[block]) if number in self.rows else row
            for number, row in enumerate(body.rows, start=1)
        )
        return dataclasses.replace(body, rows=tuple(rows))

    def network(self, block: str):
        """The network with the block, freshly initialised."""
        from search_space.lightnl.block import NonLocal
        from search_space.network import LightNLSpace
        from search_space.skeleton import row_name

        skeleton = self.with_block(block)
        network = LightNLSpace(skeleton)
        for number in self.rows if block == NON_LOCAL else ():
            row = network.rows.get_submodule(row_name(number - 1))
            row.lightnl = NonLocal(skeleton.rows[number - 1].channels, scale=skeleton.lightnl_scale)
            row.lightnl.bn.eps, row.lightnl.bn.momentum = skeleton.bn_eps, skeleton.bn_momentum
        return network

    def macs(self, block: str) -> int:
        """MACs of the network with the block."""
        from search_space.cost.macs import macs, row_sizes

        if block != NON_LOCAL:
            return macs(self.with_block(block))({})
        body = self.body()
        sizes = row_sizes(body)[1:]
        blocks = (non_local_macs(body.rows[n - 1].channels, sizes[n - 1], sizes[n - 1]) for n in self.rows)
        return macs(body)({}) + sum(blocks)

    def settings(self, measured: str) -> str:
        """What tells the rows of one bed from those of another, in the CSV; a round of latencies is of all blocks."""
        blocks = [BLOCKS] if measured == LATENCY else []
        return digest([self.recipe, dataclasses.asdict(self.body()), self.rows, *blocks])


@dataclass(frozen=True)
class Job:
    """A training with a block, from a seed; or, where there is no block, a round of the latencies of all."""

    bed: Bed
    block: str | None
    seed: int

    def identities(self) -> list[tuple]:
        """Of the rows that come of it, in the order of :data:`KEY`."""
        of = [(TRAINING, self.block)] if self.block else [(LATENCY, block) for block in BLOCKS]
        return [(self.bed.settings(measured), measured, block, self.seed) for measured, block in of]

    def rows(self) -> list[dict[str, Any]]:
        """The keys with what was measured."""
        bed = {'task': self.bed.task, 'rows': ' '.join(map(str, self.bed.rows))}
        measured = trained(self.bed, self.block, self.seed) if self.block else latencies(self.bed)
        return [dict(zip(KEY, key)) | bed | values for key, values in zip(self.identities(), measured, strict=True)]


def trial_of(bed: Bed, seed: int):
    """The bed's recipe as a trial's parameters, which check it; what network it names plays no part here.

    Raises:
        ValueError: the recipe is not valid.
    """
    from trials.parameters import TrialParameters

    for key in sorted(PLAY_NO_PART & bed.recipe.keys()):
        raise ValueError(
            f'--set {key}: it plays no part here; every network is trained from scratch, alone, from --seeds'
        )
    network = {label: candidates[0] for label, candidates in load_skeleton(bed.recipe['skeleton']).choices().items()}
    return TrialParameters.from_flat({**bed.recipe, 'strategy': 'none', 'stage': 'test', 'seed': seed, **network})


def data_of(bed: Bed):
    """The data set's parts.

    Raises:
        ValueError: they are not there, or not for networks of the bed's skeleton.
    """
    from trials import datasets

    trial, body = trial_of(bed, 0), bed.body()
    parts = datasets.load(trial.dataset, body.input_size, **trial.dataset_arguments)
    datasets.check_fit(parts, body, trial.dataset)
    return parts


def trained(bed: Bed, block: str, seed: int) -> list[dict[str, float]]:
    """Accuracies and CPU seconds of one training from scratch, in a list of one."""
    import search_space.nni_nas  # noqa: F401, I001 - before Lightning: it silences a warning of NNI's
    import pytorch_lightning as pl
    import torch

    from strategies.autonl.finite_loss import FiniteLoss
    from strategies.experiment.seeds import derived_seed
    from trials.run import recipe_of
    from trials.training.evaluator import evaluator, loader

    quiet()
    trial, parts = trial_of(bed, seed), data_of(bed)
    torch.set_num_threads(trial.threads)
    pl.seed_everything(derived_seed(seed, 'trial'), verbose=False)
    network = bed.network(block).to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore')  # Lightning recommends worker processes and a logger
        training = evaluator(
            parts.train, parts.validation, **recipe_of(trial), classes=parts.classes, callbacks=[FiniteLoss()]
        )
        started = time.process_time()
        training.evaluate(network)
        seconds = time.process_time() - started
        validation = float(training.trainer.callback_metrics['validation_accuracy'])
        (test,) = training.trainer.test(training.module, loader(parts.test, trial.batch_size), verbose=False)
    return [{'test_accuracy': test['test_accuracy'], 'validation_accuracy': validation, 'train_seconds': seconds}]


def latencies(bed: Bed) -> list[dict[str, float]]:
    """Milliseconds of one image on one thread, for each block."""
    import torch

    from search_space.cost.latency import median_ms

    torch.set_num_threads(1)
    networks = {block: bed.network(block).to(memory_format=torch.channels_last) for block in BLOCKS}
    shape = 3, bed.body().input_size, bed.body().input_size
    subjects = {block: (lambda network=network: network, shape) for block, network in networks.items()}
    return [{'latency_ms': ms} for ms in median_ms(subjects, RUNS).values()]


def report(bed: Bed, frame: pd.DataFrame) -> str:
    """The bed's table, of the CSV's rows ``frame``."""
    trainings, rounds = (
        frame[(frame.settings == bed.settings(kind)) & (frame.measured == kind)].pivot(index='seed', columns='block')
        for kind in (TRAINING, LATENCY)
    )
    accuracy, seconds, latency = trainings.test_accuracy, trainings.train_seconds, rounds.latency_ms
    shown = ' '.join(map(str, bed.rows))
    lines = [
        f'{bed.task}, skeleton {bed.recipe["skeleton"]}, blocks at rows {shown}, {bed.recipe["epochs"]} epochs, '
        f'{len(accuracy)} seeds, {len(latency)} rounds of latencies',
        f'{"block":16}{"MACs":>12}{"parameters":>12}{"latency ms":>12}{"x none":>8}{"training s":>12}{"x none":>8}'
        f'  {"test accuracy":26}{"less none, points":26}{"less non-local, points":26}each seed',
    ]
    for block in [block for block in BLOCKS if block in accuracy]:
        parameters = sum(weight.numel() for weight in bed.network(block).parameters())
        lines.append(
            f'{block:16}{bed.macs(block):12,}{parameters:12,}'
            f'{latency[block].median():12.3f}{times_none(latency, block):>8}'
            f'{seconds[block].median():12.0f}{times_none(seconds, block):>8}'
            f'  {mean(accuracy[block]):26}{less(accuracy, block, NONE):26}{less(accuracy, block, NON_LOCAL):26}'
            + ' '.join(f'{value:.1%}' for value in accuracy[block].dropna())
        )
    return '\n'.join(lines)


def mean(accuracy: pd.Series) -> str:
    """The mean over the seeds, with its interval, which ends at 0 and at 100%."""
    middle, low, high, seeds = mean_interval(accuracy)
    return f'{middle:.2%}' + f' [{max(low, 0):.2%}, {min(high, 1):.2%}]' * (seeds > 1)


def times_none(values: pd.DataFrame, block: str) -> str:
    if block == NONE or NONE not in values:
        return '-'
    both = values[[block, NONE]].dropna()
    return f'{paired(list(both[block]), list(both[NONE]))[0]:.2f}'


def less(accuracy: pd.DataFrame, block: str, other: str) -> str:
    """By how many points the block's accuracy is above the other's, with the interval over the seeds of both."""
    if block == other or other not in accuracy:
        return '-'
    middle, low, high, seeds = mean_interval(100 * (accuracy[block] - accuracy[other]))
    return f'{middle:+.2f}' + f' [{low:+.2f}, {high:+.2f}]' * (seeds > 1)


def beds_of(args: argparse.Namespace) -> list[Bed]:
    """The tasks that the command line asks for.

    Raises:
        ValueError: a recipe or its rows are not valid.
    """
    beds = []
    for task in dict.fromkeys(args.tasks):
        given = yaml.safe_load(EXPERIMENTS[task].read_text('utf-8'))['tuner']['classArgs']
        recipe, _ = changed({'skeleton': given['skeleton'], **given['retrain']}, {}, args.set)
        rows = args.rows or range(1, 1 + len(load_skeleton(recipe['skeleton']).rows))
        beds.append(Bed(task, recipe, tuple(sorted(set(rows)))))
        trial_of(beds[-1], 0)
        beds[-1].body()
    return beds


def jobs_of(args: argparse.Namespace, beds: list[Bed]) -> list[Job]:
    """A seed of all blocks after the other, so that a table has as many of each; latencies last, when all is quiet."""
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    trainings = [Job(bed, block, seed) for bed in beds for seed in seeds for block in dict.fromkeys(args.blocks)]
    return trainings + [Job(bed, None, number) for bed in beds for number in range(args.rounds)]


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog='attention.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = whole_argument(whole(1, 10_000))
    parser.add_argument('--tasks', nargs='+', choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar='NAME')
    parser.add_argument('--blocks', nargs='+', choices=list(BLOCKS), default=list(BLOCKS), metavar='NAME')
    parser.add_argument('--rows', nargs='+', type=count, metavar='N', help='that have the block (default: all)')
    parser.add_argument('--seeds', type=count, default=5, metavar='N', help='of each block (default: 5)')
    parser.add_argument('--first-seed', type=whole_argument(whole(0, 2**63 - 1)), default=0, metavar='N')
    parser.add_argument('--rounds', type=count, default=9, metavar='N', help='of latencies (default: 9)')
    parser.add_argument('--set', nargs='*', default=[], metavar='NAME=VALUE', help='of the recipes, instead of theirs')
    parser.add_argument('--processes', type=count, default=os.cpu_count(), help='at once (default: one per CPU)')
    parser.add_argument(
        '--csv', type=path_argument, required=True, metavar='FILE', help='rows there are not computed again'
    )
    args = parser.parse_args(arguments)
    return run('attention.py', lambda: measure(args))


def measure(args: argparse.Namespace) -> None:
    """Do what the CSV lacks, a job's rows being there as soon as they are known; then print the tables from it."""
    check_writable(args.csv)
    beds = beds_of(args)
    jobs = jobs_of(args, beds)
    frame = read_rows(args.csv, KEY)
    done = set(keys(frame, KEY))
    left = [job for job in jobs if not done.issuperset(job.identities())]
    trainings, rounds = ([job for job in left if bool(job.block) is kind] for kind in (True, False))
    for bed in beds:
        if any(job.bed == bed for job in trainings):
            data_of(bed)  # says now what is missing
    found = itertools.chain(in_any_order(Job.rows, trainings, args.processes), in_any_order(Job.rows, rounds, 1))
    frame = keep(frame, args.csv, found, 'jobs', len(left))
    wanted = {key for job in jobs for key in job.identities()}
    frame = frame[[key in wanted for key in keys(frame, KEY)]]
    print('\n\n'.join(report(bed, frame) for bed in beds))


if __name__ == '__main__':
    sys.exit(main())
