"""Released weights, from the file that somebody downloads to the logits of the network that was trained."""

import csv
import dataclasses
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import write_images
from hypothesis import given
from hypothesis import strategies as st
from released_files import (
    AVERAGE,
    DATA,
    as_pytorch_names_them,
    as_tensorflow_names_them,
    images,
    made_up,
    made_up_pytorch,
    made_up_tensorflow,
    write_pytorch,
    write_table,
    write_tensorflow,
)
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as crc32c_of_tensorboard
from torch import nn
from torch.utils.data import default_collate

from search_space import LightNL, build, load_network
from search_space.skeleton_file import load_skeleton
from trials import datasets
from trials.__main__ import main
from trials.trained_network import load_trained
from trials.weights.crc32c import masked_crc32c
from trials.weights.pytorch_checkpoint import read_pytorch
from trials.weights.tensorflow_checkpoint import TensorFlowCheckpoint

TENSORFLOW, PYTORCH = 'bestmodel.ckpt.index', 'best.pth'
DATA_FILE = 'bestmodel.ckpt.data-00000-of-00001'


def logits_of(folder: Path, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return load_trained(folder).network(x).numpy()


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """A folder with AutoNL-S in both programs' files."""
    folder = tmp_path_factory.mktemp('released')
    step = {'global_step': np.array(437_500.0, np.float32)}
    weights = made_up_tensorflow()
    plain = {name.removesuffix(AVERAGE): value + 1 for name, value in weights.items()}  # what they are averages of
    write_tensorflow(folder / TENSORFLOW, weights | plain | step, dtypes={'global_step': 9})
    write_pytorch(folder / PYTORCH, made_up_pytorch())
    write_pytorch(folder / 'old.pth', made_up_pytorch(), archive=False)
    return folder


@pytest.mark.parametrize(
    ('file', 'recorded'),
    [
        (TENSORFLOW, 'tf-autonl-s-logits.npz'),
        (PYTORCH, 'pt-autonl-s.npz'),
        ('old.pth', 'pt-autonl-s.npz'),
    ],
)
@pytest.mark.slow
def test_the_network_gives_the_logits_of_the_program_that_trained_it(released, tmp_path, capsys, file, recorded):
    assert main(['import', str(released / file), '--network', 'autonl-s', '--out', str(tmp_path / 'net')]) == 0
    said = capsys.readouterr().out
    assert 'all 360 tensors of the network filled, each once' in said
    difference = np.abs(logits_of(tmp_path / 'net', images()) - np.load(DATA / recorded)['logits']).max()
    assert difference <= 2e-5
    rows = list(csv.DictReader((tmp_path / 'net' / 'weights.csv').open()))
    used = [row['file'] for row in rows if row['network']]
    assert len(used) == len(set(used)) == 360
    assert all(name.endswith(AVERAGE) or name.startswith('ema.shadow.') for name in used)
    unused = {row['file'] for row in rows if not row['network']}
    assert len(unused) == (361 if 'ckpt' in file else 360)  # what averages are of, and the number of the step
    assert unused >= ({'global_step'} if 'ckpt' in file else {'model.module.classifier.1.bias'})


def test_what_gives_finite_logits_on_photographs_is_exported(released, tmp_path, capsys):
    """On white noise the logits of this file's network are NaN: LightNL's output is of third order in its input."""
    assert main(['import', str(released / PYTORCH), '--network', 'autonl-s', '--out', str(tmp_path / 'net')]) == 0
    assert main(['export', str(tmp_path / 'net'), '--format', 'torch']) == 0
    exported = torch.load(tmp_path / 'net' / 'network.torch.pt', weights_only=True)
    assert exported['state_dict'].keys() == torch.load(tmp_path / 'net' / 'network.pt', weights_only=True).keys()


def trained_in(program: str, network: nn.Module, folder: Path) -> Path:
    """The file that ``program`` would have left of ``network``."""
    if program == 'tensorflow':
        write_tensorflow(folder / TENSORFLOW, as_tensorflow_names_them(network))
        return folder / TENSORFLOW
    write_pytorch(folder / PYTORCH, as_pytorch_names_them(network))
    return folder / PYTORCH


def network_of(skeleton, sample) -> nn.Module:
    """One with statistics of its own, as after a training."""
    torch.manual_seed(0)
    network = build(skeleton, sample)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            scale = 0.05 if 'lightnl' in name else 1  # what is a product of three grows from block to block
            nn.init.uniform_(module.weight, 0.5 * scale, 1.5 * scale)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    with torch.no_grad():
        network(images()[:, :, : skeleton.input_size, : skeleton.input_size])
    return network.eval()


def kernels_as_written(network: nn.Module, skeleton) -> None:
    """Makes the weights those of a program that divides by the height and multiplies by the width."""
    side = skeleton.input_size // skeleton.stem_stride
    for row, of in zip(network.rows, skeleton.rows, strict=True):
        side = -(-side // of.stride)
        if isinstance(getattr(row, 'lightnl', None), LightNL):
            row.lightnl.conv.weight.data /= side**2


@pytest.mark.parametrize('program', ['tensorflow', 'pytorch, divided by the formula', 'pytorch, divided as written'])
@pytest.mark.slow
def test_autonl_l_comes_back_from_the_file_of_either_program(tmp_path, capsys, program):
    skeleton, sample = load_network('autonl-l')
    if program == 'tensorflow':
        skeleton = dataclasses.replace(skeleton, padding='same')
    network = network_of(skeleton, sample)
    with torch.no_grad():
        expected = network(images()).numpy()
    assert np.isfinite(expected).all()
    if program.endswith('written'):
        kernels_as_written(network, skeleton)
    file = trained_in(program.partition(',')[0], network, tmp_path)
    assert main(['import', str(file), '--network', 'autonl-l', '--out', str(tmp_path / 'net')]) == 0
    said = capsys.readouterr().out
    if program != 'tensorflow':
        assert f"division of LightNL's product: {'as-written' if 'written' in program else 'formula'} (" in said
    np.testing.assert_allclose(logits_of(tmp_path / 'net', images()), expected, atol=2e-5 * np.abs(expected).max())


SKELETON = """
name: small
input_size: 32
classes: 10
stem_channels: 8
stem_stride: 2
head_channels: 32
rows:
  - {channels: 8, expansion: 1}
  - {channels: 16, stride: 2, kernel: 5, lightnl: [absent, present], se: 0.25}
  - {channels: 16, presence: [absent, present]}
  - {channels: 16, lightnl: [present, absent], lightnl_stride: 2}
"""
SAMPLE = {
    'row02/lightnl': 'present',
    'row03/presence': 'absent',
    'row04/lightnl': 'present',
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with a small network, ``small.yaml``, and its weights in both programs' files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'skeleton.yaml').write_text(SKELETON)
    (tmp_path / 'small.yaml').write_text(json.dumps({'skeleton': 'skeleton.yaml', 'sample': SAMPLE}))
    (tmp_path / 'other.yaml').write_text(
        json.dumps({'skeleton': 'skeleton.yaml', 'sample': SAMPLE | {'row03/presence': 'present'}})
    )
    skeleton = load_skeleton(tmp_path / 'skeleton.yaml')
    for program in ('tensorflow', 'pytorch'):
        padding = 'same' if program == 'tensorflow' else 'symmetric'
        trained_in(program, network_of(dataclasses.replace(skeleton, padding=padding), SAMPLE), tmp_path)
    return tmp_path


def import_small(file: str, *arguments: str) -> int:
    return main(['import', file, '--network', 'small.yaml', '--out', 'net', '--dataset', 'image-folder', *arguments])


@pytest.mark.parametrize(
    ('file', 'padding'),
    [(TENSORFLOW, 'same'), ('bestmodel.ckpt', 'same'), (DATA_FILE, 'same'), (PYTORCH, 'symmetric')],
)
def test_a_users_own_network_is_imported_with_the_padding_of_the_program_and_goes_where_its_folder_goes(
    small, file, padding
):
    assert import_small(file) == 0
    expected = network_of(dataclasses.replace(load_skeleton('skeleton.yaml'), padding=padding), SAMPLE)
    (small / 'skeleton.yaml').unlink()
    (small / 'net').rename(small / 'elsewhere')
    found = load_trained(small / 'elsewhere')
    assert found.skeleton.padding == padding
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found.network(x), expected(x))


def test_what_a_file_does_not_show_can_be_said(small, capsys):
    averages = averages_in(small)
    for name in averages:
        if name.endswith('nl_op.bn.running_var'):
            averages[name] = torch.full_like(averages[name], 1e-20)
    write_pytorch(small / PYTORCH, averages)
    assert import_small(PYTORCH) == 2
    assert "does not show by what LightNL's product was divided" in capsys.readouterr().err
    assert not (small / 'net').exists()
    kernels = {}
    for division, factor in (('formula', 1), ('as-written', 8**2)):
        assert import_small(PYTORCH, '--division', division, '--out', division) == 0
        kernels[division] = load_trained(Path(division)).network.rows.row02.lightnl.conv.weight / factor
    assert torch.equal(kernels['formula'], kernels['as-written'])


def averages_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: stored.read() for name, stored in read_pytorch(folder / PYTORCH)['ema']['shadow'].items()}


def tensorflow_with(change):
    """The file of other tensors."""

    def spoil(folder):
        checkpoint = TensorFlowCheckpoint(folder / TENSORFLOW)
        tensors = {name: checkpoint.read(name) for name in checkpoint.entries}
        change(tensors)
        write_tensorflow(folder / TENSORFLOW, tensors)

    return spoil


def pytorch_with(change, **changes):
    def spoil(folder):
        averages = averages_in(folder)
        change(averages)
        write_pytorch(folder / PYTORCH, averages, **changes)

    return spoil


def cut_off(name, keep=0.5):
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def flip_a_bit(name, at=0.5):
    def spoil(folder):
        content = bytearray((folder / name).read_bytes())
        content[int(len(content) * at)] ^= 4
        (folder / name).write_bytes(content)

    return spoil


def add_step(tensors):
    tensors['global_step'] = np.array(437_500.0, np.float32)  # the first of the names, and of the data


def key_twice(folder):
    entries = [(b'', b'\x08\x01'), (b'a', b'\x08\x01'), (b'a', b'\x08\x01')]
    write_table(folder / TENSORFLOW, entries)


def rename(old, new):
    def change(tensors):
        tensors[new] = tensors.pop(old)

    return change


PROJECT = 'single-path/mnas_net_model/mnas_blocks_1/conv2d_4/kernel' + AVERAGE
VARIANCE = 'single-path/mnas_head/batch_normalization/moving_variance' + AVERAGE


class RunsACommand:
    def __reduce__(self):
        return os.system, ('touch was-run',)


class Evaluates:
    def __reduce__(self):
        return eval, ("open('was-run', 'w')",)


def save(content, archive=True):
    return lambda folder: torch.save(content, folder / PYTORCH, _use_new_zipfile_serialization=archive)


def spoiled_pickle(change):
    """The archive with another pickle in it, its checksum right."""

    def spoil(folder):
        content = (folder / PYTORCH).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(folder / PYTORCH, 'w') as after:
            for record in before.namelist():
                value = before.read(record)
                after.writestr(record, change(value) if record.endswith('data.pkl') else value)

    return spoil


BAD = {
    'no file': (TENSORFLOW, lambda folder: (folder / TENSORFLOW).unlink(), r'index: there is no such file; name a .+'),
    'no data': (TENSORFLOW, lambda folder: (folder / DATA_FILE).unlink(), rf'{DATA_FILE}: there is no such file; .+'),
    'data cut off': (TENSORFLOW, cut_off(DATA_FILE), rf'{DATA_FILE}: damaged: it ends within \S+'),
    'index cut off': (TENSORFLOW, cut_off(TENSORFLOW), r'index: not the index of a .+, or damaged \(its last bytes\)'),
    'index empty': (TENSORFLOW, cut_off(TENSORFLOW, 0), r'index: not the index of a .+, or damaged \(its last bytes\)'),
    'a bit of the data': (TENSORFLOW, flip_a_bit(DATA_FILE), rf'{DATA_FILE}: damaged: checksum of \S+'),
    'a bit of what is not used': (
        TENSORFLOW,
        lambda folder: (tensorflow_with(add_step)(folder), flip_a_bit(DATA_FILE, 0)(folder)),
        rf'{DATA_FILE}: damaged: checksum of global_step',
    ),
    'a bit of a block': (TENSORFLOW, flip_a_bit(TENSORFLOW), r'index: not the .+ damaged \(checksum of the block .+\)'),
    'a bit of the footer': (TENSORFLOW, flip_a_bit(TENSORFLOW, 0.999), r'index: not the .+ damaged \(its last bytes\)'),
    'a name twice': (TENSORFLOW, key_twice, r"index: not the .+ \(the key 'a' twice or out of order\)"),
    'another type': (
        TENSORFLOW,
        lambda folder: write_tensorflow(
            folder / TENSORFLOW,
            {
                n: TensorFlowCheckpoint(folder / TENSORFLOW).read(n)
                for n in TensorFlowCheckpoint(folder / TENSORFLOW).entries
            },
            dtypes={PROJECT: 2},
        ),
        r'mnas_blocks_1/conv2d_4/kernel\S+ is not one whole tensor of float32, .+',
    ),
    'a tensor missing': (
        TENSORFLOW,
        tensorflow_with(lambda tensors: tensors.pop(VARIANCE)),
        r'not the weights of this network: it has nothing for head.1.running_var \(single-path/mnas_head/.+\)',
    ),
    'a layer missing': (
        TENSORFLOW,
        tensorflow_with(lambda tensors: tensors.pop(PROJECT)),
        r'not the .+: mnas_blocks_1: it has 1 convolutions, the network 2',
    ),
    'a layer double': (
        TENSORFLOW,
        tensorflow_with(lambda tensors: tensors.update({PROJECT.replace('_4', '_99'): tensors[PROJECT]})),
        r'not the .+: mnas_blocks_1: it has 3 convolutions, the network 2',
    ),
    'another shape': (
        TENSORFLOW,
        tensorflow_with(lambda tensors: tensors.update({PROJECT: tensors[PROJECT][..., :15]})),
        r'not the .+: \S+conv2d_4\S+ is \(15, 24, 1, 1\), and rows.row02.body.project.weight is \(16, 24, 1, 1\)',
    ),
    'not a number': (
        TENSORFLOW,
        tensorflow_with(lambda tensors: tensors.update({VARIANCE: tensors[VARIANCE] * np.nan})),
        rf'index: damaged: {VARIANCE} has values that no such weights have',
    ),
    'no averages': (
        TENSORFLOW,
        tensorflow_with(
            lambda tensors: [tensors.update({n.removesuffix(AVERAGE): tensors.pop(n)}) for n in [*tensors]]
        ),
        r'not the weights of this network: it has 0 rows, the network 3',
    ),
    'archive cut off': (PYTORCH, cut_off(PYTORCH), r'pth: neither a TensorFlow checkpoint nor a .+ damaged \(.+\)'),
    'a bit of the archive': (PYTORCH, flip_a_bit(PYTORCH), r'pth: neither .+ damaged \(.+\)'),
    'a text': (PYTORCH, lambda folder: (folder / PYTORCH).write_text('weights'), r'pth: neither .+ damaged \(.+\)'),
    'empty': (PYTORCH, cut_off(PYTORCH, 0), r'pth: neither .+ damaged \(.+\)'),
    'no weights in it': (PYTORCH, save({'a': 1}), r'pth: not the weights of this network: it has nothing for .+'),
    'one tensor missing': (
        PYTORCH,
        pytorch_with(lambda tensors: tensors.pop('classifier.1.bias')),
        r'pth: not the weights of this network: it has nothing for classifier.bias',
    ),
    'one tensor double': (
        PYTORCH,
        pytorch_with(lambda tensors: tensors.update({'module.classifier.1.bias': tensors['classifier.1.bias']})),
        r'pth: not the .+: two of its tensors are classifier.bias of the network',
    ),
    'one depthwise kernel double': (
        PYTORCH,
        pytorch_with(
            lambda tensors: tensors.update({'features.2.depth_ops.0.2.0.weight': torch.ones(24, 1, 5, 5)}),
        ),
        r'pth: not the .+: two of its tensors are rows.row02.body.depthwise.weight of the network',
    ),
    'one of another shape': (
        PYTORCH,
        pytorch_with(lambda tensors: tensors.update({'classifier.1.bias': torch.ones(11)})),
        r'pth: not the .+: ema.shadow.classifier.1.bias is \(11,\), and classifier.bias is \(10,\)',
    ),
    'a negative variance': (
        PYTORCH,
        pytorch_with(lambda tensors: tensors['features.0.1.running_var'].neg_()),
        r'pth: damaged: ema.shadow.features.0.1.running_var has values .+',
    ),
    'a command': (
        PYTORCH,
        save({'model': RunsACommand()}),
        r"pth: refused, nothing of it was run: it wants '\w+.system' .+",
    ),
    'an old file with a command': (
        PYTORCH,
        save({'model': RunsACommand()}, archive=False),
        r"pth: refused, nothing of it was run: it wants '\w+.system' called",
    ),
    'code to evaluate': (PYTORCH, save([Evaluates()]), r"pth: refused, .+: it wants '\S+.eval' called"),
    'a bare pickle': (
        PYTORCH,
        lambda folder: (folder / PYTORCH).write_bytes(pickle.dumps(RunsACommand())),
        r"pth: refused, nothing of it was run: it wants '\w+.system' called",
    ),
    'a class of the file, called': (
        PYTORCH,
        spoiled_pickle(lambda _: b'\x80\x02cutils.meters\nScalarMeter\nX\x01\x00\x00\x00a\x85R.'),
        r"pth: refused, nothing of it was run: it wants 'utils.meters.ScalarMeter' called",
    ),
    'a file from elsewhere': (
        PYTORCH,
        spoiled_pickle(lambda _: b'\x80\x02X\x0b\x00\x00\x00/etc/passwdQ.'),
        r'pth: refused, nothing of it was run: it wants something else than tensors .+',
    ),
    'a pickle without end': (PYTORCH, spoiled_pickle(lambda content: content[:-40]), r'pth: neither .+ damaged \(.+\)'),
}


@pytest.mark.parametrize(('file', 'spoil', 'message'), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_line_and_runs_nothing(small, capsys, file, spoil, message):
    spoil(small)
    assert import_small(file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message + '$', line), line
    assert not (small / 'net').exists()
    assert not (small / 'was-run').exists()


@pytest.mark.parametrize('file', [TENSORFLOW, PYTORCH])
def test_a_file_of_another_network_is_refused(small, capsys, file):
    for network, message in (
        ('other.yaml', 'it has 3 rows, the network 4'),
        ('autonl-s', 'it has 3 rows, the network 18'),
    ):
        assert main(['import', file, '--network', network, '--out', 'net']) == 2
        assert capsys.readouterr().err.endswith(f'not the weights of this network: {message}\n')


BAD_ARGUMENTS = {
    'no such network': (['--network', 'autonl-x'], "no network or skeleton 'autonl-x'"),
    'a whole space': (['--network', 'mobile'], 'is a whole space, not a network'),
    'no such data set': (['--dataset', 'imagnet'], "no data set 'imagnet'; it must be one of"),
    'no such division': (['--division', 'half'], 'division must be one of auto, formula, as-written'),
    'a division of TensorFlow': (
        [TENSORFLOW, '--division', 'as-written'],
        f"division is for PyTorch files, not 'as-written' for {TENSORFLOW}",
    ),
    'a folder with a trial': (['--out', 'there'], 'trial.json: is there already, and is not written over'),
}


@pytest.mark.parametrize(('arguments', 'message'), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_a_bad_argument_is_refused_in_one_line(small, capsys, arguments, message):
    (small / 'there').mkdir()
    (small / 'there' / 'trial.json').write_text('{}')
    file, *arguments = arguments if arguments[0] == TENSORFLOW else [PYTORCH, *arguments]
    assert import_small(file, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (small / 'net').exists()


def test_a_checkpoint_that_tensorflow_wrote_is_read():
    checkpoint = TensorFlowCheckpoint(DATA / 'tiny.ckpt.index')
    assert {name: entry.shape for name, entry in checkpoint.entries.items()} == {
        'global_step_like/bias': (1,),
        f'scope/batch_normalization_1/gamma{AVERAGE}': (8,),
        f'scope/conv2d/kernel{AVERAGE}': (3, 3, 4, 8),
    }
    kernel = f'scope/conv2d/kernel{AVERAGE}'
    assert np.array_equal(checkpoint.read(kernel), made_up(kernel, [3, 3, 4, 8]))


@given(st.binary(max_size=3000))
def test_the_checksum_is_the_one_that_others_compute(content):
    assert masked_crc32c(content) == crc32c_of_tensorboard(content)


@pytest.mark.parametrize(('file', 'padding'), [(TENSORFLOW, 'same'), (PYTORCH, 'symmetric')])
@pytest.mark.slow
def test_the_import_goes_on_to_an_accuracy_to_onnx_and_to_a_network_of_the_users_own_classes(
    small, capsys, file, padding
):
    runtime = pytest.importorskip('onnxruntime')
    assert import_small(file) == 0
    write_images(small / 'images' / 'train', [f'class {number}' for number in range(10)], 20)
    write_images(small / 'images' / 'test', [f'class {number}' for number in range(10)], 3)
    capsys.readouterr()
    assert main(['evaluate', 'net', '--folder', 'images', '--json', '--device', 'cpu']) == 0
    found = json.loads(capsys.readouterr().out)
    parts = datasets.load('image-folder', 32, folder='images', crop='tensorflow', interpolation='bicubic')
    images, labels = default_collate(list(parts.test))
    assert found['images'] == len(labels) == 30
    assert found['top1'] == (logits_of(small / 'net', images).argmax(1) == labels.numpy()).mean()
    assert main(['export', 'net', '--format', 'onnx']) == 0
    session = runtime.InferenceSession('net/network.onnx', providers=['CPUExecutionProvider'])
    x = torch.randn(3, 3, 32, 32)
    (logits,) = session.run(None, {'images': x.numpy()})
    np.testing.assert_allclose(logits, logits_of(small / 'net', x), rtol=1e-4, atol=1e-5)
    assert f'padding: {padding}' in session.get_modelmeta().custom_metadata_map['skeleton']

    for part in ('train', 'val', 'test'):
        write_images(small / 'birds' / part, ['crow', 'heron', 'owl'], 12)
    own = (small / 'net' / 'skeleton.yaml').read_text().replace('classes: 10', 'classes: 3')
    (small / 'birds.yaml').write_text(own)
    recipe = {'strategy': 'user', 'stage': 'test', 'seed': 0, 'epochs': 2, 'batch_size': 8, 'learning_rate': 1e-4}
    recipe |= {'ema_decay': 0.9, 'recalibrate': 2, 'workers': 1}
    data = {'skeleton': str(small / 'birds.yaml'), 'dataset': 'image-folder', 'dataset/folder': str(small / 'birds')}
    network = load_skeleton('birds.yaml').sample_of(load_skeleton('skeleton.yaml').fix(SAMPLE))
    (small / 'tune.json').write_text(json.dumps({**recipe, **data, 'initial': str(small / 'net'), **network}))
    capsys.readouterr()
    assert main(['run', '--parameters', 'tune.json', '--out', 'tuned']) == 0
    said = capsys.readouterr()
    assert re.search('the classifier starts anew: .+ has 10 classes, not 3', said.err)
    tuned, given = (load_trained(small / name) for name in ('tuned', 'net'))
    assert tuned.labels == ('crow', 'heron', 'owl')
    assert tuned.skeleton.padding == padding
    weights = tuned.network.state_dict()
    for name, weight in given.network.named_parameters():
        if not name.startswith('classifier.'):
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=0.01)
    reported = json.loads(said.out.splitlines()[-1])
    for part, name in (('validation', 'default'), ('test', 'test_accuracy')):
        assert main(['evaluate', 'tuned', '--part', part, '--json', '--device', 'cpu']) == 0
        assert json.loads(capsys.readouterr().out)['top1'] == reported[name]


def test_what_was_imported_is_no_trial_to_run_again(small, capsys):
    assert import_small(PYTORCH) == 0
    record = (small / 'net' / 'trial.json').read_bytes()
    assert main(['run', '--parameters', 'net/trial.json']) == 2
    assert 'these are imported weights, which no training gives' in capsys.readouterr().err
    assert (small / 'net' / 'trial.json').read_bytes() == record
