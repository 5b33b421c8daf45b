"""Trials in this process, on a small part of the data."""

import dataclasses
import os

import pytest
import torch

from search_space import build, load_skeleton, macs, params
from search_space.yaml_mapping import find_yaml
from trials import datasets
from trials.parameters import TrialParameters
from trials.run import run_trial, save_trial

SKELETON = load_skeleton('cued')
NETWORK = {label: candidates[-1] for label, candidates in SKELETON.choices().items()}
DARTS = 'nni.nas.strategy.DARTS'
RECIPE = {'dataset': 'cued-digits', 'epochs': 2, 'batch_size': 32, 'learning_rate': 0.005}
TRIAL = TrialParameters(strategy='random', stage='retrain', seed=0, skeleton='cued', network=NETWORK, **RECIPE)


@pytest.fixture(autouse=True)
def _small_data(monkeypatch):
    whole = datasets.load('cued-digits')
    parts = {name: getattr(whole, name) for name in ('train', 'validation', 'test')}
    small = {name: torch.utils.data.TensorDataset(*part[:256]) for name, part in parts.items()}
    monkeypatch.setattr(datasets, 'load', lambda *_, **__: dataclasses.replace(whole, **small))


@pytest.mark.slow
def test_a_retraining_reports_every_epoch_and_its_cost():
    reports = []
    result, network = run_trial(TRIAL, reports.append)
    assert [r['epoch'] for r in reports] == [1, 2]
    assert reports[-1]['default'] == reports[-1]['validation_accuracy'] == result['default']
    assert result['macs'] == macs(SKELETON)(NETWORK)
    assert result['params'] == params(SKELETON)(NETWORK) == sum(p.numel() for p in network.parameters())
    assert result['epochs'] == 2
    assert 'test_accuracy' not in result


@pytest.mark.parametrize(('strategy', 'stage'), [('', 'retrain'), ('strategies.AutoNL', 'search'), (DARTS, 'search')])
@pytest.mark.slow
def test_lightnls_scale_starts_where_the_skeleton_says(strategy, stage, tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(find_yaml('cued', 'skeletons')[0].replace('lightnl_scale: 1 ', 'lightnl_scale: 0.5 '))
    still = {'epochs': 1, 'learning_rate': 1e-12, 'weight_decay': 0, 'skeleton': str(file)}
    if stage == 'search':
        arguments = {'warmup_epochs': 0, 'cost_weight': 0.0} if strategy != DARTS else {}
        still |= {'stage': 'search', 'network': {}, 'search_class': strategy, 'search_arguments': arguments}
    _, network = run_trial(dataclasses.replace(TRIAL, **still), lambda metrics: None)
    scales = [value for name, value in network.state_dict().items() if name.endswith('lightnl.bn.weight')]
    assert scales
    for scale in scales:
        torch.testing.assert_close(scale, torch.full_like(scale, 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['RandomOneShot', 'GumbelDARTS'])
@pytest.mark.slow
def test_a_search_of_nnis_is_the_same_again_from_the_same_seed_and_another_one_from_another(name):
    path = f'nni.nas.strategy.{name}'
    trial = dataclasses.replace(TRIAL, stage='search', network={}, search_class=path, epochs=1)
    seeds = (0, 0, 1)
    first, again, other = (run_trial(dataclasses.replace(trial, seed=s), lambda _: None)[1].state_dict() for s in seeds)
    assert all(torch.equal(weight, again[label]) for label, weight in first.items())
    assert first.keys() == again.keys()
    assert first.keys() != other.keys() or any(not torch.equal(w, other[label]) for label, w in first.items())


@pytest.mark.slow
def test_only_a_test_looks_at_test_data(monkeypatch):
    parts = datasets.load('cued-digits')
    monkeypatch.setattr(datasets, 'load', lambda *_, **__: dataclasses.replace(parts, test=None))
    run_trial(TRIAL, lambda metrics: None)
    with pytest.raises(Exception, match='NoneType'):
        run_trial(dataclasses.replace(TRIAL, stage='test'), lambda metrics: None)


@pytest.mark.slow
def test_a_test_trains_as_a_retraining_does():
    result, _ = run_trial(TRIAL, lambda metrics: None)
    tested, _ = run_trial(dataclasses.replace(TRIAL, stage='test'), lambda metrics: None)
    assert tested['default'] == result['default']
    assert 0 <= tested['test_accuracy'] <= 1


@pytest.mark.slow
def test_recalibration_keeps_the_weights_and_measures_with_statistics_of_training_batches():
    trial = dataclasses.replace(TRIAL, stage='test', ema_decay=0.5)
    result, network = run_trial(trial, lambda metrics: None)
    measured, recalibrated = run_trial(dataclasses.replace(trial, recalibrate=8), lambda metrics: None)
    for name, weight in network.named_parameters():
        assert torch.equal(weight, recalibrated.state_dict()[name])
    parts = datasets.load('cued-digits')
    images = parts.train.tensors[0]  # 8 batches of 32 are all of them
    of_stem = recalibrated.stem[0](images)
    torch.testing.assert_close(recalibrated.stem[1].running_mean, of_stem.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    for part, accuracy in ((parts.validation, measured['default']), (parts.test, measured['test_accuracy'])):
        images, labels = part.tensors
        right = (recalibrated.eval()(images).argmax(1) == labels).float().mean().item()
        assert accuracy == pytest.approx(right, abs=1e-6)
    assert measured != result


@pytest.mark.slow
def test_another_seed_gives_other_weights():
    _, network = run_trial(TRIAL, lambda metrics: None)
    _, other = run_trial(dataclasses.replace(TRIAL, seed=1), lambda metrics: None)
    assert not torch.equal(network.classifier.weight, other.classifier.weight)


def search_trial(path: str, **arguments) -> TrialParameters:
    return dataclasses.replace(
        TRIAL, stage='search', network={}, search_class=path, search_arguments=arguments, held_out=0.25
    )


@pytest.mark.parametrize(
    ('path', 'arguments', 'epochs'),
    [
        ('strategies.AutoNL', {'warmup_epochs': 1}, 0.75 + 2 * 0.75),  # an epoch of warm-up, one of both steps
        ('nni.nas.strategy.DARTS', {}, 4 * 0.75),
        ('nni.nas.strategy.GumbelDARTS', {}, 4 * 0.75),
    ],
)
@pytest.mark.slow
def test_a_search_reports_its_network_and_what_it_trained(path, arguments, epochs):
    result, network = run_trial(search_trial(path, **arguments), lambda metrics: None)
    sample = {label: result[label] for label in SKELETON.choices()}
    assert SKELETON.canonical(sample) == sample
    assert result['macs'] == macs(SKELETON)(sample)
    assert result['epochs'] == pytest.approx(epochs)
    assert 0 <= result['default'] <= 1
    build(SKELETON, sample).load_state_dict(network.state_dict())


@pytest.mark.slow
def test_a_search_of_autonl_reports_its_gates_every_epoch():
    reports = []
    run_trial(search_trial('strategies.AutoNL', warmup_epochs=1), reports.append)
    assert [r['epoch'] for r in reports] == [1, 2]
    for quantity in ('norm', 'threshold', 'gate'):
        assert {f'{quantity}/{label}' for label in SKELETON.choices()} <= reports[-1].keys()
    low, high = macs(SKELETON).range()
    assert low <= reports[-1]['macs'] <= high


def test_a_trial_that_cannot_be_saved_leaves_no_half_a_file(tmp_path, monkeypatch):
    network = build(SKELETON, NETWORK)

    def full_disk(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        save_trial(tmp_path, {}, {}, network)
    assert list(tmp_path.iterdir()) == []
