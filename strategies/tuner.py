"""The tuner of the experiment: what NNI's manager starts and talks to.

NNI 3.0 gives a tuner ten seconds from its start to its first word, and imports it before that: so this module is light,
and torch, Lightning and the strategies are imported once NNI and the tuner are connected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni.tuner import Tuner

from .nni_manager import NniManager

if TYPE_CHECKING:
    from .comparison import Comparison

__all__ = ['StrategyTuner']


class StrategyTuner(Tuner):
    """To NNI's manager a tuner, to strategies of NNI what runs their models: :class:`.comparison.Comparison`.

    Args:
        manager: makes what asks and tells NNI's manager.
        arguments: the comparison's, from ``classArgs`` of ``experiment.yaml``.
    """

    def __init__(self, manager=NniManager, **arguments):
        self._arguments = {'manager': manager, **arguments}
        self._comparison: Comparison | None = None

    def update_search_space(self, search_space):
        """Raises ValueError where the arguments or the search space are not valid."""
        from search_space import nni_search_space  # before NNI's strategies, which it imports in the order they need

        from .comparison import Comparison

        if self._comparison is None:
            self._comparison = Comparison(**self._arguments)
        skeleton = self._comparison.skeleton
        if search_space != nni_search_space(skeleton.choices()):
            raise ValueError(
                f'the search space of the experiment is not that of skeleton {skeleton.name!r}; '
                f'write it again with: python -m search_space choices {self._comparison.skeleton_name}'
            )

    def generate_multiple_parameters(self, parameter_id_list, **kwargs):
        """None at once: each id is answered through ``st_callback``, as soon as a strategy has a request."""
        self._comparison.add_workers(parameter_id_list, kwargs['st_callback'])
        return []

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        self._comparison.receive_result(parameter_id, value)

    def trial_end(self, parameter_id, success, **kwargs):
        self._comparison.trial_ended(parameter_id, success)

    def import_data(self, data):
        self._comparison.import_data(data)
