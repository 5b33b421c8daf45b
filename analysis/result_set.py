"""Result sets: the frames of experiments, read from NNI or from the folder that they were exported to."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from search_space.csv_text import no_formula
from search_space.read_file import read_json, read_text
from search_space.rules import one_line, shown
from search_space.whole_file import check_folder, write_whole

from .columns import EXPERIMENTS, METRICS, TRAJECTORIES, TRIALS, UNREADABLE, Columns, label_type, typed
from .completeness import completeness, status_of, tuner_log
from .experiment import Experiment, RunningExperiment, find_experiment
from .published import Published
from .tables import Frames, frames

__all__ = ['ResultSet', 'read', 'read_trajectories', 'shipped']

PACKAGES = ('autonl-nni', 'nni', 'torch', 'torchvision', 'pytorch-lightning', 'numpy', 'pandas', 'scikit-learn')

DESCRIPTION = 'experiments.json'
"""The file by which the folder of a result set is known."""

_FORMAT = 2

LARGEST_TABLE = 2**28
"""Bytes of a CSV file: of a hundred thousand trials it has a quarter of it."""

_TABLES: dict[str, tuple[Columns, Any]] = {
    'trials': (TRIALS, label_type),
    'metrics': (METRICS, lambda name: 'Float64'),
    'trajectories': (TRAJECTORIES, None),
    'unreadable': (UNREADABLE, None),
}


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
        folder = check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths, rows = [], {}
        for name in _TABLES:
            frame = getattr(self, name)
            write_whole(folder / f'{name}.csv', csv_of(frame).encode())
            paths.append(folder / f'{name}.csv')
            rows[name] = len(frame)
        experiments = self.experiments.assign(
            **{name: self.experiments[name].astype(str) for name in ('started', 'ended')}
        ).to_dict('records')
        records = [{key: None if _missing(value) else value for key, value in row.items()} for row in experiments]
        description = {'format': _FORMAT, 'rows': rows, 'experiments': records}
        text = json.dumps(description, indent=1, ensure_ascii=False)
        write_whole(folder / DESCRIPTION, text.encode())  # last: with it the folder is a result set
        return [*paths, folder / DESCRIPTION]


def csv_of(frame: pd.DataFrame) -> str:
    """``frame`` as CSV, without its index; no cell is a formula to a spreadsheet."""
    texts = {name: frame[name].map(no_formula, na_action='ignore') for name in frame.columns if _is_text(frame[name])}
    return frame.assign(**texts).to_csv(index=False)


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(column) or column.dtype == object


def _missing(value) -> bool:
    return value is pd.NA or value in ('NaT', None) or (isinstance(value, float) and math.isnan(value))


def shipped(name: str = 'main-job') -> Path:
    """The folder of a result set that comes with the package, an experiment over several seeds.

    Args:
        name: ``main-job``, of ``experiment.yaml``, or ``fashion-mnist``, of ``experiments/fashion-mnist.yaml``.
    """
    return Path(__file__).parent / 'results' / name


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
    published = Published(profile, arguments)
    for table, column in ((read.trials, 'failure'), (read.unreadable, 'reason')):
        table[column] = table[column].map(published.text, na_action='ignore').astype('string')
    row = {
        'experiment': experiment.id,
        'name': one_line(profile['params'].get('experimentName') or '', 200),
        'seed': arguments.get('seed', 0),
        'skeleton': one_line(PurePath(str(arguments.get('skeleton'))).stem, 100),
        'status': status_of(experiment.status(), completeness(arguments, read.trials, tuner_log(experiment))),
        'started': read.trials.started.min(),
        'ended': read.trials.ended.max(),
        'seconds': profile.get('execDuration'),
        'configuration': published.configuration(),
        'versions': versions(),
    }
    return ResultSet(**vars(read), experiments=typed(pd.DataFrame([row]), EXPERIMENTS))


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


def _load(folder: Path) -> ResultSet:
    """A result set from its folder. A row that was damaged is noted as unreadable; one that is gone ends it.

    Raises:
        ValueError: it is not as it was written.
    """
    where = folder / DESCRIPTION
    description = read_json(where)
    if not isinstance(description, dict) or description.get('format') != _FORMAT:
        raise ValueError(f'{where}: not the description of a result set of this version; export it again')
    rows, records = description.get('rows'), description.get('experiments')
    whole = isinstance(rows, dict) and isinstance(records, list) and all(_is_experiment(one) for one in records)
    if not whole:
        raise ValueError(f'{where}: not the description of a result set; export it again')
    experiments = typed(pd.DataFrame(records), EXPERIMENTS)
    tables, damaged = {}, []
    for name, (columns, other) in _TABLES.items():
        table, lines = _table(folder / f'{name}.csv', columns, other, rows.get(name))
        tables[name] = typed(table, columns, other)
        what = [f'{name}.csv, line {line}' for line in lines]
        damaged += [{'experiment': None, 'what': one, 'reason': 'the row is damaged'} for one in what]
    if damaged:
        unreadable = _concatenated([tables['unreadable'], pd.DataFrame(damaged)])
        tables['unreadable'] = typed(unreadable, UNREADABLE)
    return ResultSet(**tables, experiments=experiments)


def _is_experiment(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get('experiment'), str)
        and isinstance(record.get('configuration'), dict)
        and isinstance(record.get('versions'), dict)
    )


def _table(path: Path, columns: Columns, other: Any, rows: Any) -> tuple[pd.DataFrame, list[int]]:
    """A table from its CSV file, and the lines in it that are no rows of it.

    Raises:
        ValueError: it is no such file, a column is missing, or rows are.
    """
    try:
        lines = list(csv.reader(io.StringIO(read_text(path, LARGEST_TABLE), newline='')))
    except (ValueError, csv.Error) as error:
        reason = one_line(error, 300)
        raise ValueError(f'{path}: it cannot be read; export the result set again ({reason})') from None
    header, lines = (lines[0], lines[1:]) if lines else ([], [])
    lacking = set(columns) - set(header)
    if lacking:
        raise ValueError(f'{path}: the column {min(lacking)} is missing; export the result set again')
    if len(lines) != rows:
        raise ValueError(f'{path}: {len(lines)} rows of {shown(rows)}: it was cut off; export the result set again')
    places = [number for number, line in enumerate(lines, 2) if len(line) == len(header)]
    table = pd.DataFrame([line for line in lines if len(line) == len(header)], columns=header, dtype=object)
    table = table.where(table != '', None)
    wrong = pd.Series(False, index=table.index)
    for name in table.columns:
        kind = columns[name][0] if name in columns else other(name) if other else 'string'
        if kind == 'string':
            table[name] = table[name].str.removeprefix("'")
        else:
            given = table[name].notna() & (table[name] != 'nan')
            wrong |= given & typed(table[[name]], {name: (kind, '')})[name].isna()
    damaged = {*range(2, len(lines) + 2)} - {*places} | {places[position] for position in np.flatnonzero(wrong)}
    return table[~wrong].reset_index(drop=True), sorted(damaged)


def read_trajectories(path: str | Path) -> pd.DataFrame:
    """The trajectories of a search outside an experiment, from the ``trajectories.csv`` that it left.

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
        raise ValueError(f'{path}: the column {min(lacking)} is missing; it is not the trajectories.csv of a search')
    return typed(table.assign(experiment=path.parent.name, trial=path.parent.name), TRAJECTORIES)
