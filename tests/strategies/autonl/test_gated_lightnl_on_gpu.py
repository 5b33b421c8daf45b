"""LightNL in a supernet through the kernels for GPUs, on a GPU where there is one and otherwise in the interpreter."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip('triton')

from nni.nas.strategy import DARTS

from search_space import ABSENT, PRESENT, LightNLSpace
from search_space.lightnl import gpu
from search_space.skeleton import Row, Skeleton
from strategies import AutoNL

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
INSERTION = {'lightnl': (ABSENT, PRESENT)}
SEARCHED = {
    'insertion alone': INSERTION,
    'ratio alone': {'lightnl': PRESENT, 'lightnl_ratio': (0.25, 0.5)},
    'insertion, ratio, stride': {**INSERTION, 'lightnl_ratio': (0.25, 0.5), 'lightnl_stride': (2, 1)},
    'coarse strides': {'lightnl': PRESENT, 'lightnl_ratio': (0.25, 0.5), 'lightnl_stride': (4, 2)},
}


class NormOfSeveralProcesses(nn.BatchNorm2d):
    """As BN over processes is: another class, with a forward pass of its own."""


@pytest.mark.parametrize(
    ('strategy', 'searched', 'norm'),
    [
        (AutoNL, 'insertion alone', nn.BatchNorm2d),
        (AutoNL, 'insertion alone', NormOfSeveralProcesses),
        (AutoNL, 'insertion, ratio, stride', nn.BatchNorm2d),
        (AutoNL, 'coarse strides', NormOfSeveralProcesses),
        (DARTS, 'insertion, ratio, stride', nn.BatchNorm2d),
        (DARTS, 'ratio alone', nn.BatchNorm2d),
    ],
)
def test_a_supernet_has_the_same_values_and_gradients_with_the_kernels(strategy, searched, norm, monkeypatch):
    torch.manual_seed(0)
    skeleton = Skeleton(
        'tiny', 3, 2, stem_channels=4, stem_stride=1, head_channels=4, rows=(Row(4, **SEARCHED[searched]),)
    )
    supernet = strategy().mutate_model(LightNLSpace(skeleton)).to(DEVICE)
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            module.__class__ = norm
        if hasattr(module, 'activate'):
            module.activate(0.1)
    images, results = torch.randn(2, 3, 3, 3, device=DEVICE), []
    launched, real = [], gpu._kernels()
    monkeypatch.setattr(gpu, '_is_on_gpu', lambda x: True)
    monkeypatch.setattr(gpu, '_kernels', lambda: launched.append(real) or real)
    for switch in ('off', 'on'):
        assert not launched
        monkeypatch.setattr(gpu, '_switch', switch)
        own = copy.deepcopy(supernet)
        logits = own(images)
        logits.square().sum().backward()
        gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
        results.append((logits.detach(), gradients, dict(own.named_buffers())))
    assert launched
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)
