"""The cost model in NNI's own filters and penalties."""

import random

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.profiler import RangeProfilerFilter, SampleProfilerPenalty
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, RandomOneShot
from torch.utils.data import TensorDataset

from search_space import LightNLSpace, load_skeleton, macs, params
from search_space.cost.nni_profiler import CostPenalty, CostProfiler


@pytest.fixture
def space():
    torch.manual_seed(0)
    return LightNLSpace(load_skeleton('cued'))


def run(strategy, space, batches=1, epochs=1):
    data = TensorDataset(torch.randn(2 * batches, 3, 16, 16), torch.arange(2 * batches) % 10)
    evaluator = Classification(
        num_classes=10,
        learning_rate=0.0,
        train_dataloaders=DataLoader(data, batch_size=2),
        val_dataloaders=DataLoader(data, batch_size=2),
        max_epochs=epochs,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy


def random_sample(skeleton, rng):
    return {label: rng.choice(candidates) for label, candidates in skeleton.choices().items()}


@pytest.mark.parametrize('count', [macs, params])
def test_a_profile_is_the_samples_cost(space, count):
    cost, rng = count(space.skeleton), random.Random(0)
    for _ in range(20):
        sample = random_sample(space.skeleton, rng)
        assert CostProfiler(space, cost).profile(sample) == cost(sample)


def test_a_profile_of_a_samples_own_space_takes_labels_of_an_evaluator_too(space):
    sample = random_sample(space.skeleton, random.Random(0))
    assert CostProfiler(space).profile({**sample, 'learning_rate': 0.1}) == macs(space.skeleton)(sample)


def test_nnis_range_filter_keeps_samples_between_its_bounds(space):
    cost, rng = macs(space.skeleton), random.Random(0)
    low, high = cost.range()
    middle = (low + high) / 2
    keep = RangeProfilerFilter(CostProfiler(space), min=low, max=middle)
    samples = [random_sample(space.skeleton, rng) for _ in range(100)]
    assert [keep(sample) for sample in samples] == [cost(sample) <= middle for sample in samples]
    assert any(map(keep, samples))
    assert not all(map(keep, samples))


def test_nnis_random_one_shot_trains_only_what_its_filter_keeps(space):
    cost = macs(space.skeleton)
    low, high = cost.range()
    profiled = []

    class Recording(CostProfiler):
        def profile(self, sample):
            profiled.append(super().profile(sample))
            return profiled[-1]

    bound = (low + high) / 2
    strategy = run(RandomOneShot(filter={'profiler': Recording(space), 'max': bound}), space, batches=8)
    assert len(profiled) > 8
    for _ in range(20):
        assert cost(strategy.oneshot_module.resample()) <= bound


def test_nnis_sample_penalty_takes_the_profiler(space):
    sample = random_sample(space.skeleton, random.Random(0))
    cost = macs(space.skeleton)(sample)
    penalty = SampleProfilerPenalty(CostProfiler(space), baseline=cost / 2, scale=3.0)
    loss, details = penalty(torch.tensor(1.0), sample)
    assert loss.item() == pytest.approx(1 + 3 * (2 - 1))
    assert details['penalty'] == cost


@pytest.mark.parametrize('strategy', [DARTS, GumbelDARTS])
@pytest.mark.slow
def test_the_penalty_drives_a_differentiable_search_to_the_cheapest_network(space, strategy):
    cost = macs(space.skeleton)
    penalty = CostPenalty(CostProfiler(space), baseline=cost.range()[0], scale=1000.0)
    searched = run(strategy(arc_learning_rate=0.1, penalty=penalty), space, epochs=30)
    found = next(searched.list_models()).sample
    assert cost(found) == cost.range()[0]


def test_the_penalty_is_the_mean_cost_of_the_supernets_probabilities(space):
    DARTS().mutate_model(space)
    penalty = CostPenalty(CostProfiler(space), baseline=1.0)
    with torch.no_grad():
        for parameter in (p for name, p in space.named_parameters() if '_arch_alpha' in name):
            parameter.zero_()
    uniform = {label: torch.full((len(c),), 1 / len(c)) for label, c in space.skeleton.choices().items()}
    expected = penalty.profile({})
    assert expected.item() == pytest.approx(macs(space.skeleton).expected(uniform).item())
    expected.backward()
    alphas = {id(p): p for name, p in space.named_parameters() if '_arch_alpha' in name}
    assert len(alphas) == len(uniform)
    assert all(alpha.grad.any() for alpha in alphas.values())
