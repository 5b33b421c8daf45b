"""AutoNL: gated LightNL, and the search as NNI runs it."""

import math
from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from search_space import ABSENT, PRESENT, LightNLSpace, load_skeleton, macs, shipped_skeletons
from search_space.cost.latency import measure
from search_space.lightnl.macs import compact_channels
from search_space.lightnl.products import affinity_first, contexts
from search_space.mixed import mixed_product
from strategies import AutoNL
from strategies.autonl.batch_statistics import batches_own_statistics
from strategies.autonl.gated_lightnl import affinity_steps, nested_candidates
from trials.training.evaluator import evaluator


def images(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)
    )


def small_evaluator(epochs: int = 2, callbacks=(), count: int = 32):
    return evaluator(
        images(count),
        images(count),
        epochs=epochs,
        batch_size=8,
        learning_rate=0.01,
        weight_decay=0.01,
        label_smoothing=0.0,
        seed=0,
        shuffle_validation=True,
        callbacks=callbacks,
    )


def run_search(seed: int = 0, skeleton: str = 'cued', callbacks=(), count: int = 32, **arguments) -> AutoNL:
    pl.seed_everything(seed, verbose=False)
    strategy = AutoNL(warmup_epochs=1, **arguments)
    space = LightNLSpace(load_skeleton(skeleton))
    strategy(RawFormatModelSpace(space, small_evaluator(callbacks=callbacks, count=count)), SequentialExecutionEngine())
    return strategy


@pytest.fixture(scope='module')
def searched() -> AutoNL:
    return run_search()


def set_gates(strategy: AutoNL, generator: torch.Generator) -> None:
    for threshold in strategy.oneshot_module.thresholds().values():
        side = torch.where(torch.rand(threshold.t.shape, generator=generator) < 0.5, -1.0, 1.0)
        threshold.t.data = threshold.norm + side


@pytest.mark.parametrize(
    ('name', 'settings'),
    [('cued', 20), *(pytest.param(n, 8, marks=pytest.mark.slow) for n in shipped_skeletons() if n != 'cued')],
)
def test_any_gate_setting_exports_the_network_that_the_supernet_is(name, settings):
    strategy = run_search(skeleton=name, count=8)  # a step an epoch: norms that gates are set around
    generator = torch.Generator().manual_seed(1)
    supernet, skeleton = strategy.supernet.eval(), load_skeleton(name)
    for module in supernet.modules():  # scales that start at 0 would hide what LightNL does, shifts what is left behind
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.2, 0.6, generator=generator)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    x, cost, seen = images(4).tensors[0], macs(skeleton), set()
    for _ in range(settings):
        set_gates(strategy, generator)
        with torch.no_grad():
            logits = supernet(x)
        assert logits.isfinite().all()
        sample = skeleton.check_sample(strategy.oneshot_module.export())
        network = strategy.supernet.freeze(sample).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(x), logits, rtol=1e-4, atol=1e-4)
        assert cost.expected(strategy.oneshot_module.choice_weights()).item() == cost(sample)
        seen.add(str(skeleton.canonical(sample)))
    assert len(seen) > 0.6 * settings


def test_with_every_insertion_gate_closed_lightnl_is_exactly_the_identity(searched):
    x = torch.randn(2, 16, 9, 7)
    for module in searched.oneshot_module.supernet_modules():
        if hasattr(module, 'threshold'):
            module.threshold.t.data.fill_(1e6)
            channels = module[PRESENT].conv.in_channels
            features = x.repeat(1, 3, 1, 1)[:, :channels]
            assert torch.equal(module.eval()(features), features)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('ratio', [0.125, 0.25, 0.5])
def test_the_nested_product_is_the_direct_one_of_every_ratio_and_stride(ratio, stride):
    x = torch.randn(2, 16, 7, 9, dtype=torch.float64)
    ratios = {r: float(r == ratio) for r in (0.125, 0.25, 0.5)}
    strides = {s: float(s == stride) for s in (2, 1)}
    y = mixed_product(x, ratios, strides)
    torch.testing.assert_close(y, affinity_first(x, ratio, stride))


def affinity(x: torch.Tensor, k: int, stride: int) -> torch.Tensor:
    x_sc = x[:, :k, ::stride, ::stride].flatten(2)
    return torch.bmm(x[:, :k].flatten(2).transpose(1, 2), x_sc)


def test_the_norms_of_affinity_steps_are_those_of_the_affinities_themselves():
    x = torch.randn(3, 16, 7, 5, dtype=torch.float64)
    ratios, strides = [0.125, 0.25, 0.5], [4, 2, 1]
    k = [compact_channels(16, ratio) for ratio in ratios]
    _, by_stride = contexts(x, 0.5, strides)
    wider, finer = affinity_steps(by_stride, by_stride[1][:, :, : k[-1]], k, strides)

    def squared(a: torch.Tensor) -> torch.Tensor:
        return a.square().sum((1, 2)).mean()

    whole = squared(affinity(x, k[-1], 1))
    for step, (i, j) in enumerate(pairwise(k)):
        delta = affinity(x, j, 1) - affinity(x, i, 1)
        torch.testing.assert_close(wider[step], squared(delta) / whole)
    sums = [squared(affinity(x, k[-1], stride)) for stride in strides]  # new positions are new columns: norms add
    for step, (a, b) in enumerate(pairwise(sums)):
        torch.testing.assert_close(finer[step], (b - a) / whole)


def test_strides_that_are_not_nested_are_refused():
    with pytest.raises(ValueError, match='strides 2 and 3 are not nested'):
        nested_candidates('stride', [2, 3])


def test_thresholds_and_weights_have_an_optimizer_each():
    optimizers = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer, module):
            weights, thresholds = ({id(p) for g in o.param_groups for p in g['params']} for o in trainer.optimizers)
            optimizers.update(weights=weights, thresholds=thresholds, arch={id(p) for p in module.arch_parameters()})
            optimizers['all'] = {id(p) for p in module.parameters()}

    run_search(callbacks=[Look()])
    assert optimizers['thresholds'] == optimizers['arch']
    assert optimizers['weights'] == optimizers['all'] - optimizers['arch']


def test_the_same_seed_gives_the_same_trajectory_and_another_seed_another():
    def trajectory(seed):
        records = []

        class Record(pl.Callback):
            def on_train_epoch_end(self, trainer, module):
                records.append({name: float(value) for name, value in trainer.callback_metrics.items()})

        strategy = run_search(seed, callbacks=[Record()])
        return records, [t.t.tolist() for t in strategy.oneshot_module.thresholds().values()]

    first = trajectory(0)
    assert first == trajectory(0)
    assert first != trajectory(1)


@pytest.mark.parametrize(('share', 'budget'), [(0.0, True), (0.5, True), (1.0, True), (1.0, False)])
def test_under_a_budget_weight_steps_draw_candidates_of_all_choices_but_presence(share, budget):
    candidates, steps = load_skeleton('fashion-mnist').choices(), []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            own, taken = module.export(), module.choice_weights()
            assert taken.keys() == candidates.keys()
            other = {label for label in taken if not taken[label][candidates[label].index(own[label])]}
            steps.append((trainer.current_epoch, other))

    arguments = {'target_macs': 1e7} if budget else {}
    run_search(skeleton='fashion-mnist', callbacks=[Look()], drawn_share=share, **arguments)
    expected = share if budget else 0.0
    for epoch, kept in ((0, ('/presence', '/lightnl')), (1, ('/presence',))):  # the first is of warm-up
        drawable = [label for label in candidates if not label.endswith(kept)]
        first, *others = [other for e, other in steps if e == epoch]
        assert not first  # one step in five draws nothing
        assert set().union(*others) <= set(drawable)
        drawn = sum(map(len, others)) / (len(others) * len(drawable))
        assert expected / 4 <= drawn <= expected  # a draw may be what the gates say
        insertion = [label for other in others for label in other if label.endswith('/lightnl')]
        assert bool(insertion) == (expected > 0 and epoch == 1)


def test_a_heavy_cost_closes_every_insertion_gate():
    strategy = run_search(cost_weight=1e4, threshold_travel=20.0, margin=0.1)
    sample = strategy.oneshot_module.export()
    assert {value for label, value in sample.items() if label.endswith('/lightnl')} == {ABSENT}


def test_warm_up_leaves_thresholds_and_gates_alone():
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            thresholds = module.thresholds().values()
            moved = any(threshold.active or threshold.t.ne(0).any() for threshold in thresholds)
            seen.append((trainer.current_epoch, moved))

    run_search(callbacks=[Look()])
    assert seen == [(0, False)] * 4 + [(1, True)] * 4


def test_it_runs_in_an_experiment_of_nni(tmp_path):
    pl.seed_everything(0, verbose=False)
    space = LightNLSpace(load_skeleton('cued'))
    experiment = NasExperiment(space, small_evaluator(), AutoNL(warmup_epochs=1))
    experiment.config.experiment_working_directory = tmp_path
    experiment.run(port=None)
    (sample,) = experiment.export_top_models(formatter='dict')
    experiment.stop()
    space.skeleton.check_sample(sample)


@pytest.mark.parametrize(('share', 'least_fill'), [(0.0, 0.0), (0.4, 0.0), (0.4, 0.95), (1.0, 0.95)])
def test_a_budget_is_met_and_the_supernet_is_that_network(share, least_fill):
    skeleton = load_skeleton('cued')
    low, high = macs(skeleton).range()
    budget = low + share * (high - low)
    strategy = run_search(target_macs=budget, least_fill=least_fill)
    sample = strategy.oneshot_module.export()
    assert least_fill * budget <= macs(skeleton)(sample) <= budget
    (network,) = strategy.list_models()
    x = images(4).tensors[0]
    with torch.no_grad():
        torch.testing.assert_close(network.executable_model().eval()(x), strategy.supernet.eval()(x))


@pytest.mark.slow
def test_several_budgets_give_a_network_each_from_one_supernet_the_largest_first():
    skeleton = load_skeleton('cued')
    budgets = [1.62e6, 1.75e6, 1.69e6]
    strategy = run_search(target_macs=budgets)
    module = strategy.oneshot_module
    assert module.export() == module.selected[1]
    for budget, sample in zip(budgets, module.selected, strict=True):
        assert macs(skeleton)(sample) <= budget
    models = list(strategy.list_models(limit=None))
    assert [model.sample for model in models] == [module.selected[index] for index in (1, 2, 0)]
    assert len(list(strategy.list_models())) == 1


def test_a_budget_may_be_a_latency():
    skeleton = load_skeleton('cued')
    cost = (table := measure(skeleton, runs=1)).cost(skeleton)
    middle = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    middle |= {'row01/lightnl': ABSENT, 'row04/lightnl': ABSENT}
    budget = 1.01 * cost(middle)  # of which the space holds a network, whatever was measured
    strategy = run_search(latency=table, target_ms=budget)
    assert cost(strategy.oneshot_module.export()) <= budget


def test_measuring_leaves_no_trace_in_the_supernet(searched):
    module = searched.oneshot_module.training_module.train()
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    norms[0].eval()
    x = images(8).tensors[0]

    def state():
        flags = [(m.training, getattr(m, 'momentum', None)) for m in module.modules()]
        buffers = {k: v for k, v in module.named_buffers() if not k.endswith('num_batches_tracked')}
        values = {k: v.detach().clone() for k, v in (*buffers.items(), *module.named_parameters())}
        return flags, values

    flags, values = state()
    with batches_own_statistics(module):
        assert not module.training
        once = module(x)
        assert torch.equal(module(x), once)
    after_flags, after_values = state()
    assert after_flags == flags
    assert all(torch.equal(value, after_values[name]) for name, value in values.items())


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (
            {'target_macs': 1e6},
            'no network of the space meets a budget of 1,000,000 MACs: the smallest costs 1,598,208',
        ),
        ({'target_macs': [1.7e6, 1e6]}, 'meets a budget of 1,000,000 MACs'),
        ({'target_macs': -1}, 'target_macs must be a number above 0, or several, not -1'),
        ({'target_macs': [1.7e6, 'many']}, 'target_macs must be a number above 0'),
        ({'target_macs': []}, 'target_macs must be a number above 0, or several'),
        ({'target_ms': 3.0}, 'target_ms needs latency'),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_before_anything_is_trained(arguments, line):
    with pytest.raises(ValueError, match=line):
        AutoNL(**arguments).mutate_model(LightNLSpace(load_skeleton('cued')))


def test_a_supernet_is_refused():
    supernet = AutoNL().mutate_model(LightNLSpace(load_skeleton('cued')))
    with pytest.raises(ValueError, match='a supernet already'):
        AutoNL().mutate_model(supernet)


def test_a_label_on_two_choices_is_refused():
    space = LightNLSpace(load_skeleton('cued'))
    space.rows[1] = LightNLSpace(load_skeleton('cued')).rows[2]
    with pytest.raises(ValueError, match="the label 'row03/lightnl' is on 2 choices"):
        AutoNL().mutate_model(space)


def test_a_space_without_a_cost_is_refused():
    class Costless(LightNLSpace):
        cost = property()

    with pytest.raises(ValueError, match=r'Costless has no cost\(\)'):
        AutoNL().mutate_model(Costless(skeleton=load_skeleton('cued')))


def test_a_choice_without_a_gate_is_refused():
    space = LightNLSpace(load_skeleton('cued'))
    space.head.append(torch.nn.Identity())
    from nni.mutable import frozen_context
    from nni.nas.nn.pytorch import LayerChoice

    with frozen_context():
        space.head[-1] = LayerChoice([torch.nn.Identity(), torch.nn.ReLU()], label='odd')
    with pytest.raises(ValueError, match='no gate for the choice odd'):
        AutoNL().mutate_model(space)


def test_a_space_without_lightnl_positions_is_refused():
    skeleton = load_skeleton('cued')
    fixed = skeleton.fix({label: candidates[0] for label, candidates in skeleton.choices().items()})
    with pytest.raises(ValueError, match='no LightNL positions to search'):
        AutoNL().mutate_model(LightNLSpace(fixed))


OUT_OF_RANGE = {
    'cost_weight': (-1, math.nan, math.inf, True, '1'),
    'least_fill': (-0.1, 1.1, math.nan, True),
    'warmup_epochs': (-1, 1.5, math.nan, True, 10**15),
    'threshold_every': (0, 1.5, math.nan, True),
    'threshold_travel': (-1, 0, math.nan, math.inf, True),
    'margin': (-1, math.nan, math.inf, True),
    'drawn_share': (-0.1, 2, math.inf, math.nan, True),
    'gradient_clip_val': (-1, 0, math.nan, math.inf, True),
    'target_macs': (0, math.nan, math.inf, True, 'many', [1e6, math.nan]),
}


@pytest.mark.parametrize(('name', 'value'), [(n, v) for n, values in OUT_OF_RANGE.items() for v in values])
def test_a_setting_that_is_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f'^AutoNL: {name} must be a (whole )?number.* not '):
        AutoNL(**{name: value})


def test_a_warm_up_as_long_as_a_search_without_a_budget_is_refused_before_a_step():
    space = RawFormatModelSpace(LightNLSpace(load_skeleton('cued')), small_evaluator(epochs=2))
    with pytest.raises(ValueError, match='warmup_epochs, 2, must be less than the 2 epochs of a search without'):
        AutoNL(warmup_epochs=2)(space, SequentialExecutionEngine())
