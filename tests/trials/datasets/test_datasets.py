"""What every data set must be."""

import inspect
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from dataset_files import without_checksums, write_all
from torch import nn
from torch.utils.data import Subset, TensorDataset

from search_space import load_skeleton
from trials.__main__ import main
from trials.datasets import (
    DATASETS,
    check_files,
    check_fit,
    class_names,
    hold_out,
    labels_of,
    load,
    normalisation,
    training_images,
)
from trials.datasets.image_part import ImagePart
from trials.parameters import TrialParameters
from trials.training.evaluator import evaluator, loader

PARTS = ('train', 'validation', 'test')
IN_FILES = ['cifar10', 'cifar100', 'fashion-mnist', 'image-folder', 'imagenet', 'kmnist', 'mnist']


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        without_checksums(patch)
        yield write_all(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', params=sorted(DATASETS))
def name(request):
    return request.param


@pytest.fixture(scope='module')
def parts(name, arguments):
    return load(name, **arguments.get(name, {}))


def test_images_and_labels_are_of_the_size_and_number_that_it_says(parts):
    for part in (getattr(parts, name) for name in PARTS):
        labels = []
        for images, batch in loader(part, 64):
            assert images.shape == (len(batch), 3, parts.input_size, parts.input_size)
            assert images.dtype == torch.float32
            assert images.isfinite().all()
            labels += batch.tolist()
        assert labels == labels_of(part).tolist()
        assert set(labels) == set(range(parts.classes))
    assert parts.skipped_images() == 0


def test_what_is_known_of_it_without_its_files_is_so(name, parts):
    if DATASETS[name].classes is not None:
        assert DATASETS[name].classes == parts.classes
    if name not in IN_FILES:  # of the others the files here are small ones
        assert training_images(name) == len(parts.train)


def test_the_published_files_have_as_many_training_images_as_the_page_says():
    page = (Path(__file__).parents[3] / 'docs' / 'data.md').read_text()
    for names, count in re.findall(r'^\| (`(?:mnist|cifar).*?) \|.*?\| ([\d,]+) / ', page, re.M):
        for name in re.findall('`(.*?)`', names):
            assert f'{training_images(name):,}' == count
    assert training_images('mnist') == 54_000


@pytest.mark.parametrize('name', IN_FILES)
def test_missing_files_are_found_without_reading_those_that_are_there(name, arguments, tmp_path, monkeypatch):
    given = own(name, arguments)
    folder = Path(given.pop('folder'))
    check_files(name, folder.parent, folder=folder.name, **given)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    with pytest.raises(ValueError, match=rf'^data set {name}: {tmp_path / "data"}.+'):
        check_files(name, tmp_path, **given)
    with pytest.raises(ValueError, match=rf'^data set {name}: {tmp_path / "data"}.+'):  # as a trial would say
        load(name, **given)


@pytest.mark.parametrize('name', ['mnist', 'cifar10'])
def test_one_missing_file_is_enough(name, arguments, tmp_path):
    folder = shutil.copytree(arguments[name]['folder'], tmp_path / 'data')
    check_files(name, tmp_path)
    next(file for file in sorted(folder.rglob('*')) if file.is_file() and 'meta' not in file.name).unlink()
    with pytest.raises(ValueError, match='is missing'):
        check_files(name, tmp_path)


def test_it_is_the_same_every_time(name, parts, arguments):
    again = load(name, **arguments.get(name, {}))
    for part in PARTS:
        seed = 7 if part == 'train' else None  # the training part may be augmented, as its loader's seed says
        first, second = (next(iter(loader(getattr(p, part), 32, seed))) for p in (parts, again))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def own(name, arguments) -> dict:
    """A data set's own arguments: the size that photographs are brought to is the skeleton's."""
    return {key: value for key, value in arguments.get(name, {}).items() if key != 'input_size'}


def test_its_images_are_pixels_from_0_to_1_normalised_as_it_says(name, parts, arguments):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation(name, **own(name, arguments)))
    images = torch.cat([images for images, _ in loader(parts.validation, 64)])
    pixels = images * std + mean
    assert pixels.amin() == pytest.approx(0, abs=0.02)
    assert pixels.amax() == pytest.approx(1, abs=0.02)


def test_it_names_each_of_its_classes(name, parts, arguments):
    names = class_names(name, **own(name, arguments))
    assert len(set(names)) == len(names)
    assert all(isinstance(of_class, str) and of_class for of_class in names)
    assert len(names) == (1000 if name == 'imagenet' else parts.classes)  # of ImageNet the files here are a part


def source_images(part) -> set[bytes]:
    """Images as they were before any transform."""
    if isinstance(part, Subset):
        whole = part.dataset
        if isinstance(whole, TensorDataset):
            return source_images(TensorDataset(*whole[part.indices]))
        return source_images(ImagePart(whole.source, whole.indices[part.indices], whole.transform))
    if isinstance(part, TensorDataset):
        return {image.numpy().tobytes() for image in part.tensors[0]}
    return {part.source[int(index)][0].tobytes() for index in part.indices}


def test_no_image_is_in_two_parts(parts):
    weights, held_out = hold_out(parts.train, 0.2)
    all_parts = (weights, held_out, parts.validation, parts.test)
    images = [source_images(part) for part in all_parts]
    assert [len(i) for i in images] == [len(part) for part in all_parts]
    assert len(set.union(*images)) == sum(len(i) for i in images)


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
def test_what_is_held_out_is_disjoint_stratified_and_complete(parts, fraction):
    rest, held_out = hold_out(parts.train, fraction)
    assert sorted(rest.indices + held_out.indices) == list(range(len(parts.train)))
    assert len(held_out) == math.ceil(fraction * len(parts.train))
    counts, of = (torch.bincount(labels_of(part)) for part in (held_out, parts.train))
    assert ((counts - fraction * of).abs() <= 1).all()
    assert hold_out(parts.train, fraction)[1].indices == held_out.indices


def test_its_validation_part_has_the_classes_in_the_same_shares_as_its_training_part(parts):
    shares = [torch.bincount(labels_of(part)) / len(part) for part in (parts.train, parts.validation)]
    torch.testing.assert_close(*shares, atol=max(0.03, 1 / len(parts.validation)), rtol=0)


def test_a_network_is_trained_validated_and_tested_on_it(parts):
    weights, held_out = hold_out(parts.train, 0.2)
    training = evaluator(
        Subset(weights, range(24)),
        held_out,
        epochs=1,
        batch_size=8,
        learning_rate=0.01,
        weight_decay=0.01,
        label_smoothing=0.1,
        seed=0,
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * parts.input_size**2, parts.classes))
    before = network[1].weight.clone()
    training.evaluate(network)
    assert not torch.equal(network[1].weight, before)
    assert math.isfinite(training.trainer.callback_metrics['validation_loss'])
    (measured,) = training.trainer.test(training.module, loader(parts.test, 8), verbose=False)
    assert 0 <= measured['test_accuracy'] <= 1


@pytest.mark.parametrize('name', IN_FILES)
def test_data_that_is_not_there_is_said_in_one_line_with_what_goes_where(name, tmp_path):
    with pytest.raises(ValueError, match=f'data set {name}: {tmp_path}.* is missing') as caught:
        load(name, folder=str(tmp_path / 'nowhere'))
    assert '\n' not in str(caught.value)
    assert ('download ' in str(caught.value)) == (name != 'image-folder')
    assert str(tmp_path / 'nowhere') in str(caught.value)
    assert 'dataset/folder' in str(caught.value)


RETRAIN = {
    'strategy': 'random',
    'stage': 'retrain',
    'seed': 0,
    'skeleton': 'cued',
    'epochs': 1,
    'batch_size': 8,
    'learning_rate': 0.005,
    **{label: candidates[0] for label, candidates in load_skeleton('cued').choices().items()},
}
BAD = [
    (
        {'dataset': 'cued-digits', 'dataset/cluter': 3},
        "cued-digits: unknown argument 'cluter'; did you mean 'clutter'?",
    ),
    ({'dataset': 'cued-digits', 'dataset/square': 17}, 'square must be a whole number from 1 to 16, not 17'),
    ({'dataset': 'cued-digits', 'dataset/clutter': 0.5}, 'clutter must be a whole number from 0 to 256, not 0.5'),
    ({'dataset': 'cued-digits', 'dataset/colours': 4}, 'colours must be 2 or 3, not 4'),
    ({'dataset': 'cued-digits', 'dataset/noise': -1}, 'noise must be a number of grey levels from 0 to 16, not -1'),
    ({'dataset': 'cued-digits', 'dataset/canvases': 9}, 'canvases must be a whole number from 100 to 200,000, not 9'),
    ({'dataset': 'cued-digits', 'dataset/canvases': 10**12}, 'from 100 to 200,000, not 1000000000000'),
    ({'dataset': 'digits', 'dataset/folder': 'x'}, "digits: unknown argument 'folder'; it has none"),
    ({'dataset': 'cifar10', 'dataset/folder': 7}, 'cifar10: folder must be the path of a folder, not 7'),
    ({'dataset': 'cifar10', 'dataset/folder': 'nowhere'}, 'is missing or damaged; download cifar-10-python.tar.gz'),
    ({'dataset': 'imagenet', 'dataset/input_size': 32}, "imagenet: unknown argument 'input_size'"),
]


@pytest.mark.parametrize(('change', 'message'), BAD, ids=[str(change) for change, _ in BAD])
def test_a_data_set_that_cannot_be_had_ends_the_trial_with_one_clear_line(change, message, tmp_path, capsys):
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(RETRAIN | change))
    assert main(['run', '--parameters', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(('change', 'message'), BAD, ids=[str(change) for change, _ in BAD])
def test_what_can_be_known_without_files_is_refused_with_the_parameters(change, message):
    if change.get('dataset/folder') == 'nowhere':
        TrialParameters.from_flat(RETRAIN | change)
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            TrialParameters.from_flat(RETRAIN | change)


def test_a_skeleton_of_other_classes_or_size_is_refused_before_training(arguments, tmp_path, capsys):
    file = tmp_path / 'parameters.json'
    folder = arguments['cifar100']['folder']
    file.write_text(json.dumps(RETRAIN | {'dataset': 'cifar100', 'dataset/folder': folder}))
    assert main(['run', '--parameters', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "skeleton 'cued' has classes: 10, but data set cifar100 has 100" in line
    with pytest.raises(ValueError, match="'mobilenet-v2' has classes: 1000, but data set digits has 10"):
        check_fit(load('digits'), load_skeleton('mobilenet-v2'), 'digits')
    check_fit(load('digits'), load_skeleton('cued'), 'digits')


@pytest.mark.parametrize('of', sorted(DATASETS))
def test_the_page_about_data_has_every_data_set_with_its_arguments(of):
    page = (Path(__file__).parents[3] / 'docs' / 'data.md').read_text('utf-8')
    (row,) = [line for line in page.splitlines() if line.startswith('| ') and f'`{of}`' in line.split('|')[1]]
    arguments = set(inspect.signature(DATASETS[of].load).parameters) - {'input_size'}
    assert set(re.findall(r'`(\w+)`', row.split('|')[4])) == arguments
