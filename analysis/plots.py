"""Plots of experiments: each takes a data frame, and the axes to draw on, and gives the axes.

Every strategy has one colour and one marker in all of them. Colours are Okabe and Ito's, which colour-blind people can
tell apart; markers and hatches say the same in grey.
"""

from __future__ import annotations

import heapq

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from search_space import ABSENT

from . import tables
from .statistics import rank_correlation

__all__ = [
    'accuracy_against_macs',
    'best_so_far',
    'found_networks',
    'gate_trajectories',
    'lightnl_positions',
    'norm_and_threshold',
    'strategy_styles',
    'supernet_accuracy',
    'timeline',
]

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8c6d00')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
WELL_KNOWN = ('autonl', 'random', 'evolution', 'darts', 'gumbel', 'tpe', 'rl', 'grid')
"""Strategies by the names that our experiments give them: the n-th has the n-th colour and marker, wherever it is."""

INK, PALE, GRID = '#222222', '#767676', '#e0e0e0'
STAGE_HATCHES = {'search': '///', 'retrain': '', 'test': '||'}

MANY = 2000
"""From so many points on they are drawn as an image, also in an SVG file."""


def strategy_styles(strategies) -> dict[str, dict[str, str]]:
    """The colour and marker of each strategy, by name: those of :data:`WELL_KNOWN` first, then the others in order."""
    names = [*WELL_KNOWN, *sorted({str(name) for name in strategies if not pd.isna(name)} - set(WELL_KNOWN))]
    return {
        name: {'color': COLOURS[index % len(COLOURS)], 'marker': MARKERS[index % len(MARKERS)]}
        for index, name in enumerate(names)
    }


def best_so_far(trials: pd.DataFrame, over: str = 'epochs', ax: Axes | None = None) -> Axes:
    """The best validation accuracy that each strategy had found, against what it had spent on training.

    The line is the mean over experiments (seeds), from where each has a network; the band is from the lowest of them to
    the highest. Their number is in the legend.

    Args:
        trials: of one experiment, or of several that differ in their seed.
        over: ``epochs`` or ``seconds``, of training, the strategy's own search included.
        ax: new ones by default.
    """
    if over not in ('epochs', 'seconds'):
        raise ValueError(f"over is 'epochs' or 'seconds', not {over!r}")
    ax = _axes(ax)
    best, styles = tables.best_so_far(trials), strategy_styles(trials.strategy)
    before = best.groupby(['experiment', 'strategy']).best_accuracy.shift()
    rises = best[~(best.best_accuracy <= before).fillna(False).astype(bool)]
    grid = np.unique([*rises[over].astype(float), *best[over].astype(float).nlargest(1)])
    for strategy, own in best.groupby('strategy'):
        curves = np.stack([_steps(run, over, grid) for _, run in own.groupby('experiment')])
        mean, low, high = curves.mean(0), curves.min(0), curves.max(0)
        style, label = styles[strategy], _plain(f'{strategy} (n = {len(curves)})')
        ax.plot(grid, mean, **style, drawstyle='steps-post', markevery=_marks(mean), markersize=6, label=label)
        if len(curves) > 1:
            ax.fill_between(grid, low, high, step='post', color=style['color'], alpha=0.15, linewidth=0)
            ax.fill_between(grid, low, high, step='post', facecolor='none', edgecolor=style['color'], linewidth=0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel(f'{over} of training, search included')
    ax.set_ylabel('best validation accuracy so far')
    _percent(ax.yaxis)
    return _finish(ax, len(best))


def _steps(run: pd.DataFrame, over: str, grid: np.ndarray) -> np.ndarray:
    """The best accuracy at each point of ``grid``; NaN before the first."""
    at, best = run[over].to_numpy(float), run.best_accuracy.to_numpy(float)
    return np.r_[np.nan, best][np.searchsorted(at, grid, side='right')]


def _marks(mean: np.ndarray) -> list[int]:
    """Where a line has its markers: at its start, its end, and at most ten of its rises."""
    there = np.flatnonzero(~np.isnan(mean))
    rises = there[1:][np.diff(mean[there]) > 0]
    return sorted({*there[:1].tolist(), *rises[:: max(1, len(rises) // 10)].tolist(), *there[-1:].tolist()})


def accuracy_against_macs(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Validation accuracy of every retrained network against its MACs, and the Pareto front of all."""
    ax = _axes(ax)
    retrained = trials[trials.stage == 'retrain'].dropna(subset=['macs', 'validation_accuracy'])
    styles = strategy_styles(trials.strategy)
    for strategy, own in retrained.groupby('strategy'):
        ax.scatter(
            own.macs.astype(float),
            own.validation_accuracy.astype(float),
            **styles[strategy],
            s=42,
            alpha=0.8,
            linewidths=0,
            label=_plain(f'{strategy} (n = {len(own)})'),
            rasterized=len(own) > MANY,
        )
    front = tables.pareto_front(retrained)
    if len(front):
        ax.step(
            [*front.macs.astype(float), float(retrained.macs.max())],
            [*front.validation_accuracy.astype(float), float(front.validation_accuracy.iloc[-1])],
            where='post',
            color=INK,
            linewidth=1.2,
            linestyle='--',
            label='Pareto front',
            zorder=1,
        )
    ax.set_xlabel('MACs')
    ax.set_ylabel('validation accuracy')
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    _percent(ax.yaxis)
    return _finish(ax, len(retrained))


def lightnl_positions(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Where each strategy inserts LightNL, and in which form: position by channel ratio/stride.

    The area of a mark is the fraction of the strategy's retrained networks that have this block, which is written
    beside it. A strategy's networks are its different ones, whether it retrained them once or more often.
    """
    ax = _axes(ax)
    retrained = trials[(trials.stage == 'retrain') & trials.lightnl.notna()]
    networks = retrained.drop_duplicates(['experiment', 'strategy', *_labels(trials)])
    blocks = tables.lightnl_positions(networks)
    styles, sizes = strategy_styles(trials.strategy), networks.groupby('strategy').size()
    forms = sorted(set(zip(blocks.ratio, blocks.stride)), key=lambda form: (form[0], -form[1]))
    columns = max([tables.row_count(trials), *blocks.row.astype(int)], default=0)
    ticks, names, y = [], [], 0
    for strategy in sorted(sizes.index, reverse=True):
        own = blocks[blocks.strategy == strategy]
        share = own.groupby(['row', 'ratio', 'stride']).size() / sizes[strategy]
        ax.annotate(
            _plain(f'{strategy}\n(n = {sizes[strategy]})'),
            (1.01, y + (len(forms) - 1) / 2),
            xycoords=('axes fraction', 'data'),
            va='center',
            fontsize=9,
            color=INK,
            annotation_clip=False,
        )
        for ratio, stride in forms:
            ticks.append(y)
            names.append(f'{ratio:g}/{stride:g}')
            for row in range(1, columns + 1):
                part = share.get((row, ratio, stride), 0)
                if part:
                    ax.scatter(row, y, s=240 * part, **styles[strategy], linewidths=0)
                    ax.annotate(f'{part:.0%}', (row, y), (9, 0), textcoords='offset points', va='center', fontsize=7)
            y += 1
        ax.axhline(y - 0.5, color=PALE, linewidth=0.6)
    ax.set_yticks(ticks, names)
    ax.set_ylim(-0.5, max(y, 1) - 0.5)
    ax.set_xlim(0.5, columns + 0.9)
    ax.set_xticks(range(1, columns + 1))
    ax.set_xlabel('row of the network')
    ax.set_ylabel('channel ratio/stride')
    ax.grid(axis='x', color=GRID)
    return _finish(ax, len(blocks), legend=False, nothing='no network has LightNL')


def gate_trajectories(trajectories: pd.DataFrame, key: str = 'lightnl', ax: Axes | None = None) -> Axes:
    """How far each gate's norm is above its threshold, epoch by epoch of a search: above 0 the gate is open.

    Full marks are open gates, hollow ones closed. Until warm-up has ended thresholds are 0 and all gates are open.

    Args:
        trajectories: of one search; of several the first is drawn.
        key: of the choices: ``lightnl`` (insertion), ``lightnl_ratio``, ``lightnl_stride``, ``kernel``, ``expansion``,
            ``presence`` or ``se``.
        ax: new ones by default.
    """
    ax = _axes(ax)
    own = _one_search(trajectories)
    own = own[own.label.str.replace(r'^.*/', '', regex=True) == key]
    gates = list(own.groupby(['label', 'index']))
    colours = _ordered_colours(len(gates))
    for number, ((label, index), gate) in enumerate(gates):
        several = own.loc[own.label == label, 'index'].nunique() > 1
        name = f'{label}#{index}' if several else label
        margin, epoch = (gate.norm - gate.threshold).to_numpy(float), gate.epoch.to_numpy(float)
        marker = MARKERS[number % len(MARKERS)]
        ax.plot(epoch, margin, color=colours[number], linewidth=1.6)
        for is_open, face in ((1, colours[number]), (0, 'white')):
            at = (gate.gate == is_open).to_numpy(bool, na_value=False)
            ax.plot(epoch[at], margin[at], marker, color=colours[number], markerfacecolor=face, markersize=6)
        ax.plot([], [], marker=marker, color=colours[number], label=_plain(name))
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xlabel('epoch of the search')
    ax.set_ylabel('norm − threshold')
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(ax, len(own), nothing=f'no search reported gates of {key}')


def norm_and_threshold(trajectories: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """The norm and the threshold of one choice, epoch by epoch of a search, and where its gate was open.

    Args:
        trajectories: of one search; of several the first is drawn.
        label: of the choice, such as ``row01/lightnl``.
        ax: new ones by default.
    """
    ax = _axes(ax)
    own = _one_search(trajectories)
    own = own[own.label == label]
    for number, (index, gate) in enumerate(own.groupby('index')):
        suffix = f' of gate {index}' if own['index'].nunique() > 1 else ''
        epoch = gate.epoch.to_numpy(float)
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(epoch, gate.norm.to_numpy(float), 'o-', color=colour, label=f'norm{suffix}')
        ax.plot(epoch, gate.threshold.to_numpy(float), 's--', color=colour, markersize=4, label=f'threshold{suffix}')
        is_open = (gate.gate == 1).to_numpy(bool, na_value=False)
        edge = ax.get_xaxis_transform()
        ax.plot(epoch[is_open], np.full(is_open.sum(), 0.02 + 0.04 * number), '|', color=colour, transform=edge)
    ax.set_title(_plain(label))
    ax.set_xlabel('epoch of the search (a stroke: the gate is open)')
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(ax, len(own), nothing='no search reported this choice')


def _one_search(trajectories: pd.DataFrame) -> pd.DataFrame:
    first = trajectories.trial.iloc[:1]
    return trajectories[trajectories.trial.isin(first)]


def found_networks(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The network that each strategy ends with, side by side: a column per network, a row per row of the skeleton.

    A disc is LightNL, large for a large channel ratio, a ring at a stride above 1. A cell is dark for a large
    expansion, its text says kernel and expansion where these are searched, and an absent row is dashed.
    """
    ax = _axes(ax)
    best = _best_networks(trials)
    rows, styles = tables.row_count(trials), strategy_styles(trials.strategy)
    blocks = tables.lightnl_positions(best).set_index(['experiment', 'strategy'])
    largest = max(blocks.ratio, default=1)
    for column, network in enumerate(best.to_dict('records')):
        for row in range(1, rows + 1):
            _cell(
                ax,
                column,
                row,
                {key: network.get(f'row{row:02d}/{key}') for key in ('presence', 'kernel', 'expansion')},
            )
        own = blocks[blocks.index == (network['experiment'], network['strategy'])]
        for row, ratio, stride in zip(own['row'], own.ratio, own.stride):
            size, colour = 260 * ratio / largest, styles[network['strategy']]['color']
            ax.scatter(
                column,
                row,
                s=size,
                facecolor=colour if stride == 1 else 'white',
                edgecolor=colour,
                linewidths=2.2,
                zorder=3,
            )
            if len(best) <= 10:
                ax.annotate(f'{ratio:g}/{stride:g}', (column, row + 0.4), ha='center', va='center', fontsize=7)
    names = [f'{n["strategy"]}\nseed {n["experiment_seed"]}' for n in best.to_dict('records')]
    ax.set_xticks(range(len(best)), [_plain(name) for name in names], rotation=0 if len(best) <= 10 else 90)
    ax.tick_params(axis='x', labelsize=8 if len(best) <= 7 else 7)
    ax.set_yticks(range(1, rows + 1))
    ax.set_ylim(rows + 0.6, 0.4)
    ax.set_xlim(-0.6, max(len(best), 1) - 0.4)
    ax.set_ylabel('row of the network')
    ax.grid(False)
    return _finish(ax, len(best), legend=False, nothing='no network was retrained')


def _best_networks(trials: pd.DataFrame) -> pd.DataFrame:
    retrained = trials[(trials.stage == 'retrain') & trials.validation_accuracy.notna()]
    ordered = retrained.sort_values(['validation_accuracy', 'macs'], ascending=[False, True], kind='stable')
    best = ordered.drop_duplicates(['experiment', 'strategy'])
    return best.sort_values(['strategy', 'experiment_seed', 'experiment'], kind='stable')


_CELL_KEYS = ('presence', 'kernel', 'expansion')


def _cell(ax: Axes, column: int, row: int, chosen: dict) -> None:
    absent = _equal(chosen['presence'], ABSENT)
    expansion = None if _missing(chosen['expansion']) or absent else int(chosen['expansion'])
    shade = '#ffffff' if absent else '#eeeeee' if expansion is None or expansion <= 3 else '#c9c9c9'
    ax.add_patch(
        Rectangle(
            (column - 0.38, row - 0.46),
            0.76,
            0.92,
            facecolor=shade,
            edgecolor=PALE,
            linewidth=0.8,
            linestyle=(0, (2, 2)) if absent else '-',
        )
    )
    texts = [] if _missing(chosen['kernel']) or absent else [f'k{int(chosen["kernel"])}']
    texts += [] if expansion is None else [f'e{expansion}']
    if texts:
        ax.annotate(' '.join(texts), (column, row - 0.34), ha='center', va='center', fontsize=6, color=INK)


def supernet_accuracy(pairs: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of networks trained from scratch against what the supernet said of them, with Kendall's τ.

    Args:
        pairs: of :func:`analysis.supernet_accuracy`, or any frame with strategy, supernet_accuracy and
            retrained_accuracy.
        ax: new ones by default.
    """
    ax = _axes(ax)
    styles = strategy_styles(pairs.strategy)
    for strategy, own in pairs.groupby('strategy'):
        ax.scatter(
            own.supernet_accuracy.astype(float),
            own.retrained_accuracy.astype(float),
            **styles[strategy],
            s=48,
            label=_plain(f'{strategy} (n = {len(own)})'),
        )
    tau = rank_correlation(pairs.supernet_accuracy, pairs.retrained_accuracy)
    if np.isnan(tau.estimate):
        text = f"Kendall's τ needs two different networks or more; n = {tau.n}"
    elif np.isnan(tau.low):
        text = f"Kendall's τ = {tau.estimate:.2f}, n = {tau.n}: too few for an interval"
    else:
        text = f"Kendall's τ = {tau.estimate:.2f} [{tau.low:.2f}, {tau.high:.2f}], n = {tau.n}"
    ax.set_title(text, fontsize=9)
    ax.set_xlabel('accuracy with the weights of the supernet')
    ax.set_ylabel('accuracy trained from scratch')
    _percent(ax.xaxis)
    _percent(ax.yaxis)
    return _finish(ax, len(pairs), nothing='no network has both')


def timeline(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """When each trial of an experiment ran: a bar from its start to its end, on as many lines as ran at once.

    The colour is the strategy, the hatch the stage; a thick frame is a trial that failed or was stopped. A trial
    without an end is drawn to the last thing that is known of the experiment. Of several experiments each begins at 0.
    """
    ax = _axes(ax)
    ran = trials.dropna(subset=['started']).sort_values(['experiment', 'started'], kind='stable')
    styles = strategy_styles(trials.strategy)
    bars, ticks, offset = [], {}, 0
    for _, own in ran.groupby('experiment', sort=False):
        start = own.started.min()
        last = max(own.started.max(), own.ended.max() if own.ended.notna().any() else own.started.max())
        begins = (own.started - start).dt.total_seconds().to_numpy(float)
        ends = (own.ended.fillna(last) - start).dt.total_seconds().to_numpy(float)
        lines = _lines(begins, ends)
        ticks[offset + float(lines.max()) / 2] = f'seed {own.experiment_seed.iloc[0]}'
        bars.append(own.assign(_begin=begins, _end=ends, _line=lines + offset))
        offset += int(lines.max()) + 2
    bars = pd.concat(bars) if bars else ran.assign(_begin=0.0, _end=0.0, _line=0)
    minutes = 60.0
    bad = bars.failure.notna()
    for (strategy, stage, failed), own in bars.groupby(['strategy', 'stage', bad], dropna=False):
        known = not pd.isna(strategy)
        left, right, line = own._begin / minutes, own._end / minutes, own._line
        corners = [(left, line - 0.41), (right, line - 0.41), (right, line + 0.41), (left, line + 0.41)]
        ax.add_collection(
            PolyCollection(
                np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1),
                facecolor=styles[str(strategy)]['color'] if known else PALE,
                hatch=STAGE_HATCHES.get(stage, ''),
                edgecolor='black' if failed else 'white',
                linewidth=2.0 if failed else 0.6,
                rasterized=len(own) > MANY,
            )
        )
    ax.autoscale_view()
    handles = [
        Patch(facecolor=styles[name]['color'], label=_plain(name)) for name in sorted(bars.strategy.dropna().unique())
    ]
    handles += [
        Patch(facecolor='#bbbbbb', edgecolor='white', hatch=STAGE_HATCHES[stage], label=stage)
        for stage in STAGE_HATCHES
        if (bars.stage == stage).any()
    ]
    if bad.any():
        handles.append(Patch(facecolor='white', edgecolor='black', linewidth=2.0, label='no result'))
    ax.set_yticks(list(ticks), list(ticks.values()) if len(ticks) <= 20 else [''] * len(ticks))
    ax.tick_params(axis='y', length=0)
    ax.set_ylabel('trials at once')
    ax.set_xlabel('minutes since the start')
    ax.grid(axis='y', visible=False)
    _finish(ax, len(bars), legend=False, nothing='no trial was started')
    if handles:
        ax.legend(
            handles=handles, fontsize=8, frameon=False, ncols=len(handles), loc='lower left', bbox_to_anchor=(0, 1)
        )
    return ax


def _lines(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each trial, in the order of their starts, the lowest line that is free then."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lines = np.zeros(len(begins), dtype=int)
    for index, (begin, end) in enumerate(zip(begins, ends)):
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lines[index] = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lines[index]))
    return lines


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        ax = plt.subplots(figsize=(6.4, 4.0), layout='constrained')[1]
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
    return ax


def _finish(ax: Axes, points: int, legend: bool = True, nothing: str = 'nothing to show yet') -> Axes:
    if not points:
        ax.text(0.5, 0.5, nothing, transform=ax.transAxes, ha='center', va='center', color=PALE)
        ax.set(xticks=[], yticks=[])
    elif legend and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False)
    return ax


def _labels(trials: pd.DataFrame) -> list[str]:
    return [column for column in trials.columns if '/' in column]


def _ordered_colours(count: int) -> list:
    """Colours from the first row to the last: Okabe and Ito's for a few, else in order of lightness."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else list(colormaps['viridis'](np.linspace(0, 0.9, count)))


def _percent(axis) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def _short(value: float, _position=None) -> str:
    """1,651,456 as 1.65M."""
    for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= unit:
            return f'{value / unit:.4g}{name}'
    return f'{value:.4g}'


def _plain(text: str) -> str:
    """``text`` as it is: no mathematics between dollars, and shown in legends though it start with an underscore."""
    text = str(text).replace('$', r'\$')
    return f' {text}' if text.startswith('_') else text


def _missing(value) -> bool:
    return value is None or value is pd.NA or value != value


def _equal(value, other) -> bool:
    return not _missing(value) and value == other
