"""LightNL at points of torchvision's networks."""

import random

import nni
import pytest
import torch
import torchvision
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.space import RawFormatModelSpace, model_context
from nni.nas.strategy import DARTS, Random
from torch import nn

from search_space import ABSENT, PRESENT, BackboneSpace, LightNL
from search_space.backbones import point_label, shipped_backbones
from strategies import AutoNL
from trials.training.evaluator import evaluator

BACKBONES = {'mobilenet_v2': 17, 'mobilenet_v3_large': 15, 'resnet18': 8, 'efficientnet_b0': 16}
POINTS = ['layer1.1', 'layer2.0']


@pytest.fixture(scope='module', params=BACKBONES)
def space(request):
    return BackboneSpace(request.param, classes=10, input_size=64)


def sampled(space, seed=0, **always):
    draw = random.Random(seed)
    return {
        label: always.get(label.rpartition('/')[2]) or draw.choice(candidates)
        for label, candidates in space.choices().items()
    }


def awaken(network):
    """Give every LightNL a scale: a fresh one is the identity, and would hide a mistake."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, LightNL):
            nn.init.uniform_(module.bn.weight, 0.5, 1.5)
    return network


def lightnl_of(network):
    return {
        name.removeprefix('network.').removesuffix('.lightnl'): (module.ratio, module.stride)
        for name, module in network.named_modules()
        if isinstance(module, LightNL)
    }


def test_by_default_LightNL_is_offered_after_each_block(space):
    assert len(space.points) == BACKBONES[space.backbone]
    assert set(space.choices()) == {
        point_label(point, key) for point in space.points for key in ('lightnl', 'lightnl_ratio', 'lightnl_stride')
    }


def test_nni_sees_the_labels_and_candidates_of_choices(space):
    assert {label: tuple(mutable.values) for label, mutable in space.simplify().items()} == space.choices()


def test_insertion_is_a_layer_choice_of_nni(space):
    insertions = [module for module in space.modules() if isinstance(module, LayerChoice)]
    assert [choice.label for choice in insertions] == [point_label(point, 'lightnl') for point in space.points]


def test_a_sample_freezes_to_the_network_that_it_describes(space):
    sample = sampled(space, seed=3)
    described = {
        point: (sample[point_label(point, 'lightnl_ratio')], sample[point_label(point, 'lightnl_stride')])
        for point in space.points
        if sample[point_label(point, 'lightnl')] == PRESENT
    }
    with model_context(sample):
        built = BackboneSpace(space.backbone, classes=10, input_size=64)
    assert 0 < len(described) < len(space.points)
    for network in (space.freeze(sample), built):
        assert lightnl_of(network) == described
        assert not any(isinstance(module, LayerChoice) for module in network.modules())


def test_fresh_LightNL_leaves_the_logits_of_the_plain_network(space):
    plain = torchvision.models.get_model(space.backbone, weights=None, num_classes=10).eval()
    network = space.freeze(sampled(space, lightnl=PRESENT)).eval()
    network.load_backbone(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
        assert not torch.equal(awaken(network)(x), plain(x))


def test_weights_for_another_number_of_classes_are_loaded_but_for_the_last_layer(space):
    torch.manual_seed(0)
    pretrained = torchvision.models.get_model(space.backbone, weights=None, num_classes=12)
    network = space.freeze(sampled(space, lightnl=ABSENT)).eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    before = last.weight.clone()
    left = network.load_backbone(pretrained.state_dict())
    assert len(left) == 2
    assert torch.equal(last.weight, before)
    *_, (name, own) = ((n, m) for n, m in pretrained.named_modules() if isinstance(m, nn.Linear))
    assert left == [f'{name}.weight', f'{name}.bias']
    own.weight, own.bias = last.weight, last.bias
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), pretrained.eval()(x))


def test_weights_of_another_backbone_are_an_error(space):
    pretrained = torchvision.models.get_model('shufflenet_v2_x0_5', weights=None, num_classes=12)
    with pytest.raises(RuntimeError, match='Missing key'):
        space.load_backbone(pretrained.state_dict())


def test_freezing_keeps_the_weights_of_the_space(space):
    network = space.freeze(sampled(space, lightnl=ABSENT))
    own = space.state_dict()
    weights = network.state_dict()
    assert weights
    assert all(torch.equal(weight, own[name]) for name, weight in weights.items())


def executed_macs(network, size):
    """MACs by hooks over a real forward pass: convolutions, linear, LightNL's product, pooling to 1×1."""
    total = 0

    def count(module, args, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight[0].numel() * output.numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            total += args[0].numel()
        else:
            _, channels, height, width = args[0].shape
            k, s = max(1, int(module.ratio * channels)), module.stride
            p, p_s = height * width, -(-height // s) * -(-width // s)
            total += min(p * p_s * (k + channels), (p + p_s) * k * channels)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.AdaptiveAvgPool2d | LightNL):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    return total


@pytest.mark.parametrize('backbone', ['resnet18', 'mobilenet_v3_large', 'efficientnet_b0'])
@pytest.mark.slow
def test_the_cost_is_what_the_network_executes(backbone):
    space = BackboneSpace(backbone, input_size=75)
    for seed in range(3):
        sample = sampled(space, seed)
        assert space.cost()(sample) == executed_macs(space.freeze(sample), 75)


def test_LightNL_after_the_bottlenecks_of_MobileNetV2_costs_what_the_paper_says():
    space = BackboneSpace('mobilenet_v2')
    cost = space.cost()
    sample = dict.fromkeys(space.choices())
    for point in space.points:
        sample |= {
            point_label(point, 'lightnl'): PRESENT,
            point_label(point, 'lightnl_ratio'): 0.25,
            point_label(point, 'lightnl_stride'): 1,
        }
    plain = sample | {point_label(point, 'lightnl'): ABSENT for point in space.points}
    assert cost(sample) - cost(plain) == 16_483_208


def test_the_expected_cost_under_one_hot_weights_is_the_cost_of_the_sample(space):
    cost, sample = space.cost(), sampled(space, seed=5)
    weights = {
        label: torch.tensor([float(c == sample[label]) for c in candidates], dtype=torch.float64, requires_grad=True)
        for label, candidates in space.choices().items()
    }
    expected = cost.expected(weights)
    assert int(expected) == cost(sample)
    expected.backward()
    assert weights[point_label(space.points[0], 'lightnl')].grad[1] > 0


def test_points_may_lie_one_inside_the_other():
    space = BackboneSpace('resnet18', points=['layer1', 'layer1.0', 'layer1.0.conv1'], classes=10, input_size=64)
    plain = torchvision.models.resnet18(num_classes=10).eval()
    network = space.freeze(sampled(space, lightnl=PRESENT)).eval()
    network.load_backbone(plain.state_dict())
    assert len(lightnl_of(network)) == 3
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))


def test_what_has_one_candidate_is_no_choice():
    space = BackboneSpace('resnet18', points=POINTS, ratios=[0.25], strides=[2])
    assert list(space.choices()) == ['layer1/1/lightnl', 'layer2/0/lightnl']
    network = space.freeze(dict.fromkeys(space.choices(), PRESENT))
    assert lightnl_of(network) == dict.fromkeys(POINTS, (0.25, 2))
    low, high = space.cost().range()
    assert low < high


@pytest.mark.parametrize('backbone', ['googlenet', 'densenet121', 'regnet_y_400mf', 'squeezenet1_1'])
def test_other_backbones_take_points_too(backbone):
    point = {'googlenet': 'inception3a', 'densenet121': 'features.transition1', 'squeezenet1_1': 'features.4'}.get(
        backbone
    )
    space = BackboneSpace(backbone, points=point and [point], classes=10, input_size=96)
    network = space.freeze(sampled(space, lightnl=PRESENT))
    assert network.train()(torch.randn(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'backbone': 'resnet19'}, r"no torchvision backbone 'resnet19'; did you mean 'resnet1.'"),
        ({'backbone': 'fcn_resnet50'}, 'no torchvision backbone'),
        ({'backbone': 'resnet18', 'points': ['layer1.4']}, r"has no module 'layer1.4'; did you mean 'layer1..'"),
        ({'backbone': 'resnet18', 'points': ['layer1', 'layer1']}, "'layer1' is there twice"),
        ({'backbone': 'resnet18', 'points': ['fc']}, r"cannot follow 'fc', whose output has the shape \(1, 1000\)"),
        ({'backbone': 'vit_b_16'}, 'name the points'),
        ({'backbone': 'vit_b_16', 'points': ['encoder']}, r'has the shape \(1, 197, 768\)'),
        ({'backbone': 'googlenet', 'points': ['']}, "has no module ''"),
        ({'backbone': 'mobilenet_v3_large', 'points': ['features.4.block.2.avgpoo']}, "'features.4.block.2.avgpool'"),
        ({'backbone': 'resnet18', 'points': []}, 'points needs at least one'),
        ({'backbone': 'resnet18', 'ratios': [0.25, 1.5]}, 'ratio'),
        ({'backbone': 'resnet18', 'strides': []}, 'strides needs at least one'),
    ],
)
def test_a_mistaken_argument_is_named_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        BackboneSpace(**arguments)
    assert '\n' not in str(error.value)


def test_every_torchvision_classifier_is_known_and_nothing_else():
    names = shipped_backbones()
    assert {*BACKBONES, 'vit_b_16', 'alexnet'} <= set(names)
    assert not any('detect' in name or 'raft' in name or name.startswith(('quantized', 'fcn', 'r3d')) for name in names)


def recipe(shuffle_validation):
    images = torch.utils.data.TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8) % 10)
    return evaluator(
        images,
        images,
        epochs=2,
        batch_size=4,
        learning_rate=1e-3,
        weight_decay=0.0,
        label_smoothing=0.0,
        seed=0,
        shuffle_validation=shuffle_validation,
    )


@pytest.mark.parametrize('strategy', [DARTS, lambda: AutoNL(warmup_epochs=1)], ids=['DARTS', 'AutoNL'])
def test_one_shot_strategies_train_its_supernet_and_return_a_network_of_it(strategy):
    torch.manual_seed(0)
    strategy = strategy()
    space = BackboneSpace('resnet18', points=POINTS, classes=10, input_size=32)
    before = space.network.conv1.weight.clone()
    strategy(RawFormatModelSpace(space, recipe(shuffle_validation=True)), SequentialExecutionEngine())
    sample = strategy.oneshot_module.export()
    assert set(sample) == set(space.choices())
    network = strategy.supernet.freeze(sample)
    assert not torch.equal(network.network.conv1.weight, before)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_the_supernet_of_AutoNL_is_the_network_that_it_exports():
    torch.manual_seed(0)
    strategy = AutoNL(warmup_epochs=1, cost_weight=3.0)
    space = BackboneSpace('resnet18', points=POINTS, classes=10, input_size=32)
    strategy(RawFormatModelSpace(space, recipe(shuffle_validation=True)), SequentialExecutionEngine())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        supernet = awaken(strategy.supernet).eval()
        expected = supernet(x)
        network = supernet.freeze(strategy.oneshot_module.export()).eval()
        torch.testing.assert_close(network(x), expected)


def test_random_search_of_nni_runs_on_it():
    space = BackboneSpace('resnet18', points=POINTS, classes=10, input_size=32)
    seen = []

    def measure(network):
        seen.append(lightnl_of(network))
        nni.report_final_result(float(len(seen)))

    strategy = Random()
    engine = SequentialExecutionEngine(max_model_count=4)
    strategy(RawFormatModelSpace(space, FunctionalEvaluator(measure)), engine)
    assert len(seen) == 4
    assert all(set(found) <= set(POINTS) for found in seen)
    assert len({str(found) for found in seen}) > 1
