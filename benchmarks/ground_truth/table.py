"""The ground truth's table: what each network of a small space comes to when it is trained from scratch."""

from __future__ import annotations

import io
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from search_space import macs
from search_space.skeleton import Sample, Skeleton
from search_space.skeleton_file import load_skeleton
from search_space.whole_file import write_whole

__all__ = ['BEST', 'FILE', 'RECIPE', 'RESULTS', 'GroundTruth', 'read_table', 'shown', 'write_table']

FILE = Path(__file__).parent / 'cued-72.csv'
"""The table that comes with the package."""

RECIPE = Path(__file__).parent / 'recipe.yaml'
"""What it is of: ``skeleton``, ``seeds``, and ``recipe`` of every training."""

BEST = 0.1
"""The fraction of the networks that count as the best."""

MET_BY = (1 / 3, 2 / 3, 9 / 10)
"""Of the networks, for each budget."""

RESULTS = ('validation_accuracy', 'test_accuracy', 'macs', 'params', 'seconds')
"""Columns of a training, after the choices and the seed."""

MAKE = 'python -m benchmarks.ground_truth train --table FILE goes on with it (an hour and a half on two cores)'


class GroundTruth:
    """Every network of a space, each trained from scratch from the same seeds.

    The file is CSV, a row per network and seed: the choices under their labels, ``seed``, then :data:`RESULTS`
    (accuracies in [0, 1], MACs, parameters, seconds of training). Its first line is ``#`` and, as JSON, what all
    trainings have in common: ``skeleton`` and recipe.

    Args:
        file: of the table.

    Raises:
        ValueError: there is no such file, it is not such a table, or trainings are missing.

    Attributes:
        recipe: of the trainings.
        skeleton: of the space; ``recipe['skeleton']`` is its name.
        networks: canonical samples; arrays below are in their order, `(networks,)`.
        seeds: of the trainings.
        validation, test: accuracies by network and seed, `(networks, seeds)`.
        accuracy: the true one: on test data, the mean over seeds.
        macs: of the networks.
        budgets: MACs that a third, two thirds and nine tenths of the networks meet, in thousands.
    """

    def __init__(self, file: str | Path = FILE):
        self.recipe, frame = read_table(file)
        self.skeleton: Skeleton = load_skeleton(self.recipe['skeleton'])
        self.networks: list[Sample] = list(self.skeleton.networks())
        self._index = {_key(sample): index for index, sample in enumerate(self.networks)}
        frame['network'] = [self.index(sample) for sample in frame[list(self.skeleton.choices())].to_dict('records')]
        self.seeds = sorted(frame.seed.unique().tolist())
        self.validation, self.test, self.seconds = (
            frame.pivot_table(index='network', columns='seed', values=column).reindex(range(len(self.networks))).values
            for column in ('validation_accuracy', 'test_accuracy', 'seconds')
        )
        missing = int(np.isnan(self.test).sum()) if len(frame) else len(self.networks)
        if missing:
            raise ValueError(f'{file}: {missing} of {self.test.size} trainings are missing: {MAKE}')
        self.accuracy = self.test.mean(1)
        self.macs = np.array([macs(self.skeleton)(sample) for sample in self.networks])
        self.budgets = [int(np.round(np.quantile(self.macs, part), -3)) for part in MET_BY]

    def index(self, sample: Sample) -> int:
        """Which of :attr:`networks` a sample is.

        Raises:
            ValueError: it is not one of the space.
        """
        return self._index[_key(self.skeleton.canonical(sample))]

    @cached_property
    def shown(self) -> list[Sample]:
        """Of each network the choices that show in it, see :func:`shown`."""
        return [shown(self.skeleton, sample) for sample in self.networks]

    def within(self, max_macs: float) -> np.ndarray:
        """Which networks have at most ``max_macs``.

        Raises:
            ValueError: none has.
        """
        within = self.macs <= max_macs
        if not within.any():
            raise ValueError(f'no network meets {max_macs:,.0f} MACs; the smallest has {self.macs.min():,}')
        return within

    def best(self, max_macs: float = math.inf) -> np.ndarray:
        """The best networks within the budget: :data:`BEST` of them, at least two, the best one first."""
        within = np.flatnonzero(self.within(max_macs))
        return within[self.accuracy[within].argsort()[::-1]][: max(2, round(BEST * len(within)))]

    def standard_error(self, networks: np.ndarray) -> float:
        """Of the accuracy of one of these networks, by the mean of their variances over seeds; NaN from one seed."""
        if len(self.seeds) < 2:
            return math.nan
        return math.sqrt(self.test[networks].var(1, ddof=1).mean() / len(self.seeds))

    def regret(self, index: int, max_macs: float) -> float:
        """The true accuracy of the best network within the budget, minus that of this one."""
        return float(self.accuracy[self.within(max_macs)].max() - self.accuracy[index])

    def top(self, index: int, max_macs: float) -> float:
        """The fraction of the networks within the budget that are better than this one: 0 is the best."""
        return float((self.accuracy[self.within(max_macs)] > self.accuracy[index]).mean())


def shown(skeleton: Skeleton, sample: Sample) -> Sample:
    """``sample`` without the labels that another candidate would not change the network by."""
    choices = skeleton.choices()

    def shows(label: str) -> bool:
        return len({tuple(skeleton.canonical({**sample, label: c}).values()) for c in choices[label]}) > 1

    return {label: candidate for label, candidate in sample.items() if shows(label)}


def read_table(file: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """What all trainings have in common, ``skeleton`` among it, and a row per training that there is.

    Args:
        file: of the table, complete or not.

    Raises:
        ValueError: there is no such file, or it is not such a table.
    """
    file = Path(file)
    try:
        text = file.read_text('utf-8')
    except FileNotFoundError:
        raise ValueError(f'{file}: there is no table there: {MAKE}') from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{file}: it cannot be read: {error}') from None
    first, _, rest = text.partition('\n')
    try:
        recipe = json.loads(first.removeprefix('#'))
        skeleton = load_skeleton(recipe['skeleton'])
        frame = pd.read_csv(io.StringIO(rest))
        known = [*skeleton.choices(), 'seed', *RESULTS]
        unknown = [column for column in known if column not in frame]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file}: not a table of benchmarks.ground_truth ({error})') from None
    if unknown:
        raise ValueError(f'{file}: not a table of benchmarks.ground_truth: it has no column {unknown[0]}')
    return recipe, frame


def write_table(file: str | Path, recipe: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write a table, sorted by seed and then as the space counts its networks.

    Args:
        file: of the table.
        recipe: what all trainings have in common, ``skeleton`` among it.
        rows: label to candidate, ``seed`` and :data:`RESULTS` of each training.

    Raises:
        OSError: it cannot be written.
    """
    skeleton = load_skeleton(recipe['skeleton'])
    order = {_key(sample): index for index, sample in enumerate(skeleton.networks())}
    rows = sorted(rows, key=lambda row: (row['seed'], order[_key({k: row[k] for k in skeleton.choices()})]))
    frame = pd.DataFrame(rows, columns=[*skeleton.choices(), 'seed', *RESULTS])
    frame = frame.round({'validation_accuracy': 6, 'test_accuracy': 6, 'seconds': 2})
    write_whole(file, f'# {json.dumps(recipe)}\n{frame.to_csv(index=False)}'.encode())


def _key(sample: Sample) -> tuple:
    return tuple(sample.values())
