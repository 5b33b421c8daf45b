"""The tuner of the experiment: what NNI's manager starts and talks to.

NNI 3.0 gives a tuner ten seconds from its start to its first word, and imports it before that: so this module is light,
and torch, Lightning and the strategies are imported once NNI and the tuner are connected.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from nni.tuner import Tuner

from search_space.rules import one_line
from search_space.slow_imports import slow_imports

from .experiment.arguments import argument_problems
from .experiment.end_with_manager import end_with_manager
from .experiment.nni_manager import NniManager

if TYPE_CHECKING:
    from .experiment.comparison import Comparison

__all__ = ['StrategyTuner']

_logger = logging.getLogger(__name__)


class StrategyTuner(Tuner):
    """To NNI's manager a tuner, to strategies of NNI what runs their models: :class:`.comparison.Comparison`.

    Where its start fails, as with arguments that are not valid, it says why in a line of the experiment's log and stops
    the experiment: NNI itself would keep its manager for a tuner that is not there. ``python -m trials check`` finds
    nearly all of that before.

    Args:
        manager: makes what asks and tells NNI's manager.
        arguments: the comparison's, from ``classArgs`` of ``experiment.yaml``.
    """

    def __init__(self, *, manager=NniManager, **arguments):
        if not callable(manager):  # it is one of the file's, and unknown
            manager, arguments['manager'] = NniManager, manager
        self._manager, self._arguments = manager, arguments
        self._comparison: Comparison | None = None
        end_with_manager()

    def update_search_space(self, search_space):
        """Raises ValueError where arguments or search space are not valid, and whatever else ends the start."""
        if self._comparison is not None:
            _logger.error('the search space of a running experiment stays as it is: what was tried would not fit')
            return
        try:
            problems = argument_problems(self._arguments)
            if problems:
                raise ValueError('; '.join(problems))
            with slow_imports():
                from .experiment.comparison import Comparison

            self._comparison = Comparison(**self._arguments, manager=self._manager, search_space=search_space)
        except BaseException as error:
            reason = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
            _logger.error('the experiment is stopped: %s', one_line(reason))
            threading.Thread(target=self._manager().stop_experiment, daemon=True).start()
            raise

    def generate_multiple_parameters(self, parameter_id_list, **kwargs):
        """None at once: each id is answered through ``st_callback``, as soon as a strategy has a request."""
        self._comparison.add_workers(parameter_id_list, kwargs['st_callback'])
        return []

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        self._comparison.receive_result(parameter_id, value)

    def trial_end(self, parameter_id, success, **kwargs):
        # NNI tells of ends in a thread of their own: after a resume before the comparison is made, which sent no trial.
        if self._comparison is not None:
            self._comparison.trial_ended(parameter_id, success)

    def import_data(self, data):
        self._comparison.import_data(data)
