"""MACs of a network by running it: what is executed is counted, nothing is computed from the architecture."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_space.mutable import SqueezeExcite


def executed_macs(network: nn.Module, input_size: int) -> int:
    """MACs of one image: convolutions and products by torch's own counter, and `C·P` for each pooling of a `C × P` map.

    Works on the meta device too, where nothing is computed but everything is dispatched.
    """
    pooled = 0

    def count_pooling(module, inputs):
        nonlocal pooled
        pooled += inputs[0][0].numel()

    pools = [m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    pools += [m for m in network.modules() if isinstance(m, SqueezeExcite) and m.hidden]
    hooks = [pool.register_forward_pre_hook(count_pooling) for pool in pools]
    try:
        device = next(network.parameters()).device
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, 3, input_size, input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2 + pooled
