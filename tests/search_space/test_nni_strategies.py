"""What every strategy of NNI must do on the first rows of skeletons; run once on each, and looked at by all tests."""

import dataclasses
import functools
import random

import nni
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import (
    DARTS,
    ENAS,
    TPE,
    GridSearch,
    GumbelDARTS,
    PolicyBasedRL,
    Random,
    RandomOneShot,
    RegularizedEvolution,
)
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from search_space import LightNLSpace, load_skeleton, params

NEEDS_TIANSHOU = ('PolicyBasedRL', 'ENAS')
MULTI_TRIAL = {
    'Random': Random,
    'RegularizedEvolution': lambda: RegularizedEvolution(population_size=2, sample_size=2),
    # Shuffled, it would build a hundred networks before it tries the first.
    'GridSearch': lambda: GridSearch(shuffle=False),
    'TPE': TPE,
    'PolicyBasedRL': lambda: PolicyBasedRL(samples_per_update=2),
}
ONE_SHOT = {
    'DARTS': DARTS,
    'GumbelDARTS': GumbelDARTS,
    'RandomOneShot': RandomOneShot,
    'ENAS': lambda: ENAS(reward_metric_name='val_acc', batches_per_update=1),
}
PATH_SAMPLING = ('RandomOneShot', 'ENAS')
SIZES = {'cued': 16, 'cifar': 24, 'mobile': 48}  # pixels; at which a 5×5 kernel sees more than a 3×3
ROWS = 8  # every kind of row is among them; what some strategies take grows with their square
TRIALS = 3


def beginning(name):
    skeleton = load_skeleton(name)
    return dataclasses.replace(skeleton, input_size=SIZES[name], rows=skeleton.rows[:ROWS])


def random_sample(skeleton, seed):
    rng = random.Random(seed)
    return {label: rng.choice(candidates) for label, candidates in skeleton.choices().items()}


def number_of_parameters(network):
    return sum(p.numel() for p in network.parameters())


def batches_of(source):
    """NNI's ENAS takes batches and where they are from; Lightning 2.6 does not say where."""
    return lambda items: (default_collate(items), source)


def evaluator(name, skeleton):
    if name in MULTI_TRIAL:
        return FunctionalEvaluator(lambda network: nni.report_final_result(-number_of_parameters(network)))
    images = torch.randn(2, 3, skeleton.input_size, skeleton.input_size)
    data = TensorDataset(images, torch.arange(2) % skeleton.classes)
    return Classification(
        num_classes=skeleton.classes,
        train_dataloaders=DataLoader(data, batch_size=2, collate_fn=batches_of('train') if name == 'ENAS' else None),
        val_dataloaders=DataLoader(data, batch_size=2, collate_fn=batches_of('val') if name == 'ENAS' else None),
        max_epochs=1,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@functools.cache
def finished(name, skeleton_name):
    """The strategy after it has run, and the skeleton that it ran on."""
    if name in NEEDS_TIANSHOU:
        pytest.importorskip('tianshou', reason='NNI imports tianshou for it')
        pytest.importorskip('gym', reason='NNI imports gym for it')
    torch.manual_seed(0)
    skeleton = beginning(skeleton_name)
    strategy = {**MULTI_TRIAL, **ONE_SHOT}[name]()
    space = RawFormatModelSpace(LightNLSpace(skeleton), evaluator(name, skeleton))
    strategy(space, SequentialExecutionEngine(max_model_count=TRIALS))
    return strategy, skeleton


@pytest.mark.parametrize('skeleton', SIZES)
@pytest.mark.parametrize('name', [*MULTI_TRIAL, *ONE_SHOT])
@pytest.mark.slow
def test_a_strategy_returns_a_network_of_the_space(name, skeleton):
    strategy, skeleton = finished(name, skeleton)
    model = next(strategy.list_models(limit=1))
    assert skeleton.check_sample(model.sample) == model.sample
    network = model.executable_model().eval()
    assert not network.simplify()
    assert number_of_parameters(network) == params(skeleton)(model.sample)
    logits = network(torch.randn(2, 3, skeleton.input_size, skeleton.input_size))
    assert logits.shape == (2, skeleton.classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize('skeleton', SIZES)
@pytest.mark.parametrize('name', MULTI_TRIAL)
def test_a_multi_trial_strategy_is_told_of_the_networks_that_it_asked_for(name, skeleton):
    strategy, skeleton = finished(name, skeleton)
    models = list(strategy.list_models())
    assert len(models) == TRIALS
    assert [model.metric for model in models] == [-params(skeleton)(model.sample) for model in models]
    assert models[0].metric == max(model.metric for model in models)


def awaken(supernet):
    """Gives every BN of the supernet random weights and statistics: LightNL's scale of 0 would hide its choices."""
    for bn in supernet.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.bias, std=0.5)
            nn.init.normal_(bn.running_mean, std=0.5)
            nn.init.uniform_(bn.running_var, 0.5, 2)
    return supernet


def architecture_parameters(supernet):
    """Label to the parameters that DARTS learns for it."""
    found = {}
    for module in supernet.modules():
        alpha = getattr(module, '_arch_alpha', None)
        if isinstance(alpha, nn.Parameter):
            found[module.label] = alpha
        elif alpha is not None:
            found.update(alpha.items())
    return found


def restrict(supernet, skeleton, sample):
    """Makes the supernet compute what it says of ``sample``: as its sampled path, or as all of the weight."""
    for module in supernet.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=sample)
    with torch.no_grad():
        for label, alpha in architecture_parameters(supernet).items():
            chosen = skeleton.choices()[label].index(sample[label])
            alpha.copy_(2000 * nn.functional.one_hot(torch.tensor(chosen), len(alpha)) - 1000)


@pytest.mark.parametrize('skeleton', SIZES)
@pytest.mark.parametrize('name', ONE_SHOT)
def test_freezing_a_supernet_gives_the_supernets_own_logits(name, skeleton):
    strategy, skeleton = finished(name, skeleton)
    torch.manual_seed(0)
    supernet = awaken(strategy.supernet).eval()
    x = torch.randn(2, 3, skeleton.input_size, skeleton.input_size)
    for seed in range(3):
        sample = random_sample(skeleton, seed)
        restrict(supernet, skeleton, sample)
        frozen = supernet.freeze(sample).eval()
        assert number_of_parameters(frozen) == params(skeleton)(sample)
        tolerance = {'rtol': 0, 'atol': 0} if name in PATH_SAMPLING else {'rtol': 1e-3, 'atol': 1e-3}
        with torch.no_grad():
            torch.testing.assert_close(supernet(x), frozen(x), **tolerance)


@pytest.mark.parametrize('skeleton', SIZES)
def test_every_choice_of_a_differentiable_supernet_has_a_gradient(skeleton):
    skeleton = beginning(skeleton)
    torch.manual_seed(0)
    supernet = awaken(DARTS().mutate_model(LightNLSpace(skeleton)))
    supernet(torch.randn(2, 3, skeleton.input_size, skeleton.input_size)).square().sum().backward()
    alphas = architecture_parameters(supernet)
    assert set(alphas) == set(skeleton.choices())
    assert not [label for label, alpha in alphas.items() if alpha.grad is None or not alpha.grad.any()]
