"""A trained network as a file: what every format holds, and what becomes of a checkpoint that is not one."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from dataset_files import without_checksums, write_cifar
from torch import nn

from search_space import LightNL, build, load_skeleton
from search_space.skeleton import Sample, Skeleton
from search_space.skeleton_file import parse_skeleton
from trials import export
from trials.__main__ import main
from trials.datasets import class_names, normalisation
from trials.run import save_trial
from trials.trained_network import load_trained, skeleton_text

CUED = load_skeleton('cued')
LAST = {label: candidates[-1] for label, candidates in CUED.choices().items()}
DATASETS = {'cued': 'cued-digits', 'cifar': 'cifar10', 'mobile': 'imagenet', 'mobilenet-v2': 'imagenet'}
KEYS = {'skeleton', 'sample', 'input_size', 'labels', 'mean', 'std'}


def trained(skeleton: Skeleton, sample: Sample) -> nn.Module:
    """A network with what training changes, BN's statistics and LightNL's scale, other than at its start."""
    torch.manual_seed(0)
    network = build(skeleton, sample).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def leave_trial(folder: Path, skeleton: str, sample: Sample, network: nn.Module, result=None, **changes) -> Path:
    """What a trial leaves in its folder."""
    parameters = {
        'strategy': 'random',
        'stage': 'retrain',
        'seed': 0,
        'skeleton': skeleton,
        'dataset': 'cued-digits',
        'epochs': 1,
        'batch_size': 64,
        'learning_rate': 0.005,
        **sample,
        **changes,
    }
    save_trial(folder, parameters, result or {}, network)
    return folder


@pytest.fixture
def trial(tmp_path):
    return leave_trial(tmp_path / 'trial', 'cued', LAST, trained(CUED, LAST))


def beginning(name: str) -> Skeleton:
    """The first rows of a skeleton, at 32 pixels or 24: every kind of row, and of padding, is among them."""
    skeleton, padding = load_skeleton(name), 'same' if name == 'mobile' else 'symmetric'
    size = 24 if name == 'cued' else 32
    return dataclasses.replace(skeleton, input_size=size, rows=skeleton.rows[:5], padding=padding)


def every_kind_of_block(skeleton: Skeleton) -> Sample:
    """LightNL, and squeeze-excite, wherever they may be; strides of LightNL that need both orders of its product."""
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    return sample | {label: 2 for label in sample if re.fullmatch('row0[35]/lightnl_stride', label)}


def read_onnx(file: Path):
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(file, providers=['CPUExecutionProvider'])
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda x: torch.from_numpy(session.run(None, {'images': x.numpy()})[0]), parsed(metadata)


def read_torchscript(file: Path):
    metadata = dict.fromkeys(KEYS, '')
    network = torch.jit.load(file, _extra_files=metadata)
    return network, parsed({key: value.decode() for key, value in metadata.items()})


def read_torch(file: Path):
    content = torch.load(file, weights_only=True)
    network = build(parse_skeleton(content['skeleton'], str(file)), content['sample']).eval()
    network.load_state_dict(content.pop('state_dict'))
    return network, content


def parsed(texts: dict[str, str]) -> dict:
    return {key: text if key == 'skeleton' else json.loads(text) for key, text in texts.items()}


READ = {'onnx': read_onnx, 'torchscript': read_torchscript, 'torch': read_torch}


@pytest.fixture(scope='module', params=DATASETS)
def left(request, tmp_path_factory):
    """A trial of each skeleton, and what belongs to it."""
    folder, skeleton, dataset = tmp_path_factory.mktemp('trial'), beginning(request.param), DATASETS[request.param]
    sample = every_kind_of_block(skeleton)
    network = trained(skeleton, sample)
    (folder / 'skeleton.yaml').write_text(skeleton_text(skeleton))
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        if dataset == 'cifar10':
            without_checksums(patch)
            write_cifar(folder, dataset, 10, train=1, test=1)
            arguments = {'folder': str(folder)}
        changes = {'dataset': dataset, **{f'dataset/{key}': value for key, value in arguments.items()}}
        leave_trial(folder, str(folder / 'skeleton.yaml'), sample, network, **changes)
        encoding = normalisation(dataset, skeleton.input_size, **arguments)
        yield folder, skeleton, sample, network, class_names(dataset, **arguments), encoding


@pytest.fixture(scope='module', params=export.FORMATS)
def exported(request, left):
    """What the file does and says, as another program reads it."""
    file = left[0] / f'exported-{request.param}'
    assert main(['export', str(left[0]), '--format', request.param, '--out', str(file)]) == 0
    return READ[request.param](file)


@pytest.mark.parametrize('batch', [1, 2, 5])
@pytest.mark.slow
def test_an_exported_network_gives_the_logits_of_the_trained_one_at_any_batch(exported, left, batch):
    run, _ = exported
    _, skeleton, _, network, *_ = left
    images = torch.randn(batch, 3, skeleton.input_size, skeleton.input_size)
    with torch.no_grad():
        torch.testing.assert_close(run(images), network(images), rtol=1e-4, atol=1e-5)


def test_an_exported_network_says_what_it_is_and_what_goes_in_and_comes_out(exported, left):
    _, metadata = exported
    _, skeleton, sample, _, names, (mean, std) = left
    assert metadata.keys() == KEYS
    assert parse_skeleton(metadata['skeleton'], 'metadata') == skeleton
    assert metadata['sample'] == sample
    assert metadata['input_size'] == skeleton.input_size
    assert metadata['labels'] == list(names)
    assert len(names) == skeleton.classes
    assert metadata['mean'] == pytest.approx(mean)
    assert metadata['std'] == pytest.approx(std)


def test_a_file_comes_beside_the_weights_and_its_line_says_so(trial, capsys):
    for checkpoint, format in ((trial, 'torch'), (trial / 'network.pt', 'torchscript')):
        assert main(['export', str(checkpoint), '--format', format]) == 0
        assert capsys.readouterr().out.startswith(f'{trial / f"network.{format}.pt"}: ')
    names = {'network.pt', 'network.torch.pt', 'network.torchscript.pt', 'trial.json'}
    assert {file.name for file in trial.iterdir()} == names


def test_the_network_that_a_search_found_is_that_of_its_result(tmp_path):
    found = LAST | {'row01/lightnl': 'absent'}
    search = {'stage': 'search', 'class': 'strategies.AutoNL'}
    network = trained(CUED, found)
    left = leave_trial(tmp_path, 'cued', {}, network, {'default': 0.9, 'macs': 1, **found}, **search)
    assert load_trained(left).sample == found
    assert not isinstance(load_trained(left).network.rows[0].lightnl, LightNL)


def test_a_sample_is_whole_where_the_experiment_had_fewer_candidates(tmp_path):
    ratios = {f'candidates/row{row:02d}/lightnl_ratio': [0.25] for row in range(1, 6)}
    search = {'strategy': 'autonl', 'stage': 'search', 'class': 'strategies.AutoNL', **ratios}
    left = leave_trial(tmp_path, 'cued', {}, trained(CUED, LAST), result=LAST, **search)
    assert load_trained(left).sample == LAST


def test_classes_are_numbers_where_the_data_that_names_them_is_not_there(tmp_path, caplog):
    changes = {'dataset': 'image-folder', 'dataset/folder': str(tmp_path / 'nowhere')}
    left = leave_trial(tmp_path / 'trial', 'cued', LAST, trained(CUED, LAST), **changes)
    assert load_trained(left).labels == tuple('0123456789')
    (record,) = caplog.records
    assert f'image-folder: {tmp_path / "nowhere"} is missing' in record.getMessage()


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def change_record(**changes):
    def change(folder):
        record = json.loads((folder / 'trial.json').read_text())
        record['parameters'].update(changes)
        (folder / 'trial.json').write_text(json.dumps(record))

    return change


def truncate(folder):
    content = (folder / 'network.pt').read_bytes()
    (folder / 'network.pt').write_bytes(content[: len(content) // 2])


def flip_a_bit(folder):
    content = bytearray((folder / 'network.pt').read_bytes())
    content[len(content) // 2] ^= 1
    (folder / 'network.pt').write_bytes(content)


def save(tensors):
    return lambda folder: torch.save(tensors, folder / 'network.pt')


def become_nan(folder):
    weights = torch.load(folder / 'network.pt', weights_only=True)
    weights['classifier.bias'][3] = torch.nan
    torch.save(weights, folder / 'network.pt')


BAD = {
    'no weights': (remove('network.pt'), r"network\.pt: there is no such file; name a trial's folder, or .*"),
    'no record': (remove('trial.json'), r'trial\.json: there is no such file; the weights alone do not say .*'),
    'record is no JSON': (write('trial.json', b'{"parameters'), r'trial\.json, line 1: not JSON .*'),
    'record is binary': (write('trial.json', b'\xff\xfe'), r'trial\.json: not a text file'),
    'record is a list': (write('trial.json', b'[1]'), r'trial\.json: not what a trial leaves, .*'),
    'record of lists': (write('trial.json', b'{"parameters": [], "result": {}}'), r'trial\.json: .* JSON objects'),
    'another skeleton': (change_record(skeleton='cud'), r"trial\.json: no skeleton 'cud': .* did you mean 'cued'\?"),
    'a lost choice': (change_record(**{'row09/kernel': 3}), r"trial\.json: unknown label 'row09/kernel' .*"),
    'a search without its network': (
        lambda folder: leave_trial(folder, 'cued', {}, nn.Identity(), stage='search', **{'class': 'strategies.AutoNL'}),
        r"trial\.json: no value for 'row01/lightnl'; .*",
    ),
    'data of other classes': (
        change_record(dataset='imagenet'),
        r'trial\.json: data set imagenet has 1000 classes, and the network 10',
    ),
    'truncated weights': (truncate, r'network\.pt: not the weights of a network, or damaged \(.+\)'),
    'a flipped bit': (flip_a_bit, r'network\.pt: not the weights of a network, or damaged \(checksum of .+\)'),
    'weights that are text': (write('network.pt', b'weights'), r'network\.pt: not the weights .* \(.+\)'),
    'weights that are empty': (write('network.pt', b''), r'network\.pt: not the weights .* \(.+\)'),
    'weights that are numbers': (save({'a': 1}), r'network\.pt: not the weights .* \(it holds something else .+\)'),
    'weights that are code': (save({'a': Path}), r'network\.pt: not the weights .* \(.+\)'),
    'another sample': (
        change_record(**{'row02/lightnl': 'absent'}),
        r'network\.pt: not the weights of the network of .*trial\.json: of rows\.row02\.lightnl\.conv\.weight it has '
        r'\(24, 1, 3, 3\), the network none',
    ),
    'weights of too few': (save({}), r'network\.pt: not .*: of stem\.0\.weight it has none, the network .*'),
    'weights that are NaN': (become_nan, r'the logits of the network are NaN or infinite'),
}


@pytest.mark.parametrize(('spoil', 'message'), BAD.values(), ids=BAD)
def test_a_bad_checkpoint_is_one_clear_line_and_status_2_and_no_file(spoil, message, trial, capsys):
    spoil(trial)
    before = sorted(trial.iterdir())
    assert main(['export', str(trial), '--format', 'torchscript']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('python -m trials: ')
    assert re.search(message + '$', line)
    assert sorted(trial.iterdir()) == before


BAD_ARGUMENTS = {
    'no such folder': (['nowhere'], 'nowhere: there is no such file'),
    'unknown format': (['trial', '--format', 'onxx'], "no format 'onxx'; did you mean 'onnx'?"),
    'no folder for the file': (
        ['trial', '--out', 'nowhere/a.pt'],
        'nowhere/a.pt cannot be written: there is no folder',
    ),
    'a folder as the file': (['trial', '--out', 'trial'], 'trial is a folder, not a file'),
    'the weights as the file': (['trial', '--out', 'trial/network.pt'], "trial/network.pt: this is the trial's own"),
    'the record as the file': (['trial', '--out', 'trial/../trial/trial.json'], "trial.json: this is the trial's own"),
}


@pytest.mark.parametrize(('arguments', 'message'), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_a_bad_argument_is_one_clear_line_and_status_2_and_no_file(arguments, message, trial, capsys, monkeypatch):
    monkeypatch.chdir(trial.parent)
    before = {file: file.read_bytes() for file in trial.iterdir()}
    assert main(['export', '--format', 'torch', *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert {file: file.read_bytes() for file in trial.iterdir()} == before


def test_a_package_that_is_not_there_is_named_with_what_installs_it(trial, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    assert main(['export', str(trial), '--format', 'onnx']) == 2
    said = capsys.readouterr().err
    assert said.endswith("format onnx needs onnxscript: in the project's folder, pip install -e '.[export]'\n")


def test_a_file_that_does_not_give_pytorchs_logits_is_not_written(trial, capsys, monkeypatch):
    form = export.FORMATS['torch']

    def write_another(network, *arguments):
        network.classifier.weight.data[0] *= 1.01
        content = form.write(network, *arguments)
        network.classifier.weight.data[0] /= 1.01
        return content

    monkeypatch.setitem(export.FORMATS, 'torch', form._replace(write=write_another))
    assert main(['export', str(trial), '--format', 'torch']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "network.torch.pt is not written: in torch the network's logits are not PyTorch's, but differ by" in line
    assert not (trial / 'network.torch.pt').exists()


def test_on_a_full_disk_an_earlier_file_stays_as_it_was(trial, capsys, monkeypatch):
    (trial / 'network.torch.pt').write_text('earlier')

    def full_disk(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full_disk)
    assert main(['export', str(trial), '--format', 'torch']) == 1
    assert capsys.readouterr().err.endswith('network.torch.pt cannot be written: No space left on device\n')
    assert {file.name for file in trial.iterdir()} == {'network.pt', 'network.torch.pt', 'trial.json'}
    assert (trial / 'network.torch.pt').read_text() == 'earlier'
