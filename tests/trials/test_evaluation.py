"""Measuring a network, and ``python -m trials evaluate``: from what a trial or an import left to numbers and tables."""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import WNIDS, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trial import RETRAIN, SEARCH, small_data, write_parameters
from torch import nn

from search_space import build, load_skeleton
from trials import datasets
from trials.__main__ import main
from trials.evaluate import Evaluation, write_confusion, write_per_class
from trials.run import save_trial
from trials.trained_network import load_network
from trials.training.evaluation import Measured, measure
from trials.training.loader import loader


class GivenLogits(nn.Module):
    """Takes its logits out of the images, whose first pixels they are."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes, self.weight = classes, nn.Parameter(torch.ones(()))

    def forward(self, x):
        assert not self.training
        return self.weight * x[:, 0].flatten(1)[:, : self.classes]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(1, 40), st.integers(0, 1000))
def test_what_is_measured_is_what_the_definitions_say_however_images_are_batched(count, classes, batch, seed):
    draw = np.random.default_rng(seed)
    logits, labels = draw.normal(size=(count, classes)), draw.integers(classes, size=count)
    images = torch.zeros(count, 3, 9)
    images[:, 0, :classes] = torch.from_numpy(logits)
    images = images.view(count, 3, 3, 3)
    batches = list(zip(images.split(batch), torch.from_numpy(labels).split(batch)))
    measured = measure(GivenLogits(classes), batches, classes)
    order = np.argsort(-logits, axis=1)
    assert measured.images == count
    assert measured.top1 == (order[:, 0] == labels).sum() / count
    assert measured.top5 == (order[:, :5] == labels[:, None]).any(1).sum() / count
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert measured.loss == pytest.approx(-np.log(probabilities[np.arange(count), labels]).mean(), rel=1e-5)
    for label, taken_for in itertools.product(range(classes), range(classes)):
        assert measured.confusion[label, taken_for] == ((labels == label) & (order[:, 0] == taken_for)).sum()


def test_no_image_at_all_is_an_error():
    with pytest.raises(ValueError, match='there is not one image to measure on'):
        measure(GivenLogits(2), [], 2)


@pytest.mark.parametrize(('side', 'threads', 'sizes'), [(224, 1, [16, 16, 8]), (224, 2, [32, 8]), (32, 1, [40])])
def test_a_cpu_has_no_more_pixels_at_once_than_it_is_quick_with(monkeypatch, side, threads, sizes):
    network, seen = GivenLogits(7), []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    images, labels = torch.randn(40, 1, side, side).expand(-1, 3, -1, -1), torch.arange(40) % 7
    measured = measure(network, [(images, labels)], 7)
    assert seen == sizes
    assert measured.top1 == (images[:, 0, 0, :7].argmax(1) == labels).sum() / 40


def evaluate(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert main(['evaluate', *arguments, '--json']) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize('stage', ['test', 'search'])
def test_what_a_trial_reports_is_what_is_measured_of_its_network(tmp_path, capsys, stage):
    parameters = RETRAIN | {'stage': 'test', 'ema_decay': 0.9} if stage == 'test' else SEARCH
    file = write_parameters(tmp_path / 'parameters.json', parameters, epochs=3)
    with small_data():
        assert main(['run', '--parameters', str(file), '--out', str(tmp_path / 'net')]) == 0
        found = evaluate(capsys, str(tmp_path / 'net'), '--part', 'validation', '--device', 'cpu')
        tested = evaluate(capsys, str(tmp_path / 'net' / 'network.pt'), '--device', 'cpu')
    result = json.loads((tmp_path / 'net' / 'trial.json').read_text())['result']
    assert found['top1'] == result['default']
    assert found['images'] == 128
    if stage == 'test':
        assert tested['top1'] == result['test_accuracy']


SKELETON = """
name: small
input_size: 32
classes: 4
stem_channels: 8
stem_stride: 2
head_channels: 32
rows:
  - {channels: 8, expansion: 1}
  - {channels: 16, stride: 2, lightnl: present}
"""


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with ImageNet in small, ``images``, and a network for it, ``net``."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'images' / 'train', WNIDS, 30)
    write_images(tmp_path / 'images' / 'val', WNIDS, 9, seed=1)
    (tmp_path / 'images' / 'val' / WNIDS[2] / f'{WNIDS[2]}_000.JPEG').write_bytes(b'no image')
    (tmp_path / 'small.yaml').write_text(SKELETON)
    settings = {'dataset/crop': 'tensorflow', 'dataset/interpolation': 'bicubic'}
    skeleton = {key: value for key, value in RETRAIN.items() if '/' not in key}
    network = build(load_skeleton('small.yaml'), {})
    save_trial(
        Path('net'),
        skeleton | {'skeleton': str(tmp_path / 'small.yaml'), 'dataset': 'imagenet'} | settings,
        {},
        network,
    )
    monkeypatch.setattr(datasets.image_folder, '_class_names', lambda **_: tuple(WNIDS), raising=False)
    return tmp_path


def test_a_network_is_evaluated_on_a_folder_with_what_its_weights_were_made_for(photographs, capsys):
    found = evaluate(
        capsys, 'net', '--dataset', 'image-folder', '--folder', 'images/val', '--part', 'validation', '--workers', '1'
    )
    parts = datasets.load('image-folder', 32, folder='images/val', crop='tensorflow', interpolation='bicubic')
    measured = measure(load_network(Path('net'))[3], loader(parts.validation, 16), 4)
    assert (found['top1'], found['images'], found['skipped']) == (
        measured.top1,
        measured.images,
        parts.skipped_images(),
    )
    assert found['loss'] == pytest.approx(measured.loss)
    assert found['dataset/crop'] == 'tensorflow'
    assert (found['dataset'], found['part'], found['input_size']) == ('image-folder', 'validation', 32)


def test_the_published_validation_images_are_enough_for_imagenet(photographs, capsys):
    record = json.loads(Path('net/trial.json').read_text())
    shutil.rmtree('images/train')
    found = evaluate(capsys, 'net', '--folder', 'images')
    assert record['parameters']['dataset'] == found['dataset'] == 'imagenet'
    assert (found['part'], found['images'], found['skipped']) == ('test', 35, 1)
    assert main(['evaluate', 'net', '--folder', 'images', '--recalibrate', '1']) == 2
    assert 'images/train is missing' in capsys.readouterr().err


def test_classes_and_confusions_go_into_tables(photographs, capsys):
    arguments = ['--dataset', 'image-folder', '--folder', 'images', '--per-class', 'classes.csv']
    found = evaluate(capsys, 'net', *arguments, '--confusion', 'confusion.csv')
    classes = list(csv.DictReader(Path('classes.csv').read_text().splitlines()))
    assert [row['class'] for row in classes] == WNIDS
    assert sum(int(row['images']) for row in classes) == found['images']
    assert sum(int(row['correct']) for row in classes) / found['images'] == found['top1']
    header, *rows = csv.reader(Path('confusion.csv').read_text().splitlines())
    assert header == ['class', *WNIDS]
    for number, (row, of) in enumerate(zip(rows, classes, strict=True)):
        assert (row[0], int(row[1 + number])) == (of['class'], int(of['correct']))
        assert sum(map(int, row[1:])) == int(of['images'])


def test_no_name_of_a_class_is_a_formula_to_a_spreadsheet(tmp_path):
    names = ('=1+1', '+1', '-1', '@x', "'quoted", 'a\nb,c', 'plain', '\udcff')
    measured = Measured(torch.eye(len(names), dtype=torch.long), len(names), 0.0, 1.0)
    evaluation = Evaluation(measured, {}, names, 0)
    write_per_class(tmp_path / 'classes.csv', evaluation)
    write_confusion(tmp_path / 'confusion.csv', evaluation)
    written = ["'=1+1", "'+1", "'-1", "'@x", "''quoted", 'a\nb,c', 'plain', '\\udcff']
    for table in ('classes.csv', 'confusion.csv'):
        header, *rows = csv.reader((tmp_path / table).open(newline=''))
        assert [row[0] for row in rows] == written
    assert header == ['class', *written]


def test_statistics_that_are_wrong_are_estimated_anew_on_training_images(photographs, capsys):
    arguments = ['net', '--dataset', 'image-folder', '--folder', 'images', '--batch-size', '8']
    weights = torch.load('net/network.pt', weights_only=True)
    before = evaluate(capsys, *arguments, '--recalibrate', '9')
    for name in weights:
        if name.endswith('running_var'):
            weights[name] = weights[name] * 1e4
    torch.save(weights, 'net/network.pt')
    assert evaluate(capsys, *arguments)['loss'] != before['loss']
    anew = evaluate(capsys, *arguments, '--recalibrate', '9')
    assert {key: anew[key] for key in ('loss', 'top1', 'recalibrated_on')} == {
        'loss': before['loss'],
        'top1': before['top1'],
        'recalibrated_on': 9,
    }


def test_precision_batch_size_and_size_of_the_images_are_as_asked_for(photographs, capsys):
    arguments = ['net', '--dataset', 'image-folder', '--folder', 'images', '--device', 'cpu']
    found = {name: evaluate(capsys, *arguments, *extra) for name, extra in {
        'as it was': (),
        'half': ('--precision', 'bf16-mixed'),
        'other batches': ('--batch-size', '5'),
        'larger': ('--input-size', '48', '--crop', 'resize'),
    }.items()}  # fmt: skip
    as_it_was = found['as it was']
    assert found['other batches']['loss'] == pytest.approx(as_it_was['loss'], rel=1e-5)
    assert found['half']['precision'] == 'bf16-mixed'
    assert found['half']['loss'] != as_it_was['loss']
    assert found['half']['loss'] == pytest.approx(as_it_was['loss'], rel=0.05)
    assert (found['larger']['input_size'], found['larger']['dataset/crop']) == (48, 'resize')
    assert found['larger']['loss'] != as_it_was['loss']


def test_people_are_told_in_three_lines(photographs, capsys):
    assert main(['evaluate', 'net', '--dataset', 'image-folder', '--folder', 'images', '--device', 'cpu']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'net on the test part of image-folder: \d+ images', lines[0].partition(',')[0])
    assert re.fullmatch(r'top-1 [\d.]+%, top-5 [\d.]+%, loss [\d.]+', lines[1])
    assert re.fullmatch(
        r'32 pixels, crop tensorflow, interpolation bicubic; [\d,]+ images per second on cpu, precision 32, batch 16',
        lines[2],
    )


BAD = {
    'no network': (['nowhere'], 'nowhere: there is no such file'),
    'no data': (['net', '--folder', 'nowhere'], 'nowhere/val is missing'),
    'another data set': (['net', '--dataset', 'cifar11'], "no data set 'cifar11'"),
    'other classes': (['net', '--dataset', 'digits'], "skeleton 'small' has classes: 4, but data set digits has 10"),
    'another part': (['net', '--part', 'train'], "part must be one of test, validation, not 'train'"),
    'another crop': (['net', '--crop', 'middle'], 'crop must be one of resize, square, tensorflow'),
    'another precision': (
        ['net', '--precision', '8'],
        "precision must be one of auto, 32, bf16-mixed, 16-mixed, not '8'",
    ),
    'another device': (['net', '--device', 'tpu'], "device must be one of auto, cpu, cuda, not 'tpu'"),
    'no batch': (['net', '--batch-size', '0'], 'batch size must be a whole number from 1'),
    'too many training batches': (
        ['net', '--dataset', 'image-folder', '--folder', 'images', '--recalibrate', '1000'],
        'recalibrate must be at most',
    ),
    'a table in no folder': (['net', '--per-class', 'nowhere/classes.csv'], 'nowhere'),
}


@pytest.mark.parametrize(('arguments', 'message'), BAD.values(), ids=BAD)
def test_what_cannot_be_is_one_line_and_status_2(photographs, capsys, arguments, message):
    assert main(['evaluate', *arguments]) == 2
    *before, line = capsys.readouterr().err.splitlines()
    assert message in line
    assert all('images of 4 classes' in said for said in before)  # of what was read


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_said(photographs, capsys):
    assert main(['evaluate', 'net', '--device', 'cuda']) == 2
    assert 'PyTorch sees no CUDA device here' in capsys.readouterr().err
