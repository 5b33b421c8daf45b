"""LightNL's kernels for GPUs, on a GPU where there is one and otherwise in Triton's interpreter."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

pytest.importorskip('triton')

from search_space import LightNL
from search_space.lightnl import gpu
from search_space.lightnl.macs import compact_channels

ROOT = Path(__file__).parents[3]
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Of an error's norm, relative: a few roundings of the type."""

CASES = {
    'float32, odd sides': ((3, 24, 9, 7), 0.25, 2, torch.float32, CONTIGUOUS),
    'float32, several tiles': ((1, 16, 14, 14), 0.25, 1, torch.float32, CHANNELS_LAST),
    'bfloat16, several blocks of channels': ((2, 40, 6, 5), 0.25, 1, torch.bfloat16, CHANNELS_LAST),
    'bfloat16, stride 3': ((2, 20, 10, 4), 0.5, 3, torch.bfloat16, CONTIGUOUS),
    'float16, stride 4 and one compact channel': ((2, 5, 9, 10), 1e-3, 4, torch.float16, CHANNELS_LAST),
    'float16, all channels compact': ((2, 20, 3, 3), 1.0, 1, torch.float16, CONTIGUOUS),
    'float32, the widest row': ((1, 320, 2, 2), 0.25, 1, torch.float32, CHANNELS_LAST),
    'float32, one position': ((4, 16, 1, 1), 0.25, 2, torch.float32, CONTIGUOUS),
}


@pytest.fixture
def kernels(monkeypatch):
    """Has the kernels used for every tensor, on a CPU too."""
    monkeypatch.setattr(gpu, '_switch', 'on')
    monkeypatch.setattr(gpu, '_is_on_gpu', lambda x: True)


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that were launched."""
    gpu._is_interpreted()  # which looks at a kernel, the first time
    names, real = [], gpu._kernels()

    class Noting:
        def __getattr__(self, name):
            names.append(name)
            return getattr(real, name)

    monkeypatch.setattr(gpu, '_kernels', Noting)
    return names


def awake(channels, ratio, stride, training, **arguments) -> LightNL:
    """A block whose BN does something, on the device."""
    block = LightNL(channels, ratio, stride, **arguments).train(training)
    for value in (block.bn.weight, block.bn.bias, block.bn.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(block.bn.running_var, 0.5, 2)
    return block.to(DEVICE)


def random(shape, dtype=torch.float32, memory_format=CONTIGUOUS) -> torch.Tensor:
    return torch.randn(shape).to(DEVICE, dtype).contiguous(memory_format=memory_format)


def formula(block: LightNL, x: torch.Tensor) -> torch.Tensor:
    """``x + BN(DWConv(y))`` as it is written, in float64."""
    x_c = x[:, : compact_channels(block.channels, block.ratio)]
    x_s = x[:, :, :: block.stride, :: block.stride]
    context = torch.einsum('nkij,ncij->nkc', x_s[:, : x_c.shape[1]], x_s) / (x.shape[2] * x.shape[3])
    y = torch.einsum('nkhw,nkc->nchw', x_c, context)
    return x + block.bn(functional.conv2d(y, block.conv.weight, padding=1, groups=block.channels))


def error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is right."""
    return float((value.detach().double() - exact.detach()).norm() / exact.detach().norm().clamp_min(1e-12))


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.slow
def test_values_gradients_and_statistics_are_those_of_the_formula_in_double_precision(case, training, kernels):
    shape, ratio, stride, dtype, memory_format = case
    torch.manual_seed(0)
    block, x, grad = awake(shape[1], ratio, stride, training), random(shape, dtype, memory_format), random(shape, dtype)
    exact, exact_x = copy.deepcopy(block).double(), x.double().requires_grad_()
    exact_z = formula(exact, exact_x)
    exact_z.backward(grad.double())
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    z = gpu.block(block, leaf)
    z.backward(grad)
    assert (z.dtype, leaf.grad.dtype) == (dtype, dtype)
    assert z.is_contiguous(memory_format=memory_format)
    found = {name: value.grad for name, value in block.named_parameters()} | dict(block.named_buffers())
    wanted = {name: value.grad for name, value in exact.named_parameters()} | dict(exact.named_buffers())
    found |= {'z': z, 'x': leaf.grad}
    wanted |= {'z': exact_z, 'x': exact_x.grad}
    errors = {name: error(found[name], wanted[name].double()) for name in wanted}
    assert max(errors.values()) < TOLERANCE[dtype], errors
    if not training:
        with torch.no_grad():
            assert error(gpu.block(block, x), exact_z) < TOLERANCE[dtype]


shapes = st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=12)
@given(
    shapes,
    st.sampled_from([1e-3, 0.25, 0.5, 1]),
    st.integers(1, 4),
    st.sampled_from([CONTIGUOUS, CHANNELS_LAST]),
    st.integers(0, 2**31),
)
@pytest.mark.slow
def test_context_and_convolution_and_their_gradients_are_those_of_the_formula(shape, ratio, stride, format, seed):
    torch.manual_seed(seed)
    k = compact_channels(shape[1], ratio)
    leaves = [random(shape, memory_format=format), random((shape[1], 1, 3, 3))]
    factors = [random((shape[0], k, shape[1])), random(shape)]

    def with_kernels(x, weight):
        context = gpu.contexts(x, ratio, [stride])[stride]
        return context, gpu.convolved(x, context, weight)

    def written(x, weight):
        x_s = x[:, :, ::stride, ::stride]
        context = torch.einsum('nkij,ncij->nkc', x_s[:, :k], x_s) / (shape[2] * shape[3])
        y = torch.einsum('nkhw,nkc->nchw', x[:, :k], context)
        return context, functional.conv2d(y, weight, padding=1, groups=shape[1])

    results = []
    for function, dtype in ((with_kernels, torch.float32), (written, torch.float64)):
        own = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
        values = function(*own)
        loss = sum((value * factor.to(dtype)).sum() for value, factor in zip(values, factors))
        results.append([*values, *torch.autograd.grad(loss, own)])
    for value, exact in zip(*results):
        assert error(value, exact) < 1e-4 or float(exact.norm()) < 1e-6


@pytest.mark.slow
def test_half_precision_does_not_overflow_on_a_large_map(kernels, monkeypatch):
    monkeypatch.setattr(gpu, 'TILE', 4096)  # fewer programs for the interpreter
    block = awake(2, 0.5, 1, training=True)
    x = (random((1, 2, 112, 112)) * 12 + 10).half()  # the sum of its squares is 46 times what half precision holds
    exact_x = x.double().requires_grad_()
    exact_z = formula(copy.deepcopy(block).double(), exact_x)
    exact_z.backward(torch.full_like(exact_z, 100))
    leaf = x.clone().requires_grad_()
    z = gpu.block(block, leaf)
    z.backward(torch.full_like(z, 100))
    assert error(z, exact_z) < 2e-3
    assert error(leaf.grad, exact_x.grad) < 2e-3


def test_evaluation_takes_two_launches_and_a_training_step_three_and_three(kernels, launches):
    block, x = awake(4, 0.5, 2, training=False), random((1, 4, 3, 3))
    with torch.no_grad():
        block(x)
    assert launches == ['context_parts', 'evaluation']
    launches.clear()
    z = block.train()(x.requires_grad_())
    assert launches == ['context_parts', 'convolution', 'normalisation']
    launches.clear()
    z.sum().backward()
    assert launches == ['batch_norm_sums', 'convolution_gradient', 'input_gradient']


OPERATORS = {
    'contexts': lambda x: (gpu._contexts, (x, 2, 2)),
    'convolved': lambda x: (
        gpu._convolved,
        (x, random((1, 2, 4)).requires_grad_(), random((4, 1, 3, 3)).requires_grad_()),
    ),
    'block, statistics of the batch': lambda x: (gpu._block, (x, *_parameters(), None, None, 1e-3, 2, 2)),
    'block, running statistics': lambda x: (gpu._block, (x, *_parameters(), *_running(), 1e-3, 2, 1)),
    'evaluated': lambda x: (
        gpu._evaluated,
        (x.detach(), *(p.detach() for p in _parameters()), *_running(), 1e-3, 2, 2),
    ),
}


def _parameters() -> list[torch.Tensor]:
    return [random(shape).requires_grad_() for shape in ((4, 1, 3, 3), (4,), (4,))]


def _running() -> tuple[torch.Tensor, torch.Tensor]:
    return random((4,)), random((4,)).square() + 0.5


@pytest.mark.parametrize('memory_format', [CONTIGUOUS, CHANNELS_LAST], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('operator', OPERATORS.values(), ids=OPERATORS)
def test_an_operator_is_what_its_fake_and_its_schema_say(operator, memory_format):
    function, arguments = operator(random((1, 4, 3, 3), memory_format=memory_format).requires_grad_())
    torch.library.opcheck(
        function, arguments, test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration')
    )


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.slow
def test_a_compiled_block_has_the_same_values_and_gradients_and_no_break_in_its_graph(training, kernels):
    block, x = awake(4, 0.5, 1, training), random((2, 4, 3, 3))
    results = []
    for module in (block, torch.compile(block, fullgraph=True, backend='aot_eager', dynamic=False)):
        leaf = x.clone().requires_grad_()
        z = module(leaf)
        results.append([z.detach(), *torch.autograd.grad(z.square().sum(), [leaf, *block.parameters()])])
    torch.testing.assert_close(results[1], results[0])


def test_an_exported_block_runs_the_kernels_at_any_batch_size(kernels, launches):
    block = awake(4, 0.5, 1, training=False)
    batch = torch.export.Dim('batch', min=2)
    with torch.no_grad():
        program = torch.export.export(block, (random((2, 4, 3, 3)),), dynamic_shapes=({0: batch},), strict=False)
        x = random((3, 4, 3, 3))
        launches.clear()
        torch.testing.assert_close(program.module()(x), block(x))
    assert launches == ['context_parts', 'evaluation'] * 2


def test_activation_checkpointing_has_the_same_gradients(kernels):
    block, x = awake(4, 0.5, 2, training=True), random((2, 4, 3, 3)).requires_grad_()
    results = []
    for call in (block, lambda x: torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)):
        results.append(torch.autograd.grad(call(x).square().sum(), [x, *block.parameters()]))
    torch.testing.assert_close(*results)


def test_the_gradient_of_a_gradient_is_refused_in_one_line_that_names_the_switch(kernels):
    x = random((2, 4, 3, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(awake(4, 0.5, 1, training=True)(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match='set AUTONL_GPU_KERNELS=off for gradients of gradients') as refused:
        gradient.sum().backward()
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_block_agrees_under_autocast(dtype, kernels):
    block, x = awake(8, 0.25, 1, training=True), random((2, 8, 4, 4), dtype)
    expected = formula(copy.deepcopy(block).double(), x.double())
    with torch.autocast(DEVICE, dtype=dtype):
        z = block(x.requires_grad_())
        z.float().square().sum().backward()
    assert error(z, expected) < TOLERANCE[dtype]
    assert {parameter.grad.dtype for parameter in block.parameters()} == {torch.float32}


class NormOfSeveralProcesses(nn.BatchNorm2d):
    """As BN over processes is: another class, with a forward pass of its own."""


def test_another_norm_layer_is_called_as_the_module_that_it_is(kernels, launches):
    block, x = awake(4, 0.5, 1, training=True), random((2, 4, 3, 3))
    expected = copy.deepcopy(block)(x)
    block.bn.__class__ = NormOfSeveralProcesses
    launches.clear()
    torch.testing.assert_close(block(x), expected)
    assert launches == ['context_parts', 'convolution']
    assert int(block.bn.num_batches_tracked) == 1


def _hooked(block):
    block.bn.register_forward_hook(lambda module, inputs, output: None)


def _of_another_convolution(block):
    block.conv.__class__ = type('OwnConvolution', (nn.Conv2d,), {})


@pytest.mark.parametrize('change', [_hooked, _of_another_convolution])
def test_a_block_of_which_somebody_waits_for_a_part_is_not_taken_over(change, kernels, launches):
    block, x = awake(4, 0.5, 1, training=True), random((2, 4, 3, 3))
    change(block)
    block(x)
    assert launches == []


@pytest.mark.parametrize(('switch', 'measured', 'taken'), [
    ('on', None, True),
    ('off', 0, False),
    (None, None, False),
    (None, 72, True),
    (None, 73, False),
])  # fmt: skip
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_the_switch_decides_and_without_it_what_was_measured(training, switch, measured, taken, kernels, monkeypatch):
    monkeypatch.setattr(gpu, '_switch', switch)
    other = {'training': 'evaluation', 'evaluation': 'training'}['training' if training else 'evaluation']
    monkeypatch.setitem(gpu.USED_FROM, 'training' if training else 'evaluation', measured)
    monkeypatch.setitem(gpu.USED_FROM, other, None)
    assert gpu.takes_over(awake(4, 0.5, 1, training), random((2, 4, 3, 3))) is taken


def test_on_a_cpu_the_kernels_are_not_used_whatever_the_switch_says(monkeypatch):
    monkeypatch.setattr(gpu, '_switch', 'on')
    assert not gpu.takes_over(LightNL(4, 0.5, 1), torch.zeros(2, 4, 3, 3))


def test_a_switch_that_is_neither_on_nor_off_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv(gpu.SWITCH, 'yes')
    with pytest.raises(ValueError, match="AUTONL_GPU_KERNELS must be on or off, or not be set, but is 'yes'"):
        gpu._setting()


@pytest.mark.skipif(DEVICE == 'cpu', reason='there is no GPU')
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_results_are_the_same_bits_each_time(dtype, kernels):
    block, x = awake(24, 0.25, 1, training=True), random((8, 24, 56, 56), dtype, CHANNELS_LAST).requires_grad_()
    runs = []
    for _ in range(3):
        z = block(x)
        runs.append([z.detach(), *torch.autograd.grad(z.square().sum(), [x, *block.parameters()])])
    for run in runs[1:]:
        assert all(torch.equal(value, first) for value, first in zip(run, runs[0], strict=True))


@pytest.mark.skipif(DEVICE == 'cpu', reason='there is no GPU')
def test_a_cuda_graph_of_the_block_gives_what_the_block_gives(kernels):
    block, x = awake(24, 0.25, 2, training=False), random((4, 24, 28, 28))
    with torch.no_grad():
        block(x)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z = block(x)
        x.copy_(random((4, 24, 28, 28)))
        graph.replay()
        torch.testing.assert_close(z, block(x))


@pytest.mark.skipif(DEVICE == 'cpu', reason='there is no GPU')
@pytest.mark.parametrize('memory_format', [CONTIGUOUS, CHANNELS_LAST], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('shape', [(16, 112, 112), (24, 56, 56), (40, 28, 28), (80, 14, 14), (96, 14, 14), (320, 7, 7)])
def test_every_row_of_mobile_agrees_with_the_formula_on_a_gpu(shape, dtype, memory_format, kernels):
    block, x = awake(shape[0], 0.25, 1, training=True), random((4, *shape), dtype, memory_format)
    exact_x = x.double().requires_grad_()
    exact_z = formula(copy.deepcopy(block).double(), exact_x)
    exact_z.square().sum().backward()
    z = block(x.requires_grad_())
    z.float().square().sum().backward()
    assert error(z, exact_z) < TOLERANCE[dtype]
    assert error(x.grad, exact_x.grad) < 4 * TOLERANCE[dtype]


COMPILE = """
import inspect, triton
from triton.backends.compiler import GPUTarget
from search_space.lightnl import triton_kernels
SCALARS = {'eps': 'fp32', 'share': 'fp32'}
HALF = ('x', 'u', 'z', 'grad', 'grad_y', 'grad_x')
POINTERS = HALF + ('parts', 'weight', 'scale', 'shift', 'mean', 'variance', 'running_mean', 'running_variance',
    'context', 'context_out', 'moments', 'statistics', 'sums', 'grad_context', 'grad_weight', 'grad_scale',
    'grad_shift')
CHOSEN = dict(KP=32, BC=32, BP=64, PRECISION='tf32x3', WIDE=False, ROWS=64, MOMENTS=True, BATCH=True, NORM=True,
    RESIDUAL=True, ATTEND=True, CONTEXT=True)
for name in triton_kernels.__all__:
    kernel = getattr(triton_kernels, name)
    signature, constants = {}, {}
    for place, parameter in enumerate(inspect.signature(kernel.fn).parameters):
        if parameter in CHOSEN:
            signature[parameter], constants[place,] = 'constexpr', CHOSEN[parameter]
        elif parameter in POINTERS:
            signature[parameter] = '*bf16' if parameter in HALF else '*fp32'
        else:
            signature[parameter] = SCALARS.get(parameter, 'i32')
    source = triton.compiler.ASTSource(kernel, signature, constants)
    made = triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert 'atom' not in made.asm['ptx'], name
    print(name, made.metadata.shared)
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_without_atomics_and_fits_into_its_shared_memory():
    own = {key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, '-c', COMPILE], cwd=ROOT, env=own, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    shared = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    assert len(shared) == 7
    assert max(shared.values()) <= 99 * 1024  # of a program, on the smallest of the GPUs in use
