"""The tuner of the ground truth's experiment: it has every network trained from every seed, each once.

Light imports until it is connected, see :mod:`strategies.tuner`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from nni.tuner import Tuner

from search_space.skeleton import Skeleton
from search_space.skeleton_file import load_skeleton
from strategies.experiment.arguments import restricted_skeleton
from strategies.experiment.end_with_manager import end_with_manager
from strategies.experiment.nni_manager import NniManager
from strategies.experiment.requests import TrialRequest, key
from strategies.experiment.workers import Workers

__all__ = ['GroundTruthTuner', 'trainings']

_logger = logging.getLogger(__name__)

RESULT = ('default', 'test_accuracy')
"""Numbers that every training reports."""


def trainings(name: str, space: Skeleton, seeds: int, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of all trials, seed by seed: after half of the time there is a table of half of the seeds.

    Args:
        name: of the skeleton.
        space: what is trained of it: the skeleton, or a part of it (:meth:`Skeleton.restrict`).
        seeds: trainings of each network, from the seeds 0 to ``seeds - 1``.
        recipe: of every training.
    """
    whole = load_skeleton(name)
    networks = [whole.canonical(whole.sample_of(space.fix(sample))) for sample in space.networks()]
    common = {'strategy': 'ground-truth', 'stage': 'test', 'skeleton': name, **recipe}
    return [{**common, 'seed': seed, **network} for seed in range(seeds) for network in networks]


class Queue:
    """The :class:`~strategies.experiment.workers.Work` of the tuner: each training once, in order.

    What fails is tried again at the end, when why it failed may be over.

    Args:
        trainings: their parameters.
    """

    def __init__(self, trainings: list[dict[str, Any]]):
        self._left = {key(parameters): TrialRequest('ground-truth', parameters) for parameters in trainings}

    def __len__(self) -> int:
        return len(self._left)

    def drop(self, parameters: dict[str, Any]) -> None:
        """There is a result of these parameters already."""
        self._left.pop(key(parameters), None)

    def next_request(self) -> TrialRequest | None:
        return self._left.pop(next(iter(self._left))) if self._left else None

    def put_back(self, request: TrialRequest) -> None:
        self._left[key(request.parameters)] = request

    def finish(self, request: TrialRequest, result: dict[str, Any] | None) -> None:
        """Its trial has written its result down."""

    def is_done(self) -> bool:
        return not self._left


class GroundTruthTuner(Tuner):
    """Has each of :func:`trainings` run once, and again where it fails; then the experiment is DONE.

    After ``nnictl resume`` what has a result is not trained again.

    Args:
        skeleton: name of the space's skeleton.
        seeds: trainings of each network.
        recipe: of every training; keys as in :class:`trials.parameters.TrialParameters`.
        max_attempts: how often a training is started before it is given up.
        resume_table: whether what the package's table holds of this recipe is left out.
        manager: makes what asks and tells NNI's manager.
    """

    def __init__(
        self,
        skeleton: str,
        seeds: int,
        recipe: dict[str, Any],
        max_attempts: int = 2,
        resume_table: bool = False,
        manager: Callable[[], NniManager] = NniManager,
    ):
        self._skeleton, self._seeds, self._recipe = skeleton, seeds, recipe
        self._max_attempts, self._resume_table, self._manager = max_attempts, resume_table, manager
        self._queue: Queue | None = None
        self._workers: Workers | None = None
        end_with_manager()

    def update_search_space(self, search_space):
        """Raises ValueError, and stops the experiment, where the arguments or the search space are not valid."""
        if self._queue is not None:
            _logger.error('the search space of a running experiment stays as it is')
            return
        try:
            self._check()
            space = restricted_skeleton(self._skeleton, search_space)
            every = trainings(self._skeleton, space, self._seeds, self._recipe)
            from trials.parameters import TrialParameters

            TrialParameters.from_flat(every[0])
            in_table = self._in_table() if self._resume_table else set()
            if all(key(parameters) in in_table for parameters in every):
                raise ValueError('all trainings are in the table already: without resume_table they are run again')
        except ValueError as error:
            _logger.error('%s', error)
            threading.Thread(target=self._manager().stop_experiment, daemon=True).start()
            raise
        self._queue = Queue([parameters for parameters in every if key(parameters) not in in_table])
        self._workers = Workers(self._queue, self._manager, RESULT, self._max_attempts)
        _logger.info('%d of %d trainings are to be run', len(self._queue), len(every))

    def _check(self) -> None:
        for name, value in (('seeds', self._seeds), ('max_attempts', self._max_attempts)):
            if type(value) is not int or value < 1:
                raise ValueError(f'{name} must be a whole number of at least 1, not {value!r}')
        if not isinstance(self._resume_table, bool):
            raise ValueError(f'resume_table must be true or false, not {self._resume_table!r}')
        if not isinstance(self._recipe, dict):
            raise ValueError(f'recipe must be a mapping, the recipe of every training, not {self._recipe!r}')

    def _in_table(self) -> set[str]:
        """What identifies the trainings that the package's table holds; none where it is of another recipe."""
        from .table import FILE, read_table

        if not FILE.exists():
            return set()
        recipe, frame = read_table(FILE)
        if recipe != {'skeleton': self._skeleton, **self._recipe}:
            _logger.warning('%s is of another recipe: nothing of it counts here', FILE)
            return set()
        skeleton = load_skeleton(self._skeleton)
        samples = frame[[*skeleton.choices()]].to_dict('records')
        common = {'strategy': 'ground-truth', 'stage': 'test', **recipe}
        return {
            key({**common, 'seed': seed, **skeleton.canonical(sample)})
            for seed, sample in zip(frame.seed.tolist(), samples, strict=True)
        }

    def generate_multiple_parameters(self, parameter_id_list, **kwargs):
        """None at once: each id is answered through ``st_callback``, as long as there is something to train."""
        self._workers.add(parameter_id_list, kwargs['st_callback'])
        return []

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        # Not by ``parameters``: NNI has forgotten them where they were sent through the callback, and gives ''.
        self._workers.receive_result(parameter_id, value)

    def trial_end(self, parameter_id, success, **kwargs):
        if self._workers is not None:  # as in strategies.tuner
            self._workers.trial_ended(parameter_id, success)

    def import_data(self, data):
        for parameters, result in self._workers.earlier_results(data):
            with self._workers.lock:
                running = self._workers.running(parameters)
                self._queue.drop(parameters)
            if running is not None:
                self._workers.receive_result(running, result)
        self._workers.dispatch()
