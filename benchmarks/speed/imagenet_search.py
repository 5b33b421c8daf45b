"""The search at ImageNet's size, in hours: ``python benchmarks/speed/imagenet_search.py --device cuda``.

Times a weight step, a threshold step and a training step of the largest network, at the largest of --batch that fits
(the others are tried down to the smallest, and each that was measured is a row). The batch is made on the device: no
image is read. From that come the hours of the search and of one retraining of an experiment's file, on one GPU and, if
a step scales without loss, on eight, beside the paper's; and the images per second that the reader must deliver.

A search makes weight steps on every image that is not held out, and after warm-up a threshold step beside each. What is
not in the hours: the selection at the end, the validation after each epoch, and reading images.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.quiet import quiet  # noqa: E402
from benchmarks.speed.search_step import LARGEST, SEARCH, THRESHOLD, WEIGHT, train  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space import load_skeleton, shipped_skeletons  # noqa: E402
from search_space.entry_point import Parser, path_argument, run  # noqa: E402
from search_space.read_file import read_text  # noqa: E402
from search_space.whole_file import check_writable, write_whole  # noqa: E402
from search_space.yaml_mapping import read_mapping  # noqa: E402
from strategies import AutoNL  # noqa: E402
from trials.datasets.image_folder import IMAGENET_VALIDATION  # noqa: E402

TRAINING_IMAGES = 1_281_167
"""ImageNet's. Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015)."""
PAPER_HOURS = 32
"""GPU hours of the paper's search."""
GOAL_HOURS = 2
PARTS = (WEIGHT, THRESHOLD, LARGEST)


@dataclass(frozen=True)
class Step:
    """What a step of one kind took.

    Attributes:
        part: one of :data:`PARTS`.
        batch: images of it.
        ms: the median.
        mebibytes: peak of the allocator; none on a CPU.
    """

    part: str
    batch: int
    ms: float
    mebibytes: float | None

    @property
    def images_per_second(self) -> float:
        return 1e3 * self.batch / self.ms


class _Notes:
    """In place of the pipe over which :class:`search_step.Meter` is asked for steps: asks for all, and notes them."""

    def __init__(self, warmup: int):
        self.left = warmup
        self.ms: dict[str, list[float]] = defaultdict(list)
        self.mebibytes: dict[str, float] = {}

    def recv(self) -> None:
        pass

    def send(self, found: tuple[dict[str, float], dict[str, float]]) -> None:
        self.left -= 1
        if self.left >= 0:
            return
        milliseconds, mebibytes = found
        for part, value in milliseconds.items():
            self.ms[part].append(value)
        for part, value in mebibytes.items():
            self.mebibytes[part] = max(self.mebibytes.get(part, 0), value)


def measure(subject: str, args: argparse.Namespace, batches: list[int]) -> list[Step]:
    """The steps of ``subject`` at the first of ``batches`` that fits.

    Raises:
        ValueError: none fits.
    """
    for batch in batches:
        notes = _Notes(args.warmup)
        try:
            train(subject, argparse.Namespace(**{**vars(args), 'batch': batch}), args.warmup + args.steps, notes)
        except torch.OutOfMemoryError:
            print(f'{subject}: a batch of {batch} does not fit', flush=True)
            torch.cuda.empty_cache()
            continue
        return [
            Step(part, batch, statistics.median(notes.ms[part]), notes.mebibytes.get(part))
            for part in PARTS
            if part in notes.ms
        ]
    raise ValueError(f'{subject}: not even a batch of {batches[-1]} fits')


@dataclass(frozen=True)
class Plan:
    """What an experiment's file asks for.

    Attributes:
        search_epochs, warmup_epochs: passes over the part that is not held out; how many of them without thresholds.
        threshold_every: weight steps to a threshold step, in the others.
        weight_images, training_images: of a pass of the search, and of a retraining's.
        retrain_epochs: passes of a retraining.
    """

    search_epochs: int
    warmup_epochs: int
    threshold_every: int
    weight_images: float
    training_images: float
    retrain_epochs: int


def read_plan(file: Path) -> Plan:
    """
    Raises:
        ValueError: it is no experiment's file with a search and a retraining.
    """
    experiment = read_mapping(read_text(file), str(file), 'an experiment is a mapping with the key tuner')
    try:
        arguments = experiment['tuner']['classArgs']
        search, retrain = arguments['search'], arguments['retrain']
        mine = next(s for s in arguments['strategies'].values() if s['class'] == f'strategies.{AutoNL.__name__}')
        images = TRAINING_IMAGES * (1 - IMAGENET_VALIDATION)
        return Plan(
            search['epochs'],
            mine['warmup_epochs'],
            mine.get('threshold_every', 1),
            images * (1 - search['held_out']),
            images,
            retrain['epochs'],
        )
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(
            f'{file}: no search and retraining of strategies.AutoNL can be read from it: {error}'
        ) from None


def search_hours(plan: Plan, steps: dict[str, Step]) -> float:
    """Hours of the search on one device."""
    seconds = plan.search_epochs / steps[WEIGHT].images_per_second
    thresholds = (plan.search_epochs - plan.warmup_epochs) / plan.threshold_every
    seconds += thresholds / steps[THRESHOLD].images_per_second
    return plan.weight_images * seconds / 3600


def retrain_hours(plan: Plan, steps: dict[str, Step]) -> float:
    """Hours of a retraining of the largest network on one device: of a found one they are fewer."""
    return plan.training_images * plan.retrain_epochs / steps[LARGEST].images_per_second / 3600


def table(found: list[Step]) -> str:
    """In Markdown."""
    lines = ['| step | batch | ms | images/s | peak GiB |', '|---|---|---|---|---|']
    for step in found:
        memory = '-' if step.mebibytes is None else f'{step.mebibytes / 1024:.2f}'
        lines.append(f'| {step.part} | {step.batch} | {step.ms:.2f} | {step.images_per_second:,.0f} | {memory} |')
    return '\n'.join(lines)


def projection(plan: Plan, steps: dict[str, Step]) -> str:
    """In Markdown: the hours, what became of the goal, and what the reader must deliver."""
    searching, training = search_hours(plan, steps), retrain_hours(plan, steps)
    both = 1 / (1 / steps[WEIGHT].images_per_second + 1 / steps[THRESHOLD].images_per_second)
    reading = max(steps[WEIGHT].images_per_second, 2 * both, steps[LARGEST].images_per_second)
    return '\n'.join(
        [
            "| hours at ImageNet's size | one device | eight, if a step scales without loss |",
            '|---|---|---|',
            f'| search | {searching:,.2f} | {searching / 8:,.2f} |',
            f"| the paper's search | {PAPER_HOURS} | {PAPER_HOURS / 8:g} |",
            f'| one retraining of the largest network | {training:,.2f} | {training / 8:,.2f} |',
            '',
            f'Search: goal under {GOAL_HOURS} hours on one H100; '
            f'{"met" if searching < GOAL_HOURS else "missed"} by {abs(searching / GOAL_HOURS - 1):.0%} on this device.',
            f'The reader must deliver up to {reading:,.0f} images/s for one device.',
        ]
    )


def write(file: Path, found: list[Step], device: str, precision: str) -> None:
    """A row a step."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['device', 'precision', 'step', 'batch', 'ms', 'images_per_second', 'peak_mib'])
    for step in found:
        memory = '' if step.mebibytes is None else f'{step.mebibytes:.1f}'
        writer.writerow(
            [device, precision, step.part, step.batch, f'{step.ms:.3f}', f'{step.images_per_second:.1f}', memory]
        )
    write_whole(file, out.getvalue().encode())


def name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device == 'cuda' else 'CPU'


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--experiment', type=Path, default=ROOT / 'experiments' / 'imagenet.yaml', metavar='FILE')
    parser.add_argument('--skeleton', default='mobile', help=f'{", ".join(shipped_skeletons())}, or a file')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument(
        '--batch', type=whole_number, nargs='+', default=[256, 128, 64], help='images of a step (default: 256 128 64)'
    )
    parser.add_argument('--steps', type=whole_number, default=20, help='timed (default: 20)')
    parser.add_argument('--warmup', type=whole_number, default=5, help='steps before them (default: 5)')
    parser.add_argument('--input-size', type=whole_number, metavar='PIXELS', help="the skeleton's by default")
    parser.add_argument('--precision', help="Lightning's (default: 32-true on cpu, bf16-mixed on cuda)")
    parser.add_argument('--csv', type=path_argument, metavar='FILE', help='the times')
    args = parser.parse_args()
    args.precision = args.precision or {'cpu': '32-true', 'cuda': 'bf16-mixed'}[args.device]
    quiet()
    warnings.filterwarnings('ignore')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda: torch sees no GPU here')
    if args.csv:
        check_writable(args.csv)
    plan = read_plan(args.experiment)
    args.input_size = args.input_size or load_skeleton(args.skeleton).input_size
    found: list[Step] = []
    for subject in (SEARCH, LARGEST):
        found += measure(subject, args, sorted(args.batch, reverse=True))
        if args.csv:
            write(args.csv, found, name_of(args.device), args.precision)
    print(
        f'{args.skeleton} at {args.input_size}×{args.input_size}, {args.precision}, on {name_of(args.device)}, '
        f'torch {torch.__version__}; medians of {args.steps} steps\n'
    )
    print(table(found))
    print()
    print(projection(plan, {step.part: step for step in found}))


if __name__ == '__main__':
    sys.exit(run('imagenet_search.py', main))
