"""Result sets: the frames of experiments, read from NNI or from the folder that they were exported to."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from search_space.whole_file import write_whole

from .columns import EXPERIMENTS, METRICS, TRAJECTORIES, TRIALS, UNREADABLE, Columns, label_type, typed
from .experiment import Experiment, RunningExperiment, find_experiment
from .tables import Frames, frames

__all__ = ['ResultSet', 'read', 'read_course', 'shipped']

PACKAGES = ('autonl-nni', 'nni', 'torch', 'torchvision', 'pytorch-lightning', 'numpy', 'pandas', 'scikit-learn')

DESCRIPTION = 'experiments.json'
"""The file by which the folder of a result set is known."""

_FORMAT = 1

_TABLES: dict[str, tuple[Columns, Any]] = {
    'trials': (TRIALS, label_type),
    'metrics': (METRICS, lambda name: 'Float64'),
    'trajectories': (TRAJECTORIES, None),
    'unreadable': (UNREADABLE, None),
}

_PRIVATE = (
    'experimentWorkingDirectory',
    'nniManagerIp',
    'searchSpace',
    'logLevel',
    'debug',
    'useAnnotation',
    'tunerGpuIndices',
)
"""Of a configuration: what is about the machine, or about no result."""


@dataclass(frozen=True)
class ResultSet(Frames):
    """The frames of several experiments together, each row with its ``experiment``.

    Attributes:
        experiments: a row each; columns are ``analysis.columns.EXPERIMENTS``.
    """

    experiments: pd.DataFrame

    def save(self, folder: str | Path) -> list[Path]:
        """Write the frames to ``folder``: ``experiments.json`` and a CSV file for each of the others.

        :func:`read` gives them back as they are. No file says on which machine or in which folder anything was.

        Raises:
            OSError: the folder or a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in _TABLES:
            write_whole(folder / f'{name}.csv', getattr(self, name).to_csv(index=False).encode())
            paths.append(folder / f'{name}.csv')
        experiments = self.experiments.assign(
            **{name: self.experiments[name].astype(str) for name in ('started', 'ended')}
        ).to_dict('records')
        records = [{key: None if _missing(value) else value for key, value in row.items()} for row in experiments]
        text = json.dumps({'format': _FORMAT, 'experiments': records}, indent=1, ensure_ascii=False)
        write_whole(folder / DESCRIPTION, text.encode())  # last: with it the folder is a result set
        return [*paths, folder / DESCRIPTION]


def _missing(value) -> bool:
    return value is pd.NA or value in ('NaT', None) or (isinstance(value, float) and math.isnan(value))


def shipped() -> Path:
    """The folder of the result set that comes with the package: of the main job, over several seeds."""
    return Path(__file__).parent / 'results' / 'main-job'


def read(*experiments: str | Path | Experiment | RunningExperiment) -> ResultSet:
    """The frames of experiments, one after another.

    >>> results = read(shipped())
    >>> results.trials.groupby('strategy').seconds.sum()

    Args:
        experiments: each NNI's id of one, its folder, the URL of its web UI while it runs, or the folder of a result
            set; without any, the latest one that nnictl knows.

    Raises:
        ValueError: there is no such experiment, it is empty, another tuner's or damaged, or one is there twice.
    """
    sets = [_read_one(experiment) for experiment in experiments or (None,)]
    ids = [name for one in sets for name in one.experiments.experiment]
    for name in ids:
        if ids.count(name) > 1:
            raise ValueError(f'experiment {name} is given twice')
    tables = {
        name: typed(_concatenated([getattr(one, name) for one in sets]), columns, other)
        for name, (columns, other) in _TABLES.items()
    }
    return ResultSet(**tables, experiments=typed(_concatenated([one.experiments for one in sets]), EXPERIMENTS))


def _concatenated(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _read_one(experiment) -> ResultSet:
    if isinstance(experiment, str | Path):
        if (Path(experiment) / DESCRIPTION).is_file():
            return _load(Path(experiment))
        experiment = str(experiment)
    if experiment is None or isinstance(experiment, str):
        experiment = find_experiment(experiment)
    return _read_nni(experiment)


def _read_nni(experiment: Experiment | RunningExperiment) -> ResultSet:
    profile, arguments = experiment.profile(), experiment.tuner_arguments()
    read = frames(experiment)
    if read.trials.empty:
        raise ValueError(f'experiment {experiment.id} is empty: no trial was started in it yet')
    private = _Private(profile)
    for table, column in ((read.trials, 'failure'), (read.unreadable, 'reason')):
        table[column] = table[column].map(private.without, na_action='ignore').astype('string')
    row = {
        'experiment': experiment.id,
        'name': profile['params'].get('experimentName'),
        'seed': arguments.get('seed', 0),
        'skeleton': PurePath(str(arguments.get('skeleton'))).stem,
        'status': _status(experiment, profile, read.trials),
        'started': read.trials.started.min(),
        'ended': read.trials.ended.max(),
        'seconds': profile.get('execDuration'),
        'configuration': private.configuration(),
        'versions': versions(),
    }
    return ResultSet(**vars(read), experiments=typed(pd.DataFrame([row]), EXPERIMENTS))


def _status(experiment, profile: dict, trials: pd.DataFrame) -> str:
    status = experiment.status()
    # A stopped manager cannot be asked what came before; the tuner sets the number of trials when all is done.
    wanted = profile['params'].get('maxTrialNumber')
    return 'DONE' if status == 'STOPPED' and wanted and trials.ended.notna().sum() >= wanted else status


def versions() -> dict[str, str]:
    """Python and the packages that results depend on, to their versions here."""
    import platform

    found = {'Python': platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class _Private:
    """What a profile says of the machine, and texts without it."""

    def __init__(self, profile: dict):
        self.params = profile['params']
        code = self.params.get('trialCodeDirectory')
        places = {code: '.', profile.get('logDir'): 'EXPERIMENT', str(Path.home()): '~'}
        self.places = sorted(((p, r) for p, r in places.items() if p and p != '/'), key=lambda pair: -len(pair[0]))

    def without(self, value: Any) -> Any:
        """``value`` with the code's folder as ``.``, the experiment's as ``EXPERIMENT`` and the home as ``~``."""
        if isinstance(value, dict):
            return {key: self.without(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.without(item) for item in value]
        if isinstance(value, str):
            for place, replacement in self.places:
                value = replacement if value == place else value.replace(f'{place}/', f'{replacement}/')
        return value

    def configuration(self) -> dict[str, Any]:
        """The configuration that ``nnictl create`` takes, to run the same again with the code here."""
        params = {key: value for key, value in self.params.items() if key not in _PRIVATE and value is not None}
        # Hosts, users and passwords of the machines stay here.
        params['trainingService'] = {'platform': (params.get('trainingService') or {}).get('platform', 'local')}
        params.pop('maxTrialNumber', None)  # set by the tuner when all was done
        if 'searchSpaceFile' in params:
            params.pop('searchSpace', None)  # its content
        return _relative(self.without(params))


def _relative(value: Any) -> Any:
    """``./search_space/choices/cued.json`` as people write it."""
    if isinstance(value, dict):
        return {key: _relative(item) for key, item in value.items()}
    return value.removeprefix('./') if isinstance(value, str) else value


def _load(folder: Path) -> ResultSet:
    """A result set from its folder."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text('utf-8'))
        experiments = typed(pd.DataFrame(description['experiments']), EXPERIMENTS)
        if description['format'] != _FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f'{folder / DESCRIPTION}: not the description of a result set; export it again') from None
    tables = {}
    for name, (columns, other) in _TABLES.items():
        path = folder / f'{name}.csv'
        try:
            table = pd.read_csv(
                io.StringIO(path.read_text('utf-8')), dtype=object, na_values=[''], keep_default_na=False
            )
        except (OSError, ValueError) as error:
            raise ValueError(f'{path}: it cannot be read; export the result set again ({error})') from None
        lacking = set(columns) - set(table.columns)
        if lacking:
            raise ValueError(f'{path}: the column {min(lacking)} is missing; export the result set again')
        tables[name] = typed(table, columns, other)
    return ResultSet(**tables, experiments=experiments)


def read_course(path: str | Path) -> pd.DataFrame:
    """The trajectories of a search outside an experiment, from the ``course.csv`` that it left.

    Raises:
        ValueError: it is not such a file.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: it cannot be read ({error})') from None
    lacking = {'epoch', 'label', 'index', 'norm', 'threshold', 'gate'} - set(table.columns)
    if lacking:
        raise ValueError(f'{path}: the column {min(lacking)} is missing; it is not the course.csv of a search')
    return typed(table.assign(experiment=path.parent.name, trial=path.parent.name), TRAJECTORIES)
