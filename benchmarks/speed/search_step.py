"""A step of AutoNL's search beside a training step and NNI's DARTS: ``python benchmarks/speed/search_step.py``.

Every subject is trained by Lightning in a process of its own, on one batch over and over; a round lets each do a step,
in a random order, so that a machine that is slower for a while makes no subject slower than another. A search step is
a threshold step and a weight step, of DARTS an architecture step and a weight step. Loading data is not in it.

Peak memory is that of tensors, weights and optimizer state included: on a GPU as the allocator counts it, on a CPU as
the profiler sees it, in a second run that is not timed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # its notices are none of the reader's; read when torch is imported
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

from benchmarks.quiet import quiet  # noqa: E402
from benchmarks.speed.paired import paired  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space import LightNLSpace, build, load_skeleton, macs, shipped_skeletons  # noqa: E402
from search_space.cost.latency import clock  # noqa: E402
from search_space.entry_point import Parser  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.nni_nas import DARTS, DataLoader, GumbelDARTS, Lightning, Trainer  # noqa: E402
from search_space.skeleton import Skeleton  # noqa: E402
from strategies import AutoNL  # noqa: E402
from trials.training.evaluator import Classifier  # noqa: E402

LARGEST, WEIGHT, THRESHOLD, SEARCH, COST = (
    'largest network',
    'AutoNL, weight step',
    'AutoNL, threshold step',
    'AutoNL, search step',
    'AutoNL, cost term',
)
# The thresholds keep still below every norm: with all gates open no part of the supernet could be left out.
STRATEGIES = {
    SEARCH: lambda: AutoNL(warmup_epochs=0, threshold_travel=1e-9),
    'NNI DARTS': DARTS,
    'NNI GumbelDARTS': GumbelDARTS,
}
SUBJECTS = (LARGEST, *STRATEGIES)
ROWS = (LARGEST, WEIGHT, THRESHOLD, SEARCH, COST, 'NNI DARTS', 'NNI GumbelDARTS')

IMAGENET_IMAGES, SEARCH_EPOCHS = 1_281_167, 8
"""ImageNet's training images, and the epochs of the paper's search."""

Parts = dict[str, float]
"""Part of a step to milliseconds, or to MiB."""


class OneBatch(Dataset):
    """One random batch, over and over, made on the device that it is for."""

    def __init__(self, skeleton: Skeleton, batch: int, input_size: int, steps: int, device: str):
        generator = torch.Generator(device).manual_seed(0)
        self.images = torch.randn(batch, 3, input_size, input_size, generator=generator, device=device)
        self.labels = torch.randint(skeleton.classes, (batch,), generator=generator, device=device)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int):
        return self.images, self.labels


class Meter(pl.Callback):
    """Lets the trainer do a step when it is told to, and tells what its parts took.

    Args:
        pipe: a word for each step comes in; the milliseconds and, on a GPU, the peak MiB of its parts go out.
        first: the part that a step begins with.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, pipe: Connection | None, first: str, device: str):
        self.pipe, self.first, self.cuda = pipe, first, device == 'cuda'
        self.read = time.thread_time if clock(device) == 'thread' else time.perf_counter

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.pipe is not None:
            self.pipe.recv()
        self.milliseconds, self.mebibytes = defaultdict(float), defaultdict(float)
        self._start(self.first)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._stop()
        if hasattr(module, 'cost'):
            self._cost_term(module)
        if self.pipe is not None:
            self.pipe.send((dict(self.milliseconds), dict(self.mebibytes)))

    def begin(self, part: str) -> None:
        """What follows is of ``part``, until the next part begins or the step ends."""
        self._stop()
        self._start(part)

    def _start(self, part: str) -> None:
        self.part, self.range = part, torch.profiler.record_function(part)
        self.range.__enter__()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.since = self.read()

    def _stop(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            self.mebibytes[self.part] = max(self.mebibytes[self.part], torch.cuda.max_memory_allocated() / 2**20)
        self.milliseconds[self.part] += 1e3 * (self.read() - self.since)
        self.range.__exit__(None, None, None)

    def _cost_term(self, module) -> None:
        """The cost term once more, on its own, with the gates' weights as leaves."""
        weights = {label: weight.detach().requires_grad_() for label, weight in module.choice_weights().items()}
        self._start(COST)
        module.objective(module.cost.expected(weights)).backward()
        self._stop()


def train(subject: str, args: argparse.Namespace, steps: int, pipe: Connection | None) -> None:
    """Trains a subject for ``steps`` steps, each when ``pipe`` says so."""
    pl.seed_everything(0, verbose=False)
    skeleton = load_skeleton(args.skeleton)
    meter = Meter(pipe, {SEARCH: WEIGHT}.get(subject, subject), args.device)
    trainer = Trainer(
        max_epochs=1,
        accelerator={'cuda': 'gpu'}.get(args.device, args.device),
        devices=1,
        precision=args.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        benchmark=args.device == 'cuda',
        callbacks=[meter],
    )
    batches = OneBatch(skeleton, args.batch, args.input_size, steps, args.device)
    loader = DataLoader(batches, batch_size=None)
    recipe = Lightning(Classifier(1e-3, 0.01, 0.0), trainer, train_dataloaders=loader, val_dataloaders=loader)
    if subject in STRATEGIES:
        strategy = STRATEGIES[subject]()
        model = strategy.mutate_model(LightNLSpace(skeleton))
        recipe = strategy.mutate_evaluator(recipe)
        if subject == SEARCH:
            mark_threshold_step(recipe.module, meter)
    else:
        model = build(skeleton, macs(skeleton).largest())
    recipe.evaluate(model.to(memory_format=torch.channels_last))


def mark_threshold_step(module, meter: Meter) -> None:
    """Has the meter tell the threshold step from the weight step."""
    step = module._threshold_step

    def marked(*arguments) -> None:
        meter.begin(THRESHOLD)
        step(*arguments)
        meter.begin(WEIGHT)

    module._threshold_step = marked


def timed(subject: str, args: argparse.Namespace, pipe: Connection) -> None:
    train(subject, args, args.warmup + args.steps, pipe)


def profiled(subject: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Sends the peak MiB of each part of the second step: in the first there is no optimizer state yet."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        train(subject, args, 2, None)
    pipe.send(peaks(profile.profiler.kineto_results.events()))


def peaks(events) -> Parts:
    """Peak MiB allocated within each part of the second of two steps, from the profiler's events."""
    allocated, timeline = 0, []
    for event in sorted((e for e in events if e.name() == '[memory]'), key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        timeline.append((event.start_ns(), allocated))
    parts = [event for event in events if event.name() in ROWS]
    middle = statistics.median(event.start_ns() for event in parts)
    found: Parts = defaultdict(float)
    for part in parts:
        start, end = part.start_ns(), part.start_ns() + part.duration_ns()
        if start >= middle:
            inside = [bytes_ for when, bytes_ in timeline if start <= when <= end]
            found[part.name()] = max([found[part.name()], *(bytes_ / 2**20 for bytes_ in inside)])
    return dict(found)


def _process(target, subject: str, args: argparse.Namespace, pipe: Connection) -> None:
    quiet()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    try:
        target(subject, args, pipe)
    except Exception as error:
        pipe.send(f'{subject}: {error}')


def processes(target, args: argparse.Namespace, subjects: Sequence[str]) -> Iterator[tuple[str, Connection]]:
    """Starts a process for every subject and yields its pipe; forked, so that imports are paid for once."""
    context = multiprocessing.get_context('fork')
    for subject in subjects:
        here, there = context.Pipe()
        context.Process(target=_process, args=(target, subject, args, there), daemon=True).start()
        there.close()
        yield subject, here


def answer(pipe: Connection):
    """What a process sends.

    Raises:
        ValueError: it sends what went wrong, or has ended.
    """
    try:
        message = pipe.recv()
    except EOFError:
        raise ValueError('a process was ended from outside; is there too little memory for this batch?') from None
    if isinstance(message, str):
        raise ValueError(message)
    return message


def measure(args: argparse.Namespace, subjects: Sequence[str] = SUBJECTS) -> tuple[dict[str, list[float]], Parts]:
    """Row to milliseconds of each round, and row to peak MiB."""
    peak: Parts = defaultdict(float)
    if args.device == 'cpu':
        for _, pipe in processes(profiled, args, subjects):  # one after the other
            peak.update(answer(pipe))
    pipes = dict(processes(timed, args, subjects))
    rounds: dict[str, list[float]] = defaultdict(list)
    draw = random.Random(0)
    for index in range(args.warmup + args.steps):
        for subject in draw.sample(subjects, len(subjects)):
            pipes[subject].send('step')
            milliseconds, mebibytes = answer(pipes[subject])
            if subject == SEARCH:
                milliseconds[SEARCH] = milliseconds[WEIGHT] + milliseconds[THRESHOLD]
            if index >= args.warmup:
                for row, value in milliseconds.items():
                    rounds[row].append(value)
                for row, value in mebibytes.items():
                    peak[row] = max(peak[row], value)
    peak[SEARCH] = max(peak[WEIGHT], peak[THRESHOLD])
    return rounds, peak


def table(rounds: dict[str, list[float]], peak: Parts) -> str:
    lines = [f'{"":24}{"ms":>10}{"ratio":>8}{"95% interval":>17}{"peak MiB":>11}{"ratio":>8}']
    for row in ROWS:
        ratio, low, high = paired(rounds[row], rounds[LARGEST])
        interval = f'{low:.3f} to {high:.3f}'
        memory = f'{peak[row]:11.1f}{peak[row] / peak[LARGEST]:8.3f}' if row != COST else ''
        lines.append(f'{row:24}{statistics.median(rounds[row]):10.2f}{ratio:8.3f}{interval:>17}{memory}')
    return '\n'.join(lines)


def goals(rounds: dict[str, list[float]], peak: Parts, args: argparse.Namespace) -> str:
    """A line per goal: what was reached, what was wanted, and by how much it was met or missed.

    GPU hours are those of weight steps on every image of ImageNet, each beside a threshold step on as many held-out
    images.
    """

    def ratio(over: str, under: str) -> float:
        return paired(rounds[over], rounds[under])[0]

    wanted = [
        ('weight step / training step, time', ratio(WEIGHT, LARGEST), 1.3),
        ('weight step / training step, peak memory', peak[WEIGHT] / peak[LARGEST], 1.3),
        ('search step / training step, time', ratio(SEARCH, LARGEST), 2.6),
        ('cost term / search step, time', ratio(COST, SEARCH), 0.02),
        ('search step / DARTS step, time', ratio(SEARCH, 'NNI DARTS'), 1 / 3),  # at least 3 times faster
        ('search step / GumbelDARTS step, time', ratio(SEARCH, 'NNI GumbelDARTS'), 1 / 3),
    ]
    if args.device == 'cuda' and args.skeleton == 'mobile':
        per_second = 1e3 * args.batch / statistics.median(rounds[SEARCH])
        hours = SEARCH_EPOCHS * IMAGENET_IMAGES / per_second / 3600
        wanted.append((f'GPU hours of {SEARCH_EPOCHS} ImageNet epochs, {per_second:,.0f} images/s', hours, 2.0))
    return '\n'.join(
        f'{what:50}{value:8.4f}   goal: at most {most:.4g}; '
        f'{"met" if value <= most else "missed"} by {abs(value / most - 1):.1%}'
        for what, value, most in wanted
    )


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument('--skeleton', default='cued', help=f'{", ".join(shipped_skeletons())}, or a file')
    parser.add_argument('--batch', type=whole_number, default=64, help='images of a step (default: 64)')
    parser.add_argument('--steps', type=whole_number, default=30, help='timed rounds (default: 30)')
    parser.add_argument('--warmup', type=whole_number, default=3, help='rounds before them (default: 3)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--input-size', type=whole_number, metavar='PIXELS', help="the skeleton's by default")
    parser.add_argument('--precision', help="Lightning's (default: 32-true on cpu, bf16-mixed on cuda)")
    args = parser.parse_args()
    args.precision = args.precision or {'cpu': '32-true', 'cuda': 'bf16-mixed'}[args.device]
    torch.set_num_threads(1)
    args.input_size = args.input_size or load_skeleton(args.skeleton).input_size
    rounds, peak = measure(args)
    print(
        f'{args.skeleton} at {args.input_size}×{args.input_size}, batch {args.batch}, {args.precision}, '
        f'on {args.device}, {args.steps} rounds, {clock(args.device)} clock; ratios are to the first line'
    )
    print(table(rounds, peak))
    print(goals(rounds, peak, args))
    return 0


if __name__ == '__main__':
    sys.exit(run_command('search_step.py', main))
