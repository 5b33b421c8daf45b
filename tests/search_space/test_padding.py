"""Padding as TensorFlow has it: in a network, under gates, in NNI's supernets, and in what is said of it."""

import dataclasses
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.strategy import RandomOneShot
from torch import nn

from search_space import LightNLSpace, Row, Skeleton, build, load_network, load_skeleton, macs, params
from search_space.cost.latency import measure
from search_space.network import InvertedResidual
from search_space.show.describe import describe_network, describe_space, network_text, space_text
from search_space.show.draw import draw
from strategies import AutoNL
from strategies.autonl.gate import Threshold


def same(skeleton: Skeleton) -> Skeleton:
    return dataclasses.replace(skeleton, padding='same')


def as_tensorflow_pads(side: int, kernel: int) -> tuple[int, int]:
    """Before and after a side, at stride 2: the formula of TensorFlow's documentation."""
    total = max((math.ceil(side / 2) - 1) * 2 + kernel - side, 0)
    return total // 2, total - total // 2


def one_row(kernel) -> Skeleton:
    return same(Skeleton('one', 16, 2, 4, 2, 4, rows=(Row(4, stride=2, kernel=kernel, expansion=1),)))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(1, 14), st.sampled_from([1, 3, 5, 7]))
def test_a_strided_convolution_sees_what_tensorflows_would(height, width, kernel):
    row = InvertedResidual(Row(4, stride=2, kernel=kernel, expansion=1), 4, padding='same')
    x, body = torch.randn(2, 4, height, width), row.body
    padded = nn.functional.pad(x, (*as_tensorflow_pads(width, kernel), *as_tensorflow_pads(height, kernel)))
    expected = nn.functional.conv2d(padded, body.depthwise.weight, stride=2, groups=4)
    found = body[: list(dict(body.named_children())).index('depthwise') + 1](x)
    assert torch.equal(found, expected)
    assert found.shape[2:] == (math.ceil(height / 2), math.ceil(width / 2))


def test_the_stem_sees_what_tensorflows_would():
    stem = build(one_row(3), {}).stem[:2]
    x = torch.randn(1, 3, 16, 15)
    weight = dict(stem.named_parameters())['0.weight']
    padded = nn.functional.pad(x, (*as_tensorflow_pads(15, 3), *as_tensorflow_pads(16, 3)))
    torch.testing.assert_close(stem(x), nn.functional.conv2d(padded, weight, stride=2))


@pytest.mark.parametrize('name', ['autonl-s', 'autonl-l'])
def test_padding_changes_logits_and_neither_weights_nor_cost(name):
    skeleton, sample = load_network(name)
    networks = [build(of, sample) for of in (skeleton, same(skeleton))]  # in training: BN makes all that differs show
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        first, second = (network(x) for network in networks)
    assert not torch.allclose(first, second)
    assert macs(same(skeleton))(sample) == macs(skeleton)(sample)
    assert params(same(skeleton))(sample) == params(skeleton)(sample)


def small(name: str) -> Skeleton:
    skeleton = load_skeleton(name)
    return same(dataclasses.replace(skeleton, rows=skeleton.rows[:6], input_size=26, stem_stride=2, classes=10))


def random_sample(skeleton: Skeleton, seed: int) -> dict:
    draw = random.Random(seed)
    return {label: draw.choice(candidates) for label, candidates in skeleton.choices().items()}


def set_shifts(network: nn.Module) -> None:
    for module in network.modules():  # scales that start at 0 would hide what is behind them
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.uniform_(module.bias, -0.5, 0.5)


@pytest.mark.slow
def test_the_supernet_under_gates_is_the_network_that_it_exports():
    torch.manual_seed(0)
    skeleton = small('mobile')
    supernet = AutoNL().mutate_model(LightNLSpace(skeleton))
    x = torch.randn(2, 3, 26, 26)
    supernet(x)  # norms are known once something was seen
    set_shifts(supernet)
    supernet.eval()
    kernels, generator = set(), torch.Generator().manual_seed(0)
    for _ in range(10):
        for threshold in supernet.modules():
            if isinstance(threshold, Threshold):
                threshold.activate(margin=1.0)
                threshold.t.data = threshold.norm * (2 * torch.rand(threshold.norm.shape, generator=generator))
        with torch.no_grad():
            logits = supernet(x)
            sample = {}
            for module in supernet.modules():
                if hasattr(module, 'export') and module is not supernet:
                    sample |= module.export(sample)
            network = supernet.freeze(sample).eval()
            torch.testing.assert_close(network(x), logits)
        kernels |= {sample[f'row0{row}/kernel'] for row in (2, 5)}  # those of stride 2
    assert kernels == {3, 5}


def test_a_path_of_nnis_supernet_is_the_network_that_it_freezes():
    torch.manual_seed(0)
    skeleton = small('mobile')
    strategy = RandomOneShot()
    supernet = strategy.mutate_model(LightNLSpace(skeleton))
    set_shifts(supernet)
    supernet.eval()
    x = torch.randn(2, 3, 26, 26)
    for seed in range(4):
        sample = random_sample(skeleton, seed) | {'row02/kernel': 3 + 2 * (seed % 2)}
        for module in supernet.modules():
            if hasattr(module, 'resample') and module is not supernet:
                module.resample(sample)
        with torch.no_grad():
            torch.testing.assert_close(supernet.freeze(sample).eval()(x), supernet(x))


def test_another_program_that_traces_it_gets_the_same_network():
    skeleton = small('cued')
    network = build(skeleton, random_sample(skeleton, 0)).eval()
    x = torch.randn(2, 3, 26, 26)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.jit.trace(network, x)(x), expected)
        torch.testing.assert_close(network.to(memory_format=torch.channels_last)(x), expected)
        with torch.autocast('cpu', torch.bfloat16):
            torch.testing.assert_close(network(x).float(), expected, rtol=0.05, atol=0.05)


def test_it_is_said_where_it_is_not_pytorchs(tmp_path):
    skeleton, sample = load_network('autonl-s')
    described = describe_network(same(skeleton), sample), describe_space(same(skeleton))
    assert [of['padding'] for of in described] == ['same', 'same']
    assert 'a network of mobile at 224×224, padding same: ' in network_text(described[0])
    assert 'the space mobile at 224×224, padding same: ' in space_text(described[1])
    assert 'padding' not in network_text(describe_network(skeleton, sample))
    draw(same(skeleton), sample, 'AutoNL-S', tmp_path / 'picture.svg')
    assert 'at 224×224, padding same' in (tmp_path / 'picture.svg').read_text()


def test_a_latency_table_is_of_one_padding():
    skeleton = small('cued')
    table = measure(skeleton, runs=1)
    assert table.cost(skeleton).range()[0] > 0
    with pytest.raises(ValueError, match='is not like it in padding'):
        table.cost(dataclasses.replace(skeleton, padding='symmetric'))
