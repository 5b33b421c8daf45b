"""How costs grow with size: ``python benchmarks/speed/scale.py --plots plots``.

- ``search-step``: a step of AutoNL's search, a threshold step and a weight step, beside a training step of the largest
  network, with the rows, the candidates per choice, the classes and the pixels of skeletons made for it. As in
  ``search_step.py``, real Lightning steps of processes of their own, in turns.
- ``tuner``: the experiment's tuner under NNI's strategies, resumed with made-up results of finished trials, as after
  ``nnictl resume``, and then asked for more. A decision is all from a trial's result to the parameters of the next.
- ``analysis``: records as NNI writes them, read, tabulated, drawn and written as a report.

Seconds are those of the processor, so that other work on the machine changes little. Growth is the slope of the
logarithm of a cost over that of the size, between the two largest sizes: 1 is linear, 0 constant.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import multiprocessing
import queue
import resource
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import search_step  # first: it puts this package on the path, and imports NNI and Lightning in the order they need

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests'))

import matplotlib  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from records import Records  # noqa: E402

from analysis import plots, read, write_report  # noqa: E402
from analysis.tables import best_so_far, comparison, lightnl_positions, pareto_front  # noqa: E402
from benchmarks.quiet import quiet  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space import load_skeleton, nni_search_space  # noqa: E402
from search_space.entry_point import Parser, path_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.nni_nas import Strategy  # noqa: E402
from search_space.progress import progress  # noqa: E402
from search_space.whole_file import check_folder  # noqa: E402
from strategies.experiment.comparison import Comparison  # noqa: E402
from strategies.tuner import StrategyTuner  # noqa: E402

STRATEGIES = {
    'random': {'class': 'nni.nas.strategy.Random'},
    'evolution': {'class': 'nni.nas.strategy.RegularizedEvolution'},
}

MOST_GROWTH = 1.1
"""What still counts as linear: sizes are few, and times not exact."""

MIB = 2**20

Measured = tuple[str, float, dict[str, float]]
"""What grows, its size, and what that costs."""


# The search step


def skeleton(rows: int = 5, candidates: int = 2, classes: int = 10, side: int = 32, expansion: int = 4) -> dict:
    """A skeleton like ``cued`` with every kind of choice, as its YAML file has it.

    The largest candidates are the same however many there are: LightNL's channel ratio, the expansion and
    squeeze-excite have ``candidates`` of them, evenly spaced.
    """
    shares = [(i + 1) / candidates for i in range(candidates)]
    every_row = {
        'lightnl': ['absent', 'present'],
        'lightnl_ratio': [0.5 * share for share in shares],
        'lightnl_stride': [2, 1],
        'kernel': [3, 5],
        'expansion': [1 + round(expansion * share) for share in shares],
        'se': [0.5 * share for share in shares],
    }
    body = [{'channels': 32, 'stride': 2}] + [{'channels': 32}] * (rows - 1)
    outside = {'stem_channels': 32, 'stem_stride': 2, 'head_channels': 128, 'bn_momentum': 0.1}
    return {'name': 'scale', 'input_size': side, 'classes': classes, **outside, 'every_row': every_row, 'rows': body}


def search_steps(args: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    """Milliseconds and peak MiB of a search step and a training step, at every size."""
    sweeps = {
        'rows': (args.rows, lambda n: skeleton(rows=n)),
        'candidates': (args.candidates, lambda n: skeleton(candidates=n, expansion=max(args.candidates))),
        'classes': (args.classes, lambda n: skeleton(classes=n)),
        'pixels': (args.sides, lambda n: skeleton(side=n)),
    }
    options = {'device': 'cpu', 'precision': '32-true', 'batch': args.batch, 'steps': args.steps, 'warmup': 2}
    for what, (sizes, make) in sweeps.items():
        for size in sizes:
            table = make(size)
            file = folder / f'{what}-{size}.yaml'
            file.write_text(yaml.safe_dump(table))
            step = argparse.Namespace(skeleton=str(file), input_size=table['input_size'], **options)
            rounds, peak = search_step.measure(step, (search_step.LARGEST, search_step.SEARCH))
            yield (
                what,
                size**2 if what == 'pixels' else size,
                {
                    'training step, ms': statistics.median(rounds[search_step.LARGEST]),
                    'search step, ms': statistics.median(rounds[search_step.SEARCH]),
                    'cost term, ms': statistics.median(rounds[search_step.COST]),
                    'time ratio': search_step.paired(rounds[search_step.SEARCH], rounds[search_step.LARGEST])[0],
                    'training step, MiB': peak[search_step.LARGEST],
                    'search step, MiB': peak[search_step.SEARCH],
                },
            )


# The tuner


CHOICES_OF_LIGHTNL = {'lightnl': ['absent', 'present'], 'lightnl_ratio': [0.125, 0.25], 'lightnl_stride': [2, 1]}
"""Those of ``cued``; with eight rows there are 8⁸ samples."""


class Manager:
    """NNI's manager, to the tuner: it has started every trial, and none has failed."""

    def has_started(self, parameter_id: int) -> bool:
        return True

    def unfinished(self) -> dict[int, dict]:
        return {}

    def last_earlier_id(self) -> int:
        return -1

    def failed(self) -> list[dict]:
        return []


def made_up(parameters: dict) -> dict:
    """A trial's result: an accuracy that looks random, and is the same for the same parameters."""
    accuracy = zlib.crc32(json.dumps(parameters, sort_keys=True).encode()) / 2**32
    return {'default': accuracy, 'macs': 1_651_456, 'params': 65_000, 'epochs': 1, 'seconds': 1.0}


def experiment(strategy: str, table: Path, budget: int) -> dict:
    """Arguments of a comparison of one strategy, its budget in trials."""
    recipe = {'epochs': 1, 'dataset': 'cued-digits', 'batch_size': 64, 'learning_rate': 5e-3}
    own = {'strategies': {strategy: STRATEGIES[strategy]}, 'budget': budget, 'budget_unit': 'trials'}
    return {'skeleton': str(table), 'retrain': recipe, **own}


def finished_trials(strategy: str, table: Path, count: int, file: Path) -> None:
    """Writes the trials that a strategy asks for one after the other, and their results, a line of JSON each."""
    made = Comparison(**experiment(strategy, table, count), manager=Manager)
    engine = made.engines[strategy]
    engine.window = 2 if strategy == 'evolution' else None  # as the tuner sets it for one worker
    with file.open('w') as lines:

        def train() -> None:
            while (request := engine.next_request()) is not None:
                result = made_up(request.parameters)
                print(json.dumps({'parameter': request.parameters, 'value': result}), file=lines)
                engine.finish(request, result)

        engine._enqueued = train
        made._run_strategy(strategy)


def resumed_tuner(strategy: str, table: Path, file: Path, count: int, decisions: int) -> dict[str, float]:
    """What it costs to resume the tuner of an experiment with ``count`` finished trials, and to decide then."""
    Strategy.wait_for_resource = quick_wait
    memory, sent = resident_memory(), queue.SimpleQueue()
    tuner = StrategyTuner(manager=Manager, **experiment(strategy, table, count + decisions + 10))
    tuner.update_search_space(nni_search_space(load_skeleton(table).choices()))
    started = time.process_time()
    with file.open() as lines:
        tuner.import_data([json.loads(line) for line in itertools.islice(lines, count)])
    tuner.generate_multiple_parameters([0], st_callback=lambda *answer: sent.put(answer))
    parameter_id, parameters = sent.get()
    resumed = time.process_time()
    gc.collect()  # what resuming left is no part of a decision
    deciding = time.process_time()
    for next_id in range(1, decisions + 1):
        tuner.receive_trial_result(parameter_id, parameters, made_up(parameters))
        tuner.trial_end(parameter_id, True)
        tuner.generate_multiple_parameters([next_id], st_callback=lambda *answer: sent.put(answer))
        parameter_id, parameters = sent.get()
    decided = time.process_time()
    return {
        'resume, s': resumed - started,
        'decision, ms': 1e3 * (decided - deciding) / decisions,
        'memory, MiB': (resident_memory() - memory) / MIB,
    }


def quick_wait(strategy: Strategy) -> bool:
    """A strategy's ``wait_for_resource``, which looks for a free worker every millisecond and not every second."""
    while not strategy.engine.idle_worker_available():
        if not strategy.engine.budget_available():
            return False
        time.sleep(1e-3)
    return strategy.engine.budget_available()


def resident_memory() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def tuners(args: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    """Seconds to resume, milliseconds per decision and MiB of the tuner, at every number of finished trials."""
    table = folder / 'tuner.yaml'
    table.write_text(yaml.safe_dump(skeleton(rows=8) | {'every_row': CHOICES_OF_LIGHTNL}))
    for strategy in STRATEGIES:
        file = folder / f'{strategy}.jsonl'
        apart(finished_trials, strategy, table, max(args.trials), file)
        for count in args.trials:
            yield strategy, count, apart(resumed_tuner, strategy, table, file, count, args.decisions)


# The analysis


def write_records(folder: Path, count: int) -> None:
    """Records of an experiment of ``count`` trials, two epochs each: some searches, some tests, some that failed."""
    records, choices = Records(folder), load_skeleton('cued').choices()
    records.database.execute('begin')
    for number in range(count):
        trial, strategy = f't{number:06d}', ('random', 'autonl')[number % 2]
        stage = 'test' if number > 0.99 * count else 'retrain'
        sample = {label: candidates[(number >> i) % 2] for i, (label, candidates) in enumerate(choices.items())}
        accuracy = zlib.crc32(trial.encode()) / 2**32
        records.start(trial, strategy, stage, **sample)
        for epoch in (1, 2):
            records.epoch(trial, epoch, seconds=1.5 * epoch, train_loss=2.0, validation_accuracy=accuracy / 2)
        if number % 100 == 99:
            records.event(trial, 'FAILED')
            continue
        result = {'default': accuracy, 'macs': 1_600_000 + number % 90_000, 'params': 65_000, 'epochs': 2}
        records.final(trial, **result, seconds=3.0, **({'test_accuracy': accuracy} if stage == 'test' else {}))
        records.event(trial, 'SUCCEEDED')
    records.database.execute('commit')
    records.database.close()


def analysed(records: Path, out: Path) -> dict[str, float]:
    """Seconds of reading, tables, plots and the report of an experiment, and the peak memory of all that."""
    memory = resident_memory()
    taken: dict[str, float] = {}

    def timed(name: str, work: Callable):
        started = time.process_time()
        found = work()
        taken[f'{name}, s'] = time.process_time() - started
        return found

    results = timed('read', lambda: read(records))
    trials = results.trials
    timed('tables', lambda: [make(trials) for make in (comparison, best_so_far, pareto_front, lightnl_positions)])
    timed('plots', lambda: [drawn(trials, name) for name in PLOTS])
    timed('report', lambda: write_report(results, out))
    return taken | {'memory, MiB': (peak_memory() - memory) / MIB}


PLOTS = ('best_so_far', 'accuracy_against_macs', 'lightnl_positions', 'found_networks', 'timeline')


def drawn(trials: pd.DataFrame, name: str) -> None:
    figure = getattr(plots, name)(trials).figure
    figure.canvas.draw()
    plots.plt.close(figure)


def peak_memory() -> int:
    """The most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def analyses(args: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    """Seconds and MiB of the analysis, at every number of trials."""
    for count in args.records:
        records = folder / f'records-{count}'
        apart(write_records, records, count)
        yield 'trials', count, apart(analysed, records, folder / f'report-{count}')


# What is printed and drawn


PARTS = {'search-step': search_steps, 'tuner': tuners, 'analysis': analyses}


def apart(function: Callable, *arguments):
    """What ``function`` gives in a process of its own, so that nothing is left of one size at the next."""
    with multiprocessing.get_context('fork').Pool(1, _quiet) as pool:
        return pool.apply(function, arguments)


def _quiet() -> None:
    quiet('strategies')
    warnings.filterwarnings('ignore')


def growth(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """The slope of log cost over log size between the two largest sizes; NaN where there is no such thing."""
    points = sorted(zip(sizes, costs, strict=True))[-2:]
    if len(points) < 2 or points[0][0] == points[1][0] or min(cost for _, cost in points) <= 0:
        return math.nan
    (size, cost), (larger, cost_there) = points
    return math.log(cost_there / cost) / math.log(larger / size)


def table(measured: list[Measured]) -> pd.DataFrame:
    """A line per size, and below those of each thing that grows one with the growth of every cost."""
    lines = []
    for what, group in itertools.groupby(measured, key=lambda one: one[0]):
        sizes, costs = zip(*((size, costs) for _, size, costs in group), strict=True)
        lines += [{'': what, 'size': f'{size:,}', **of_size} for size, of_size in zip(sizes, costs, strict=True)]
        grown = {name: growth(sizes, [of_size[name] for of_size in costs]) for name in costs[0]}
        lines.append({'': what, 'size': 'growth', **grown})
    return pd.DataFrame(lines)


def draw(part: str, measured: list[Measured], file: Path) -> None:
    """Cost over size, both logarithmic, a panel per thing that grows or per cost; the dashed line is linear growth."""
    names = [name for name in measured[0][2] if not name.endswith('ratio')]
    panels = _panels(part, measured, names)
    with matplotlib.rc_context({'svg.hashsalt': 'autonl', 'font.family': 'DejaVu Sans'}):
        figure, axes = plots.plt.subplots(
            1, len(panels), figsize=(3.9 * len(panels), 3.4), layout='constrained', squeeze=False
        )
        for ax, (title, unit, lines) in zip(axes[0], panels, strict=True):
            for number, (name, points) in enumerate(lines.items()):
                style = {'color': plots.COLOURS[number], 'marker': plots.MARKERS[number % len(plots.MARKERS)]}
                ax.plot(*zip(*points, strict=True), **style, label=name)
            sizes = sorted({size for points in lines.values() for size, _ in points})
            highest = max((points[-1] for points in lines.values()), key=lambda point: point[1])
            ax.plot(sizes, [highest[1] * size / sizes[-1] for size in sizes], '--', color=plots.PALE, label='linear')
            ax.set(xscale='log', yscale='log', xlabel=title, ylabel=unit)
            ax.set_xticks(sizes, [f'{size:,}' for size in sizes])
            ax.minorticks_off()
            ax.yaxis.set_major_formatter('{x:g}')
            ax.grid(color=plots.GRID, linewidth=0.8)
            ax.set_axisbelow(True)
            ax.spines[['top', 'right']].set_visible(False)
            ax.legend(fontsize=8, frameon=False)
        figure.savefig(file, metadata={'Date': None})
        plots.plt.close(figure)


def _panels(part: str, measured: list[Measured], names: list[str]) -> list[tuple[str, str, dict[str, list]]]:
    """What is along a panel's sides, and name to points of its lines."""

    def line(what: str, name: str) -> list[tuple[float, float]]:
        return [(size, max(costs[name], 1e-9)) for of, size, costs in measured if of == what]

    whats = list(dict.fromkeys(what for what, _, _ in measured))
    if part == 'search-step':
        in_ms = [name for name in names if name.endswith(', ms')]
        return [(what, 'ms', {name.removesuffix(', ms'): line(what, name) for name in in_ms}) for what in whats]
    if part == 'tuner':
        return [('finished trials', name, {what: line(what, name) for what in whats}) for name in names]
    units = dict.fromkeys(name.rpartition(', ')[2] for name in names)
    return [
        ('trials', unit, {n.rpartition(', ')[0]: line('trials', n) for n in names if n.endswith(f', {unit}')})
        for unit in units
    ]


def worst(tables: dict[str, pd.DataFrame]) -> str:
    """Which costs grow worse than linear, or the one that grows fastest."""
    grown = [
        (value, f'{part}, {name} with {row[""]}')
        for part, frame in tables.items()
        for row in frame[frame['size'] == 'growth'].to_dict('records')
        for name, value in row.items()
        if isinstance(value, float) and not math.isnan(value)
    ]
    if not grown:
        return 'growth: it takes two sizes'
    over = [f'{what}: {value:.2f}' for value, what in sorted(grown, reverse=True) if value > MOST_GROWTH]
    if over:
        return f'worse than linear: {"; ".join(over)}'
    value, what = max(grown)
    return f'nothing is worse than linear; the fastest is {what}: {value:.2f}'


def _counts(parser: argparse.ArgumentParser, name: str, default: list[int], help: str) -> None:
    shown = ' '.join(map(str, default))
    parser.add_argument(name, type=whole_number, nargs='*', default=default, help=f'{help} (default: {shown})')


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--what', nargs='+', choices=PARTS, default=list(PARTS), help='all of them by default')
    parser.add_argument('--plots', type=path_argument, metavar='DIR', help='draw each as an SVG file there')
    parser.add_argument('--csv', type=path_argument, metavar='DIR', help='write each table there')
    _counts(parser, '--rows', [5, 10, 20, 40], 'rows of the skeleton; none leaves them out, as with what follows')
    _counts(parser, '--candidates', [2, 4, 8, 16], 'candidates of a choice')
    _counts(parser, '--classes', [10, 100, 1000], 'classes')
    _counts(parser, '--sides', [32, 64, 128, 256], 'sides of the square input, in pixels')
    parser.add_argument('--batch', type=whole_number, default=8, help='images of a step (default: 8)')
    parser.add_argument('--steps', type=whole_number, default=5, help='timed steps (default: 5)')
    _counts(parser, '--trials', [10, 1000, 100_000], 'finished trials that the tuner is resumed with')
    parser.add_argument('--decisions', type=whole_number, default=300, help='timed decisions (default: 300)')
    _counts(parser, '--records', [1000, 10_000, 100_000], 'trials that are analysed')
    args = parser.parse_args()
    torch.set_num_threads(1)
    matplotlib.use('agg')
    for folder in filter(None, (args.plots, args.csv)):
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {}
    for part in args.what:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            measured = list(progress(PARTS[part](args, Path(folder)), f'sizes of {part}'))
        if not measured:
            continue
        tables[part] = table(measured)
        print(f'{part}, {time.monotonic() - started:.0f} s')
        print(tables[part].to_string(index=False, float_format='{:.3g}'.format, na_rep='-'), flush=True)
        if args.plots:
            draw(part, measured, args.plots / f'{part}.svg')
        if args.csv:
            tables[part].to_csv(args.csv / f'{part}.csv', index=False)
    print(worst(tables))
    return 0


if __name__ == '__main__':
    sys.exit(run_command('scale.py', main))
