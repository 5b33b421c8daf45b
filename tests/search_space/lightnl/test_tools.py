"""What PyTorch's tools make of LightNL and of a network with it: what they make of torchvision's MobileNetV2."""

import io
import shutil
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from search_space import LightNL, NonLocal, build, load_skeleton
from search_space.lightnl.macs import lightnl_macs, non_local_macs

pytestmark = [
    pytest.mark.filterwarnings('ignore::FutureWarning'),
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),
    pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning'),
]


def found_network():
    """A network of ``cued`` with LightNL on every row."""
    skeleton = load_skeleton('cued')
    return build(skeleton, {label: candidates[-1] for label, candidates in skeleton.choices().items()})


SUBJECTS = {
    'LightNL, context first': (lambda: LightNL(8, 0.25, 2), (8, 12, 10)),
    'LightNL, affinity first': (lambda: LightNL(8, 1, 4), (8, 6, 5)),
    'LightNL at stride 1': (lambda: LightNL(8, 0.25, 1), (8, 12, 10)),
    'NonLocal': (lambda: NonLocal(8), (8, 12, 10)),
    'found network': (found_network, (3, 48, 40)),
    'MobileNetV2': (lambda: torchvision.models.mobilenet_v2(num_classes=4), (3, 48, 40)),
}


@pytest.fixture(params=SUBJECTS)
def subject(request):
    """A network in evaluation, awake, whose weights require gradients; images, and images of other sizes."""
    torch.manual_seed(0)
    make, (channels, height, width) = SUBJECTS[request.param]
    network = make().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return network, torch.randn(2, channels, height, width), torch.randn(3, channels, 2 * height - 1, height + 7)


def same(found, network, *batches):
    for x in batches:
        torch.testing.assert_close(found(x), network(x), rtol=1e-3, atol=1e-4)


def per_image_gradients(network, x):
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def loss(parameters, image):
        return functional_call(network, parameters, (image[None],)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for index, image in enumerate(x):
        network.zero_grad()
        network(image[None]).square().sum().backward()
        for name, value in network.named_parameters():
            torch.testing.assert_close(found[name][index], value.grad, rtol=1e-3, atol=1e-3 * value.grad.abs().max())


def test_per_image_gradients_by_vmap_of_grad_are_those_of_backward(subject):
    network, x, _ = subject
    per_image_gradients(network, x)


def test_the_jacobian_by_jacrev_times_a_direction_is_what_jvp_gives(subject):
    network, x, _ = subject
    network, x = network.double(), x[:1].double()
    direction = torch.randn_like(x)

    def few(x):
        return network(x).flatten()[:4]

    jacobian = jacrev(few)(x)
    torch.testing.assert_close((jacobian * direction).flatten(1).sum(1), jvp(few, (x,), (direction,))[1])


def test_torch_fx_gives_a_graph_that_takes_other_sizes_and_features_of_any_node(subject):
    network, x, other = subject
    same(torch.fx.symbolic_trace(network), network, x, other)
    nodes = get_graph_node_names(network)[1]
    features = create_feature_extractor(network, [nodes[1], nodes[-1]])(x)
    torch.testing.assert_close(features[nodes[-1]], network(x))


def saved_and_loaded(scripted):
    content = io.BytesIO()
    torch.jit.save(scripted, content)
    content.seek(0)
    return torch.jit.load(content)


@pytest.mark.parametrize('script', [torch.jit.script, None], ids=['script', 'trace'])
def test_torchscript_saves_it_with_weights_that_require_gradients(subject, script):
    network, x, other = subject
    scripted = script(network) if script else torch.jit.trace(network, x)
    same(saved_and_loaded(scripted), network, x, other)


def test_fvcore_counts_the_macs_of_both_products_with_weights_that_require_gradients(subject):
    analysis = pytest.importorskip('fvcore.nn')
    network, x, _ = subject
    counter = (
        analysis.FlopCountAnalysis(network, x[:1]).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    )
    counted = sum(counter.by_operator()[name] for name in ('conv', 'bmm'))
    if isinstance(network, LightNL):
        assert counted == lightnl_macs(*x.shape[1:], network.ratio, network.stride)
    elif isinstance(network, NonLocal):
        assert counted == non_local_macs(*x.shape[1:])
    else:
        assert counted > 0


@pytest.mark.slow
def test_torch_export_leaves_batch_height_and_width_open(subject):
    network, x, other = subject
    dim = torch.export.Dim
    lowest = 33 if x.shape[1] == 3 else 5
    open_sizes = {0: dim('n', min=1, max=64), 2: dim('h', min=lowest, max=512), 3: dim('w', min=lowest, max=512)}
    program = torch.export.export(network, (x,), dynamic_shapes=(open_sizes,), strict=False)
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    same(torch.export.load(content).module(), network, x, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler, and there is none')
@pytest.mark.parametrize('subject', [name for name in SUBJECTS if name != 'MobileNetV2'], indirect=True)
def test_torch_compile_takes_the_whole_graph_for_inference_at_any_size(subject):
    network, x, other = subject
    torch.compiler.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        same(torch.compile(network, fullgraph=True, dynamic=True), network, x, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler, and there is none')
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('stride', [1, 2])
def test_torch_compile_gives_the_gradients_at_any_size(stride, memory_format):
    torch.compiler.reset()
    block = LightNL(16, 0.25, stride, scale=1.0)
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    for n, height, width in ((2, 12, 10), (3, 9, 11)):
        x, gradients = torch.randn(n, 16, height, width).to(memory_format=memory_format), []
        for module in (block, compiled):
            leaf = x.clone().requires_grad_()
            module(leaf).square().sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
