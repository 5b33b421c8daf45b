"""LightNL under gates, where something is hooked to its parts."""

import torch

from search_space import LightNLSpace, load_skeleton
from strategies import AutoNL
from strategies.autonl.gated_lightnl import GatedInsertion


def test_a_hook_on_batch_norm_of_a_gated_lightnl_keeps_its_output_and_is_told_of_its_gradient():
    supernet = AutoNL().mutate_model(LightNLSpace(load_skeleton('cued')))
    insertion = next(module for module in supernet.modules() if isinstance(module, GatedInsertion))
    bn, outputs, gradients = insertion['present'].bn, [], []
    torch.nn.init.ones_(bn.weight)
    bn.register_forward_hook(lambda module, inputs, output: outputs.append((output, output.detach().clone())))
    bn.register_full_backward_hook(lambda module, grad_inputs, grad_outputs: gradients.append(grad_outputs[0]))
    x = torch.randn(2, bn.num_features, 8, 8, requires_grad=True)
    insertion(x).sum().backward()
    ((kept, as_it_was),) = outputs
    assert torch.equal(kept, as_it_was)
    assert len(gradients) == 1
