"""What an experiment had planned and what of it was done: NNI's own status says only that its process has ended."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from search_space.rules import one_line

from .experiment import GOING_ON, Experiment, RunningExperiment

__all__ = ['INCOMPLETE', 'Completeness', 'completeness', 'first_reason', 'status_of', 'tuner_log']

INCOMPLETE = 'INCOMPLETE'
"""The status of an experiment that NNI calls DONE, and that lacks a search, a retraining or a test."""

ONE_SHOT = (
    'strategies.AutoNL',
    'strategies.autonl.',
    'nni.nas.oneshot.',
    *(f'nni.nas.strategy.{name}' for name in ('DARTS', 'ENAS', 'GumbelDARTS', 'Proxyless', 'RandomOneShot')),
)
"""Classes whose search is a trial. By name: a class that a database names is not imported to look at it."""


STAGES = ('search', 'retrain', 'test')


class Completeness(NamedTuple):
    """Of one strategy.

    Attributes:
        strategy: its name.
        searches, retrainings, tests: how many have a result, and how many were planned; None where that is not known.
        missing: what is missing, in words; empty where nothing is.
    """

    strategy: str
    searches: tuple[int, int | None]
    retrainings: tuple[int, int | None]
    tests: tuple[int, int | None]
    missing: str

    def text(self) -> str:
        """One line, without the name."""
        parts = (('search', self.searches), ('retrainings', self.retrainings), ('tests', self.tests))
        return ', '.join(
            f'{name} {done}' if planned is None else f'{name} {done} of {planned}'
            for name, (done, planned) in parts
            if planned != 0 or done
        )


def completeness(arguments: dict[str, Any], trials: pd.DataFrame, tuner_log: str = '') -> list[Completeness]:
    """What each strategy of one experiment has done of its plan.

    A plan is a search where the strategy is a one-shot one, the retrainings that the budget allows for after it, and
    ``test_runs`` tests. A strategy may end before its budget is spent, where it has tried all that there is: fewer
    retrainings are missing only where one was given up, or the strategy failed.

    Args:
        arguments: ``classArgs`` of the tuner; what is not as it should be leaves a plan unknown.
        trials: of this experiment alone; columns are ``analysis.columns.TRIALS``.
        tuner_log: of the tuner, which says of strategies that failed.
    """
    strategies = arguments.get('strategies')
    strategies = strategies if isinstance(strategies, dict) else dict.fromkeys(trials.strategy.dropna().unique())
    rows = []
    for name, own_arguments in strategies.items():
        own = trials[trials.strategy == one_line(name, 200)]
        has_result = own.test_accuracy.notna() | ((own.stage != 'test') & own.validation_accuracy.notna())
        succeeded = ((own.status == 'SUCCEEDED') & has_result).fillna(False).astype(bool)
        asked_for = own.assign(done=succeeded).groupby(['stage', 'seed'], dropna=False).done.any()
        of_stage = {stage: asked_for[asked_for.index.get_level_values(0) == stage].astype(bool) for stage in STAGES}
        done = {stage: int(asked.sum()) for stage, asked in of_stage.items()}
        given_up = int((~of_stage['retrain']).sum())
        searches = int(_is_one_shot(own_arguments) or (own.stage == 'search').any())
        tests = arguments.get('test_runs', 1)
        tests = tests if isinstance(tests, int) else None
        retrainings = _retrainings(arguments, searches, own[succeeded & (own.stage == 'search')].epochs.sum())
        crashed = re.search(rf'strategy {re.escape(str(name))} failed; the others go on', tuner_log)
        missing = [
            'the search' * (done['search'] < searches),
            'every retraining' * (not done['retrain']),
            _some(given_up, 'retraining') * bool(done['retrain']),
            _some((tests or 0) - done['test'], 'test'),
            'what it would have tried before it failed' * bool(crashed and done['retrain']),
        ]
        rows.append(
            Completeness(
                one_line(name, 200),
                (done['search'], searches),
                (done['retrain'], retrainings),
                (done['test'], tests),
                ' and '.join(filter(None, missing)),
            )
        )
    return rows


def tuner_log(experiment: Experiment | RunningExperiment) -> str:
    """What the tuner has said; nothing where it is on another machine."""
    return experiment.log('dispatcher.log') if isinstance(experiment, Experiment) else ''


def _is_one_shot(arguments: Any) -> bool:
    path = arguments.get('class') if isinstance(arguments, dict) else None
    return isinstance(path, str) and path.startswith(ONE_SHOT)


def _some(number: int, what: str) -> str:
    return '' if number < 1 else f'a {what}' if number == 1 else f'{number} {what}s'


def _retrainings(arguments: dict[str, Any], searches: int, search_epochs: float) -> int | None:
    """How many the budget allows for after the search; None where it is in seconds, or not as it should be."""
    budget, recipe, unit = arguments.get('budget'), arguments.get('retrain'), arguments.get('budget_unit', 'epochs')
    epochs = recipe.get('epochs') if isinstance(recipe, dict) else None
    if not all(isinstance(number, int | float) and 0 < number < 1e9 for number in (budget, epochs)):
        return None
    if searches and not search_epochs:
        return None  # what it costs is not known yet
    left = {'epochs': (budget - search_epochs) / epochs, 'trials': budget - searches}.get(unit)
    return None if left is None else max(0, math.floor(left + 1e-6))


def status_of(nni: str, planned: list[Completeness]) -> str:
    """The status that is reported: NNI's while the experiment goes on; DONE only where nothing is missing."""
    if nni in GOING_ON:
        return nni
    if planned and not any(one.missing for one in planned):
        return 'DONE'
    return INCOMPLETE if nni == 'DONE' else nni


def first_reason(experiment: Experiment | RunningExperiment, trials: pd.DataFrame) -> tuple[str, Path | None]:
    """Why something is missing, by the first thing that went wrong, and the file that says more of it."""
    failed = trials[trials.failure.notna() & ~trials.status.isin(['SUCCEEDED'])]
    if len(failed):
        row = failed.iloc[0]
        folder = experiment.trial_folder(row.trial) if isinstance(experiment, Experiment) else None
        reason = f'trial {row.trial} ({row.strategy}, {row.stage}): {row.failure}'
        return reason, folder and next((f for f in (folder / 'trial.stderr', folder / 'stderr') if f.exists()), folder)
    if not isinstance(experiment, Experiment):
        return 'no trial says why; the logs are on the machine that it runs on', None
    for name in ('dispatcher.log', 'nnimanager.log', 'nnictl_stderr.log'):
        told = next((line for line in experiment.log(name).splitlines() if re.search(r'\bERROR\b|Error: ', line)), None)
        if told:
            return one_line(
                re.sub(r'^\[[^]]*\]\s*(ERROR|WARNING)?\s*', '', told), 500
            ), experiment.folder / 'log' / name
    limits = {key: experiment.profile()['params'].get(key) for key in ('maxTrialNumber', 'maxExperimentDuration')}
    limits = ' and '.join(f'{key}: {one_line(value, 50)}' for key, value in limits.items() if value is not None)
    reason = f'it was stopped, or ended by a limit of NNI ({limits})' if limits else 'it was stopped before its end'
    return reason, experiment.folder / 'log'
