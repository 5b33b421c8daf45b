"""BN's running statistics: right however few the steps, and of the network at hand."""

import copy
import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from search_space import build, load_skeleton
from strategies.autonl.batch_statistics import norms, statistics_of
from trials.training.evaluator import evaluator, loader
from trials.training.running_statistics import UnbiasedStatistics, estimate_statistics

SKELETON = dataclasses.replace(load_skeleton('cued'), bn_momentum=0.01)


def two_colours(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(2, (count,), generator=generator)
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return TensorDataset(pixels * 0.5 + 2 * labels[:, None, None, None], labels)


def network() -> nn.Module:
    pl.seed_everything(0, verbose=False)
    return build(SKELETON, {label: candidates[0] for label, candidates in SKELETON.choices().items()})


def train(network: nn.Module, epochs: int = 2, **recipe) -> dict[str, float]:
    training = evaluator(
        two_colours(80),
        two_colours(120),
        **{'batch_size': 8, 'learning_rate': 0.01, 'weight_decay': 0.01, 'label_smoothing': 0.0} | recipe,
        epochs=epochs,
        seed=0,
    )
    training.evaluate(network)
    return {name: float(value) for name, value in training.trainer.callback_metrics.items()}


def test_a_training_of_few_steps_is_as_good_in_evaluation_as_in_training():
    trained = network()
    metrics = train(trained)
    assert {norm.momentum for norm in norms(trained)} == {0.01}  # twenty steps: 82% of the start would be left
    assert metrics['train_accuracy'] > 0.9
    assert metrics['validation_accuracy'] > 0.9


def test_nothing_of_the_statistics_that_a_network_came_with_is_left_in_a_training():
    """They are of other images: of a network that is tuned on one's own, 90% of them would be left here."""
    given, other = network(), network()
    for norm in norms(other):
        norm.running_mean.fill_(3.0)
        norm.running_var.fill_(7.0)
    for trained in (given, other):
        train(trained, epochs=1)
    for name, value in given.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@given(st.floats(0.001, 1), st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_the_running_mean_is_one_of_the_batches_alone(momentum, values):
    class Trainer:
        class fit_loop:
            total_batch_idx = -1

    norm = nn.BatchNorm1d(1, momentum=momentum)
    holder, callback = nn.Sequential(norm), UnbiasedStatistics()
    callback.on_fit_start(Trainer, holder)
    for value in values:
        Trainer.fit_loop.total_batch_idx += 1
        callback.on_train_batch_start(Trainer, holder, None, 0)
        norm(torch.tensor([[value - 1], [value + 1]]))
    callback.on_fit_end(Trainer, holder)
    weights = [(1 - momentum) ** (len(values) - 1 - i) for i in range(len(values))]
    expected = sum(w * v for w, v in zip(weights, values)) / sum(weights)
    assert norm.running_mean.item() == pytest.approx(expected, abs=1e-3)
    assert norm.running_var.item() == pytest.approx(2, abs=1e-3)
    assert norm.momentum == momentum


def test_statistics_estimated_anew_are_the_mean_over_the_batches_and_nothing_else_changes():
    trained = network().train()
    before = copy.deepcopy(trained)
    seen = []
    first = norms(trained)[0]
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    estimate_statistics(trained, loader(two_colours(32), 8), torch.device('cpu'))
    assert len(seen) == 4
    torch.testing.assert_close(first.running_mean, torch.stack(seen).mean(0))
    own = statistics_of(trained)
    for (name, value), other in zip(trained.state_dict().items(), before.state_dict().values(), strict=True):
        assert name in own or torch.equal(value, other)
    assert [m.training for m in trained.modules()] == [m.training for m in before.modules()]
    assert {norm.momentum for norm in norms(trained)} == {0.01}
