"""How often a step of the search waits for the device that it runs on."""

import argparse
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.search_step import SEARCH, train
from search_space import LightNLSpace, load_skeleton
from strategies import AutoNL
from strategies.autonl.module import threshold_optimizer

WAITS = ('aten._local_scalar_dense', 'aten.nonzero', 'aten.masked_select', 'aten.equal')
"""Operators whose result the host reads, on a GPU once the GPU has come to it."""


class Waits(TorchDispatchMode):
    """Notes who called each operator of :data:`WAITS`."""

    def __init__(self):
        super().__init__()
        self.callers = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).startswith(WAITS):
            self.callers.append([frame.name for frame in traceback.extract_stack()])
        return function(*args, **(kwargs or {}))


class Steps:
    """In place of the pipe of :class:`Meter`: a step is between ``recv`` and ``send``."""

    def __init__(self):
        self.of_step = []

    def recv(self):
        self.of_step.append(Waits())
        self.of_step[-1].__enter__()

    def send(self, found):
        self.of_step[-1].__exit__(None, None, None)


def test_a_search_step_waits_for_its_device_only_to_look_at_its_two_losses():
    args = argparse.Namespace(skeleton='cued', input_size=16, device='cpu', precision='32-true', batch=2)
    steps = Steps()
    train(SEARCH, args, 4, steps)
    for waits in steps.of_step[1:3]:  # the first makes the optimizers' state, the last logs the epoch
        callers = [names for names in waits.callers if '_single_tensor_adam' not in names]  # of CPUs only: its counters
        assert len(callers) == 2
        assert all('check_finite' in names for names in callers)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
def test_all_thresholds_are_moved_in_one_launch_on_a_gpu():
    supernet = AutoNL().mutate_model(LightNLSpace(load_skeleton('cued'))).cuda()
    thresholds = [module.t for module in supernet.modules() if hasattr(module, 'activate')]
    optimizer = threshold_optimizer(thresholds)
    for t in thresholds:
        t.grad = torch.ones_like(t)
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        optimizer.step()
        torch.cuda.synchronize()
    kernels = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert sum('Adam' in name or 'adam' in name for name in kernels) == 1
