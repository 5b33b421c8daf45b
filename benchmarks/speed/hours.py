"""The hours that an experiment will take on machines like this one: ``python benchmarks/speed/hours.py EXPERIMENT``.

Its recipes are run here, as trials run them, for a few steps on one GPU (or, where there is none, on the CPU) and one
batch over and over: a retraining of a network of the experiment's ``max_macs``, or of the largest of its space, and
each one-shot search before and after its warm-up. A device has its part of the batch where several train together. The
hours are those of all trials that the budget pays for and of the test runs.

Not in them: reading images, the exchange between devices, validation and the selection at the end of a search. What the
readers of images have to keep up with is the images per second that are printed, times the devices.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import search_space.nni_nas  # noqa: F401, E402, I001 - before Lightning: it silences a warning of NNI's
import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import Dataset, TensorDataset  # noqa: E402

from benchmarks.quiet import quiet  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space import LightNLSpace, build, macs  # noqa: E402
from search_space.entry_point import Parser, whole_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.nni_nas import DataLoader, OneShotStrategy, RawFormatModelSpace  # noqa: E402
from search_space.read_file import read_text  # noqa: E402
from search_space.rules import whole  # noqa: E402
from search_space.skeleton import Sample, Skeleton  # noqa: E402
from search_space.skeleton_file import load_skeleton  # noqa: E402
from search_space.yaml_mapping import read_mapping  # noqa: E402
from strategies.autonl.knapsack import best_within  # noqa: E402
from strategies.experiment.arguments import argument_problems  # noqa: E402
from strategies.experiment.contender import contender  # noqa: E402
from strategies.experiment.strategy_class import strategy_class  # noqa: E402
from trials.datasets.image_folder import IMAGENET_VALIDATION  # noqa: E402
from trials.parameters import TrialParameters  # noqa: E402
from trials.run import _ThisTrial, recipe_of  # noqa: E402
from trials.training.evaluator import evaluator  # noqa: E402

TRAINING_IMAGES = {'imagenet': round(1_281_167 * (1 - IMAGENET_VALIDATION))}
"""Images of the training part, where the data set's files need not be here to know."""


class OneBatch(Dataset):
    """One random batch, over and over."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, steps: int):
        self.batch, self.steps = (images, labels), steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int):
        if index >= self.steps:
            raise IndexError(index)
        return self.batch


class Enough(Exception):
    """The steps that were to be timed are done."""


class Timer(pl.Callback):
    """Seconds of a step in each of some epochs, without the first ``warmup`` steps of each; then it ends."""

    def __init__(self, warmup: int, epochs: int):
        self.warmup, self.epochs, self.seconds = warmup, epochs, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == self.warmup:
            self.since = self._now()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 == trainer.num_training_batches:
            self.seconds.append((self._now() - self.since) / (batch_idx + 1 - self.warmup))
            if len(self.seconds) == self.epochs:
                raise Enough

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def seconds_of_steps(trial: TrialParameters, args: argparse.Namespace, run: Callable, epochs: int) -> list[float]:
    """Seconds of a step of ``trial`` on one of its devices, in each of the first ``epochs`` epochs.

    Args:
        trial: its recipe is measured.
        args: how many steps are timed, and how many before them are not.
        run: given the evaluator, runs it.
        epochs: how many.
    """
    skeleton, batch = trial.space(), trial.batch_size // trial.devices
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, skeleton.input_size, skeleton.input_size, generator=generator)
    labels = torch.randint(skeleton.classes, (batch,), generator=generator)
    pl.seed_everything(0, verbose=False)
    torch.set_num_threads(trial.threads)
    timer = Timer(args.warmup, epochs)
    recipe = recipe_of(trial) | {'epochs': epochs, 'batch_size': batch, 'devices': 1, 'learning_rate_warmup': 0}
    part = TensorDataset(images, labels)
    search = trial.stage == 'search'
    made = evaluator(part, part, **recipe, classes=skeleton.classes, callbacks=[timer], shuffle_validation=search)
    steps = OneBatch(images, labels, args.warmup + args.steps)
    made.train_dataloaders = made.val_dataloaders = DataLoader(steps, batch_size=None)
    try:
        run(made)
    except Enough:
        return timer.seconds
    raise RuntimeError('the training ended before its steps were timed')


def network_within(skeleton: Skeleton, max_macs: float | None) -> Sample:
    """A network that costs what the experiment allows, or the most that its space can."""
    cost = macs(skeleton)
    most = min(max_macs or math.inf, cost.range()[1])
    indifferent = {label: dict.fromkeys(candidates, 0.0) for label, candidates in skeleton.choices().items()}
    for share in (0.99, 0.95, 0.0):
        if (sample := best_within(cost, indifferent, most, share * most)) is not None:
            return sample
    raise ValueError(f'no network has at most {most:,.0f} MACs')


def hours(arguments: dict[str, Any], devices: int, args: argparse.Namespace) -> str:
    """The table of an experiment's stages, and their sum.

    Args:
        arguments: ``classArgs`` of the experiment.
        devices: that work at once.
        args: of the command.
    """
    skeleton = load_skeleton(arguments['skeleton'])
    own = {'strategy': 'hours', 'seed': 0, 'skeleton': arguments['skeleton']}
    sample = network_within(skeleton, arguments.get('max_macs'))
    trial = TrialParameters.from_flat({**own, 'stage': 'retrain', **arguments['retrain'], **sample})
    images = args.images or TRAINING_IMAGES.get(trial.dataset)
    if images is None:
        raise ValueError(f'how many images the training part of {trial.dataset} has, --images has to say')
    # What is given to a training makes no step slower but a teacher, which would have to be there.
    trial = dataclasses.replace(trial, initial='')
    network = build(skeleton, sample).to(memory_format=torch.channels_last)
    (step,) = seconds_of_steps(trial, args, lambda made: made.evaluate(network), 1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'the CPU'
    lines = [
        f'on {device}, {args.steps} steps each; a network of {macs(skeleton)(sample):,} MACs at {skeleton.input_size} '
        f'pixels; a pass is of {images:,} images',
        f'{"":34}{"images/s":>10}{"passes":>9}{"device hours":>14}',
    ]
    per_image = step * trial.devices / trial.batch_size
    total = 0.0

    def add(what: str, passes: float, seconds: float) -> None:
        nonlocal total
        total += passes * images * seconds / 3600
        digits = 0 if seconds < 0.01 else 2
        lines.append(f'{what:34}{1 / seconds:10,.{digits}f}{passes:9.4g}{passes * images * seconds / 3600:14,.2f}')

    for name in arguments['strategies']:
        made = contender(name, arguments)
        spent = 1.0 if made.search_epochs and arguments.get('budget_unit') == 'trials' else made.search_epochs
        if made.search_epochs:
            for what, passes, seconds in search_parts(made, own, arguments['search'], args):
                add(f'{name}: search, {what}', passes, seconds)
        cost = {'epochs': trial.epochs, 'trials': 1}.get(arguments.get('budget_unit', 'epochs'))
        if cost is None:
            raise ValueError('budget_unit is seconds: the budget of each strategy is what its trials take')
        trainings = int((arguments['budget'] - spent + 0.01) // cost)
        add(f'{name}: {trainings} retrainings', trainings * trial.epochs, per_image)
        tests = arguments.get('test_runs', 1)
        add(f'{name}: {tests} test runs', tests * trial.epochs, per_image)
    lines.append(f'{total:,.2f} device hours; {total / devices:,.2f} hours with {devices} devices at work at once')
    return '\n'.join(lines)


def search_parts(made, own: dict, recipe: dict, args: argparse.Namespace):
    """What a one-shot search is made of: name, passes of images, and seconds of an image on a GPU."""
    arguments = {f'class/{name}': value for name, value in made.arguments.items()}
    trial = TrialParameters.from_flat({**own, 'stage': 'search', **recipe, 'class': made.path, **arguments})
    trial = dataclasses.replace(trial, initial='')
    cls, part = strategy_class(trial.search_class), 1 - trial.held_out
    warmup = min(getattr(cls(**trial.search_arguments), 'warmup_epochs', 0), trial.epochs)
    strategy: OneShotStrategy = cls(**trial.search_arguments | ({'warmup_epochs': 1} if warmup else {}))
    space = LightNLSpace(trial.space()).to(memory_format=torch.channels_last)
    seconds = seconds_of_steps(
        trial, args, lambda evaluator: strategy(RawFormatModelSpace(space, evaluator), _ThisTrial()), 2 if warmup else 1
    )
    per_image = [step * trial.devices / trial.batch_size for step in seconds]
    if warmup:
        yield 'warm-up', warmup * part, per_image[0]
    if trial.epochs > warmup:  # a step of both kinds
        yield 'both kinds of steps', (trial.epochs - warmup) * part, per_image[-1]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment', type=Path, help='a YAML file such as experiments/imagenet-fast.yaml')
    parser.add_argument(
        '--images', type=whole_argument(whole(1, 10**12)), help="of the training part; ImageNet's are known"
    )
    parser.add_argument('--steps', type=whole_number, default=30, help='that are timed (default: 30)')
    parser.add_argument('--warmup', type=whole_number, default=10, help='steps before them (default: 10)')
    args = parser.parse_args()
    quiet(level=logging.CRITICAL)  # NNI calls it an error that a search ends before its end
    warnings.filterwarnings('ignore')
    file = args.experiment
    config = read_mapping(read_text(file), str(file), 'an experiment is a mapping with the key tuner')
    tuner = config.get('tuner')
    arguments = tuner.get('classArgs') if isinstance(tuner, dict) else None
    for problem in argument_problems(arguments):
        raise ValueError(f'{file}: tuner.classArgs: {problem}')
    concurrency, gpus = config.get('trialConcurrency', 1), config.get('trialGpuNumber') or 1
    for name, value in (('trialConcurrency', concurrency), ('trialGpuNumber', gpus)):
        whole(1, 10_000).check(f'{file}: {name}', value)
    print(hours(arguments, concurrency * gpus, args))


if __name__ == '__main__':
    sys.exit(run_command('hours.py', main))
