"""MACs of a network by running it: what is executed is counted, nothing is computed from the architecture."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_space.mutable import SqueezeExcite

WITHOUT_MACS = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU)  # one shape, in and out


def executed_macs(network: nn.Module, input_size: int) -> int:
    """MACs of one image: convolutions and products by torch's own counter, and `C·P` for each pooling of a `C × P` map.

    Works on the meta device too, where nothing is computed but everything is dispatched. Layers without MACs are left
    out, as dispatching them takes most of the time.
    """
    pooled = 0

    def count_pooling(module, inputs):
        nonlocal pooled
        pooled += inputs[0][0].numel()

    pools = [m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    pools += [m for m in network.modules() if isinstance(m, SqueezeExcite) and m.hidden]
    left_out = [m for m in network.modules() if isinstance(m, WITHOUT_MACS)]
    for module in left_out:
        module.forward = lambda x: x
    hooks = [pool.register_forward_pre_hook(count_pooling) for pool in pools]
    try:
        device = next(network.parameters()).device
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, 3, input_size, input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        for module in left_out:
            del module.forward
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2 + pooled
