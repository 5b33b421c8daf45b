"""The networks that come with the package, and networks in a user's file."""

import warnings

import pytest
import torch
import yaml
from torchvision.models import mobilenet_v2

from search_space import LightNL, LightNLSpace, build, load_network, load_skeleton, named_networks, params

# Rows with LightNL: (channel ratio, stride); the table of the paper's released networks.
WIDE, STRIDED, NARROW = (0.25, 1), (0.25, 2), (0.125, 1)
LIGHTNL = {
    'autonl-l': {
        **dict.fromkeys((2, 5, 9, 13, 17, 21), WIDE),
        **dict.fromkeys((4, 6, 7, 8, 16), STRIDED),
        12: (0.125, 2),
        **dict.fromkeys((18, 19), NARROW),
    },
    'autonl-s': {**dict.fromkeys((2, 5, 9, 13, 17, 21), WIDE), 6: STRIDED},
    'mobilenet-v2': {},
}
ABSENT_ROWS = {'autonl-l': [], 'autonl-s': [4, 8, 12], 'mobilenet-v2': []}


def test_the_published_networks_come_by_name():
    assert set(named_networks()) == set(LIGHTNL)


@pytest.mark.parametrize('name', named_networks())
def test_a_named_network_is_where_the_paper_has_it(name):
    skeleton, sample = load_network(name)
    assert skeleton.lightnl_positions(sample) == LIGHTNL[name]
    rows = enumerate(skeleton.fix(sample).rows, start=1)
    assert [number for number, row in rows if row.presence == 'absent'] == ABSENT_ROWS[name]


@pytest.mark.parametrize('name', named_networks())
def test_a_named_network_is_in_its_canonical_form(name):
    skeleton, sample = load_network(name)
    assert skeleton.canonical(sample) == sample


@pytest.mark.parametrize('name', named_networks())
def test_a_named_network_runs_forward_and_backward_at_its_own_size(name):
    skeleton, sample = load_network(name)
    network = LightNLSpace(skeleton).freeze(sample)
    assert sum(p.numel() for p in network.parameters()) == params(skeleton)(sample)
    logits = network(torch.randn(2, 3, skeleton.input_size, skeleton.input_size))
    logits.square().mean().backward()
    assert logits.shape == (2, 1000)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.slow
def test_a_published_network_keeps_its_logits_in_onnx_half_precision_and_channels_last(tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    skeleton, sample = load_network('autonl-s')
    network = build(skeleton, sample).eval()
    for block in network.modules():
        if isinstance(block, LightNL):
            torch.nn.init.uniform_(block.bn.weight, 0.5, 1.5)
    x = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        expected = network(x)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast('cpu', dtype=dtype):
                torch.testing.assert_close(network(x).float(), expected, rtol=0.02, atol=0.005)
    path, batch = str(tmp_path / 'network.onnx'), torch.export.Dim('batch')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(network, (x[:2],), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_mobilenet_v2_is_torchvisions():
    skeleton, sample = load_network('mobilenet-v2')
    ours, theirs = build(skeleton, sample).eval(), mobilenet_v2(weights=None).eval()
    for mine, value in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        mine.copy_(value)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    assert ours.head[1].eps == theirs.features[-1][1].eps
    assert ours.head[1].momentum == theirs.features[-1][1].momentum
    assert ours.dropout.p == theirs.classifier[0].p


def test_a_users_network_may_be_of_a_shipped_skeleton(tmp_path):
    skeleton = load_skeleton('cifar')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump({'skeleton': 'cifar', 'sample': sample}))
    assert load_network(path) == (skeleton, sample)


def test_a_users_network_finds_its_skeleton_beside_itself(tmp_path, monkeypatch):
    (tmp_path / 'nets').mkdir()
    (tmp_path / 'nets' / 'body.yaml').write_text(
        '{name: body, input_size: 8, classes: 2, stem_channels: 4, stem_stride: 1, head_channels: 4,'
        ' rows: [{channels: 4, kernel: [3, 5]}]}'
    )
    (tmp_path / 'nets' / 'net.yaml').write_text('{skeleton: body.yaml, sample: {row01/kernel: 5}}')
    monkeypatch.chdir(tmp_path)
    skeleton, sample = load_network('nets/net.yaml')
    assert (skeleton.name, sample) == ('body', {'row01/kernel': 5})
