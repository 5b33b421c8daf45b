"""What a search costs, in passes over its part of the training data."""

import pytest
from nni.nas.strategy import DARTS

from strategies import AutoNL
from strategies.experiment.one_shot_trial import search_passes


@pytest.mark.parametrize(
    ('strategy', 'passes'),
    [
        (DARTS(), 10),
        (AutoNL(warmup_epochs=0), 10),
        (AutoNL(warmup_epochs=3), 7),
        (AutoNL(warmup_epochs=3, threshold_every=4), 5.5),
        (AutoNL(warmup_epochs=9, target_macs=1e6), 5),
    ],
)
def test_a_search_costs_a_pass_of_weight_steps_an_epoch_and_what_threshold_steps_come_to(strategy, passes):
    assert search_passes(strategy, 5) == passes
