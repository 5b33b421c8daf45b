"""Training of what a table lacks: each network of a space from each seed, as trials are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.kept_rows import in_any_order
from benchmarks.quiet import quiet
from search_space.progress import progress
from search_space.skeleton_file import load_skeleton
from search_space.whole_file import check_writable
from trials.parameters import TrialParameters

from .table import FILE, RECIPE, RESULTS, read_table, write_table

__all__ = ['train']


def train(table: Path = FILE, seeds: int | None = None, processes: int = 1, recipe: Path = RECIPE) -> int:
    """Train what ``table`` lacks, seed by seed: after half of the time there is a table of half of the seeds.

    A row is in the file as soon as its training has ended.

    Args:
        table: the file, which may be there already, with all or some of the rows.
        seeds: trainings of each network, from the seeds 0, 1, ...; by default as many as the recipe's file says.
        processes: trainings at once, each of one thread.
        recipe: the file that says what is trained.

    Returns:
        The number of trainings that there were.

    Raises:
        ValueError: the recipe is not valid, or the table is of another one.
        OSError: the table cannot be written.
    """
    given = yaml.safe_load(recipe.read_text('utf-8'))
    common = {'skeleton': given['skeleton'], **given['recipe']}
    skeleton = load_skeleton(given['skeleton'])
    labels = [*skeleton.choices(), 'seed']
    check_writable(table)
    rows = _rows_of(table, common, labels)
    there = {tuple(row[label] for label in labels) for row in rows}
    wanted = [
        network | {'seed': seed}
        for seed in range(given['seeds'] if seeds is None else seeds)
        for network in map(skeleton.canonical, skeleton.networks())
    ]
    jobs = [(common, network) for network in wanted if tuple(network.values()) not in there]
    if jobs:
        _parameters(*jobs[0])  # which says what is wrong with them
    for row in progress(in_any_order(_trained, jobs, processes), 'trainings', len(jobs)):
        rows.append(row)
        write_table(table, common, rows)
    return len(jobs)


def _rows_of(table: Path, common: dict[str, Any], labels: list[str]) -> list[dict[str, Any]]:
    if not table.exists():
        return []
    known, frame = read_table(table)
    if known != common:
        raise ValueError(f'{table}: a table of another recipe is there: move it away, or name another file')
    return frame[[*labels, *RESULTS]].to_dict('records')


def _parameters(common: dict[str, Any], network: dict[str, Any]) -> TrialParameters:
    return TrialParameters.from_flat({'strategy': 'ground-truth', 'stage': 'test', **common, **network})


def _trained(job: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """A row of the table."""
    import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
    from trials.run import run_trial

    quiet()
    result, _ = run_trial(_parameters(*job), lambda metrics: None)
    return job[1] | {
        'validation_accuracy': result['default'],
        **{key: result[key] for key in ('test_accuracy', 'macs', 'params', 'seconds')},
    }
