"""The tuner of the ground truth's experiment: it has every network trained from every seed, each once.

Light imports until it is connected, see :mod:`strategies.tuner`.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from nni.tuner import Tuner

from search_space.skeleton import Skeleton, load_skeleton
from strategies.experiment.arguments import restricted_skeleton
from strategies.experiment.end_with_manager import end_with_manager
from strategies.experiment.nni_manager import NniManager
from strategies.experiment.requests import key

__all__ = ['GroundTruthTuner', 'trainings']

_logger = logging.getLogger(__name__)

GRACE_SECONDS = {True: 20.0, False: 5.0}
"""How long after a trial's end, successful or not, its result may still arrive: NNI handles the two in two threads."""


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


class GroundTruthTuner(Tuner):
    """Has each of :func:`trainings` run once, and again where it fails; then the experiment is DONE.

    A result that came before ``nnictl resume`` is not trained again. What ran then NNI starts again by itself; here it
    goes to the end of the queue, where its result will find it. What has failed is tried once more at the end of the
    queue too; so is, of two trials that started at once and got each other's parameters, the one whose end NNI takes
    for the other's, unless its result comes first.

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
        self._lock = threading.RLock()
        self._trainings: dict[str, dict] = {}  # parameters by what identifies them
        self._queue: dict[str, None] = {}  # in order
        self._sent: dict[int, str] = {}  # by NNI's id of the parameters, of this run
        self._running: dict[int, str] = {}
        self._attempts: Counter[str] = Counter()
        self._finished: set[str] = set()
        self._workers: deque[int] = deque()
        self._last_earlier_id = -1
        self._send: Callable[[int, dict], None] | None = None
        self._ended = False
        end_with_manager()

    def update_search_space(self, search_space):
        """Raises ValueError, and stops the experiment, where the arguments or the search space are not valid."""
        if self._trainings:
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
        self._trainings = {key(parameters): parameters for parameters in every}
        self._queue = dict.fromkeys(training for training in self._trainings if training not in in_table)
        _logger.info('%d of %d trainings are to be run', len(self._queue), len(self._trainings))

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
        with self._lock:
            if self._send is None:
                self._ask_of_earlier_trials()
            self._send = kwargs['st_callback']
            self._workers.extend(i for i in parameter_id_list if i > self._last_earlier_id)
        self._dispatch()
        return []

    def _ask_of_earlier_trials(self) -> None:
        try:
            resumed = [key(parameters) for parameters in self._manager().unfinished().values()]
            self._last_earlier_id = self._manager().last_earlier_id()
        except Exception:
            _logger.exception('NNI could not be asked for the trials of earlier runs: those that run are run twice')
            return
        for training in resumed:
            if training in self._queue:
                self._queue[training] = self._queue.pop(training)  # to the end

    def _dispatch(self) -> None:
        """Give waiting workers what is queued; end the experiment where nothing is left."""
        with self._lock:
            while self._workers and self._queue:
                training = next(iter(self._queue))
                worker = self._workers.popleft()
                self._sent[worker] = self._running[worker] = training
                self._attempts[training] += 1
                del self._queue[training]
                self._send(worker, self._trainings[training])
            if self._send is not None and not self._queue and not self._running and not self._ended:
                self._ended = True
                threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        try:
            self._manager().end_experiment()
            _logger.info('%d trainings are done, the experiment is done', len(self._finished))
        except Exception:
            _logger.exception('all is trained, but NNI could not be told: stop it with nnictl stop')

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        # Not by ``parameters``: NNI has forgotten them where they were sent through the callback, and gives ''.
        if _is_result(value) and parameter_id in self._sent:
            self._finish(self._sent[parameter_id])

    def import_data(self, data):
        for record in data:
            parameters, value = record['parameter'], record['value']
            parameters = json.loads(parameters) if isinstance(parameters, str) else parameters
            value = json.loads(value) if isinstance(value, str) else value
            if _is_result(value):
                self._finish(key(parameters))

    def _finish(self, training: str) -> None:
        with self._lock:
            if training not in self._trainings:
                return
            self._finished.add(training)
            self._queue.pop(training, None)
            self._running = {worker: running for worker, running in self._running.items() if running != training}
        self._dispatch()

    def trial_end(self, parameter_id, success, **kwargs):
        with self._lock:
            training = self._running.get(parameter_id)
        if training is not None:
            timer = threading.Timer(GRACE_SECONDS[bool(success)], self._failed, (parameter_id, training))
            timer.daemon = True
            timer.start()

    def _failed(self, parameter_id: int, training: str) -> None:
        """A trial has ended, and no result of its training has come."""
        with self._lock:
            if self._running.get(parameter_id) != training:
                return
            del self._running[parameter_id]
            again = self._attempts[training] < self._max_attempts
            outcome = 'it is tried again' if again else 'it is given up'
            _logger.warning('a training has failed (%s), %s: %s', self._why_failed(parameter_id), outcome, training)
            if again:
                self._queue[training] = None
        self._dispatch()

    def _why_failed(self, parameter_id: int) -> str:
        try:
            return self._manager().why_failed(parameter_id)
        except Exception as error:
            return f'its log could not be had: {error}'


def _is_result(value: Any) -> bool:
    names = ('default', 'test_accuracy')
    return isinstance(value, dict) and all(
        isinstance(value.get(name), int | float) and math.isfinite(value[name]) for name in names
    )
