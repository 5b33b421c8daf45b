"""LightNL and the conventional non-local block."""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_space import LightNL, NonLocal
from search_space.lightnl import cpu
from search_space.lightnl.block import fused
from search_space.lightnl.macs import compact_channels, product_macs
from search_space.lightnl.products import affinity_first, attend, context_first, contexts, lightnl_product

BLOCKS = {
    'LightNL': lambda channels: LightNL(channels, ratio=0.25, stride=2),
    'LightNL, affinity first': lambda channels: LightNL(channels, ratio=1, stride=4),
    'NonLocal': NonLocal,
}


def awake(block, seed=0):
    """The block with its BN's scale, 0 at first, and its statistics at random values; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for value in (block.bn.weight, block.bn.bias, block.bn.running_mean):
        nn.init.normal_(value, generator=generator)
    nn.init.uniform_(block.bn.running_var, 0.5, 2, generator=generator)
    return block.eval()


@pytest.fixture(params=list(BLOCKS))
def block(request):
    torch.manual_seed(0)
    return awake(BLOCKS[request.param](16))


shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9))
ratios = st.sampled_from([1e-3, 0.125, 0.25, 0.4, 0.5, 1])
strides = st.integers(1, 12)  # larger than the map, at times


@settings(deadline=None, max_examples=200)
@given(shapes, ratios, strides, st.integers(0, 2**31))
def test_both_orders_of_the_product_agree_in_value_and_gradient(shape, ratio, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    results = []
    for order in (affinity_first, context_first, lightnl_product):
        leaf = x.clone().requires_grad_()
        y = order(leaf, ratio, stride)
        y.backward(grad)
        results.append((y.detach(), leaf.grad))
    for y, x_grad in results[1:]:
        torch.testing.assert_close(y, results[0][0])
        torch.testing.assert_close(x_grad, results[0][1])


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('order', [affinity_first, context_first])
@pytest.mark.parametrize('stride', [1, 2, 9])
def test_the_product_is_differentiable_twice_and_keeps_the_memory_format(order, stride, memory_format):
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    assert order(x, 0.4, stride).is_contiguous(memory_format=memory_format)
    assert torch.autograd.gradcheck(order, (x, 0.4, stride))
    assert torch.autograd.gradgradcheck(order, (x, 0.4, stride))


def test_several_contexts_of_one_map_have_the_sum_of_their_gradients():
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64, requires_grad=True)

    def product(x):
        x_c, by_stride = contexts(x, 0.5, [2, 4, 1])
        return attend(x_c, by_stride[4] + 2 * by_stride[2] + 3 * by_stride[1], x)

    expected = context_first(x, 0.5, 4) + 2 * context_first(x, 0.5, 2) + 3 * context_first(x, 0.5, 1)
    torch.testing.assert_close(product(x), expected)
    assert torch.autograd.gradcheck(product, (x,))


@settings(deadline=None, max_examples=100)
@given(shapes, ratios, strides, st.integers(0, 2**31))
def test_the_product_is_the_one_of_the_paper(shape, ratio, stride, seed):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    k = compact_channels(shape[1], ratio)
    for image, y in zip(x, lightnl_product(x, ratio, stride)):
        rows = [image[:, i, j] for i in range(shape[2]) for j in range(shape[3])]
        strided = [image[:, i, j] for i in range(0, shape[2], stride) for j in range(0, shape[3], stride)]
        expected = [sum((p[:k] @ q[:k]) * q for q in strided) / len(rows) for p in rows]
        torch.testing.assert_close(y.flatten(1).T, torch.stack(expected))


@settings(deadline=None, max_examples=50)
@given(shapes, ratios, strides)
def test_the_cheaper_order_is_what_runs(shape, ratio, stride):
    with FlopCounterMode(display=False) as counter:
        lightnl_product(torch.zeros(1, *shape[1:], device='meta'), ratio, stride)
    assert counter.get_total_flops() == 2 * min(product_macs(*shape[1:], ratio, stride))


@pytest.mark.parametrize('make', BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize('training', [True, False])
def test_a_fresh_block_is_exactly_the_identity(make, training):
    x = torch.randn(2, 16, 7, 5)
    assert torch.equal(make(16).train(training)(x), x)


def test_a_block_reaches_far_beyond_its_convolution(block):
    x = torch.randn(1, 16, 9, 9)
    far = x.clone()
    far[..., 8, 8] += 10
    assert not torch.allclose(block(x)[..., 0, 0], block(far)[..., 0, 0], atol=1e-3)


NORM_LAYERS = {
    'batch norm': None,
    'batch norm without running statistics': lambda channels: nn.BatchNorm2d(channels, track_running_stats=False),
    'batch norm without scale': lambda channels: nn.BatchNorm2d(channels, affine=False),
    'batch norm over processes': nn.SyncBatchNorm,
    'group norm': lambda channels: nn.GroupNorm(4, channels),
    'instance norm': nn.InstanceNorm2d,
    'no norm': lambda channels: nn.Identity(),
}


def branch(block, x):
    """What either block adds to ``x``, before its norm layer, by the layers that it has."""
    if isinstance(block, LightNL):
        return block.conv(lightnl_product(x, block.ratio, block.stride))
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    return block.out((g @ (phi.mT @ theta) / theta.shape[2]).view_as(x))


@pytest.mark.parametrize('norm_layer', NORM_LAYERS.values(), ids=NORM_LAYERS)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('make', [partial(LightNL, 16, 0.25, 2), partial(NonLocal, 16)], ids=['LightNL', 'NonLocal'])
def test_with_any_norm_layer_a_block_is_its_formula_and_fusing_gives_its_values_or_says_why_not(
    make, norm_layer, training
):
    torch.manual_seed(0)
    block = make(norm_layer=norm_layer, dtype=torch.float64)
    for value in (value for value in block.bn.state_dict().values() if value.is_floating_point()):
        nn.init.uniform_(value, 0.5, 2)
    x = torch.randn(3, 16, 9, 7, dtype=torch.float64)
    if not (training and isinstance(block.bn, nn.SyncBatchNorm)):  # which trains on a GPU only
        block.train(training)
        torch.testing.assert_close(block(x), x + block.bn(branch(block, x)))
    block.eval()
    expected = block(x)
    if isinstance(block.bn, nn.Identity) or getattr(block.bn, 'running_mean', None) is not None:
        assert fused(block)(x).allclose(expected)
        assert isinstance(fused(block).bn, nn.Identity)
        assert not isinstance(block.bn, nn.Identity) or block.fuse() is block
    else:
        with pytest.raises(
            ValueError, match=rf'^{type(block).__name__}\.fuse: cannot fold {type(block.bn).__name__}'
        ) as error:
            block.fuse()
        assert '\n' not in str(error.value)
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize('block', [LightNL(16, 0.25, 2), NonLocal(16)], ids=['LightNL', 'NonLocal'])
def test_a_block_in_training_is_not_fused(block):
    with pytest.raises(ValueError, match=rf'^{type(block).__name__}\.fuse: .* call eval\(\) first'):
        block.fuse()


@pytest.mark.parametrize('make', [lambda **a: LightNL(16, 0.25, 2, **a), lambda **a: NonLocal(16, **a)])
def test_a_block_is_made_where_and_of_the_type_that_is_asked_for(make):
    block = make(norm_layer=lambda channels: nn.GroupNorm(2, channels), device='meta', dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in block.parameters()} == {('meta', torch.bfloat16)}
    assert isinstance(block.bn, nn.GroupNorm)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('part', ['conv', 'bn'])
def test_a_hook_on_a_part_of_lightnl_sees_its_output_and_its_gradient_in_either_mode(part, training):
    block = awake(LightNL(16, ratio=0.25, stride=1)).train(training)
    x = torch.randn(2, 16, 9, 7)
    expected = block(x)
    module, seen, gradients = block.get_submodule(part), [], []
    module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    module.register_full_backward_hook(lambda module, grad_inputs, grad_outputs: gradients.append(grad_outputs[0]))
    z = block(x)
    torch.testing.assert_close(z, expected)
    z.sum().backward()
    ((given, output),) = seen
    assert len(gradients) == 1
    module._forward_hooks.clear()
    torch.testing.assert_close(output, module(given))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_block_agrees_under_autocast(block, dtype):
    x = torch.randn(2, 16, 12, 12)
    with torch.autocast('cpu', dtype=dtype):
        z = block(x)
        z.float().sum().backward()
    torch.testing.assert_close(z.float(), block(x), rtol=0.05, atol=0.05)
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('inside', [True, False])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [2, 12])  # affinity first, context first
def test_gradients_under_autocast_are_those_of_single_precision_wherever_backward_is(size, stride, inside, dtype):
    block = awake(LightNL(16, ratio=0.25, stride=stride))
    x = torch.randn(2, 16, size, size, requires_grad=True)
    leaves = [x, *block.parameters()]
    weights = torch.randn_like(x)
    expected = torch.autograd.grad((block(x) * weights).sum(), leaves)
    with torch.autocast('cpu', dtype=dtype):
        loss = (block(x) * weights).sum()
        gradients = torch.autograd.grad(loss, leaves) if inside else None
    gradients = gradients or torch.autograd.grad(loss, leaves)
    for gradient, own in zip(gradients, expected, strict=True):
        assert gradient.dtype == own.dtype
        assert (gradient - own).norm() < 0.05 * own.norm()


@pytest.mark.parametrize('scale', [1, 10])
@pytest.mark.parametrize(('order', 'size', 'stride'), [(affinity_first, 56, 28), (context_first, 256, 1)])
def test_half_precision_neither_overflows_nor_vanishes_on_a_large_map(order, size, stride, scale):
    x = (torch.randn(1, 16, size, size, generator=torch.Generator().manual_seed(0)) * scale).half()
    exact = order(x.double(), 0.25, stride)
    assert (order(x, 0.25, stride).double() - exact).norm() < 3e-3 * exact.norm()


def test_channels_last_changes_no_result_and_is_kept(block):
    x = torch.randn(2, 16, 12, 10)
    expected = block(x)
    z = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(z, expected)
    assert z.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('training', [True, False])
def test_a_block_on_a_gpu_gives_the_same_values_and_gradients_as_on_a_cpu(block, training):
    x = torch.randn(4, 16, 14, 14, dtype=torch.float64)
    results = []
    for device in ('cpu', 'cuda'):
        there = copy.deepcopy(block).to(device, torch.float64).train(training)
        leaf = x.to(device).detach().requires_grad_()
        z = there(leaf)
        z.square().sum().backward()
        results.append([value.cpu() for value in (z.detach(), leaf.grad, *(p.grad for p in there.parameters()))])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu)


@pytest.mark.slow
def test_an_onnx_export_gives_the_same_values_at_any_batch_size(block, tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    x = torch.randn(2, 16, 12, 12)
    path = str(tmp_path / 'block.onnx')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            block, (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim('batch')},), verbose=False
        )
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for batch in (1, 2, 5):
        x = torch.randn(batch, 16, 12, 12)
        (z,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(z, block(x).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(16, 7, 7), (2, 16, 7), (2, 16, 7, 7, 1), (2, 8, 7, 7), (16,)])
def test_an_input_of_another_shape_is_an_error_that_names_both(block, shape):
    with pytest.raises(ValueError, match=r'takes \(N, 16, H, W\), not a tensor of shape \[') as error:
        block(torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'ratio': 0}, r'ratio must be in \(0, 1\], not 0'),
        ({'ratio': -0.25}, r'ratio must be in \(0, 1\], not -0.25'),
        ({'ratio': 1.5}, r'ratio must be in \(0, 1\], not 1.5'),
        ({'ratio': float('nan')}, r'ratio must be in \(0, 1\], not nan'),
        ({'stride': 0}, 'stride must be a whole number of at least 1, not 0'),
        ({'stride': -1}, 'stride must be a whole number of at least 1, not -1'),
        ({'stride': 1.5}, 'stride must be a whole number of at least 1, not 1.5'),
        ({'channels': 0}, 'channels must be at least 1, not 0'),
    ],
)
def test_an_impossible_block_is_an_error_that_names_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        LightNL(**{'channels': 16, 'ratio': 0.25, 'stride': 2, **arguments})


@pytest.mark.parametrize('make', BLOCKS.values(), ids=BLOCKS)
def test_a_block_costs_what_its_docstring_says(make):
    channels, height, width = 16, 7, 9
    block, positions = make(channels), height * width
    with FlopCounterMode(display=False) as counter:
        block(torch.zeros(1, channels, height, width))
    parameters = sum(p.numel() for p in block.parameters())
    if isinstance(block, NonLocal):
        macs = 4 * channels**2 * positions + 2 * channels * positions**2
        assert parameters == 4 * channels**2 + 2 * channels
    else:
        macs = min(product_macs(channels, height, width, block.ratio, block.stride)) + 9 * channels * positions
        assert parameters == 11 * channels
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_without_gradients_a_large_map_gives_the_values_and_the_format_that_it_gives_with_them(dtype, memory_format):
    block = awake(LightNL(16, 0.25, 2, dtype=dtype))
    x = torch.randn(2, 16, 64, 60, dtype=dtype).contiguous(memory_format=memory_format)
    expected, before = block(x).detach(), x.clone()
    for subject in (block, fused(block)):
        with torch.no_grad():
            assert cpu.takes_over(subject, x)
            z = subject(x)
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
        assert z.is_contiguous(memory_format=memory_format)
        assert torch.equal(x, before)


def test_bn_is_not_folded_in_a_call_where_it_would_change_what_is_seen():
    block, x = awake(LightNL(16, 0.25, 2)), torch.randn(2, 16, 64, 60)
    assert not cpu.takes_over(block, x)  # gradients
    with torch.no_grad():
        assert cpu.takes_over(block, x)
        assert not cpu.takes_over(block, x[:1, :, :2])
        assert not cpu.takes_over(block, x.half())
        assert not cpu.takes_over(copy.deepcopy(block).train(), x)
        assert not cpu.takes_over(LightNL(16, 0.25, 2, norm_layer=lambda c: nn.GroupNorm(4, c)).eval(), x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert not cpu.takes_over(block, x)
        for part in (block.conv, block.bn):
            handle = part.register_forward_hook(lambda *_: None)
            assert not cpu.takes_over(block, x)
            handle.remove()
