"""Trainings that are given a network: to start from, to learn from."""

import json
from pathlib import Path

import pytest
import small_trial
import torch
from dataset_files import write_images
from small_trial import RETRAIN, SEARCH, write_parameters
from torch import nn

from search_space import LightNLSpace, build, load_skeleton
from strategies import AutoNL
from trials.__main__ import main
from trials.given_networks import inherit
from trials.parameters import TrialParameters
from trials.run import run_trial, save_trial
from trials.trained_network import load_network
from trials.training.checkpoint import EpochCheckpoint
from trials.training.teacher import Teacher

SKELETON = """
name: small
input_size: 32
classes: {classes}
stem_channels: 8
stem_stride: 2
head_channels: 16
dropout: 0.1
every_row: {{lightnl: [absent, present], lightnl_ratio: [0.25, 0.5], lightnl_stride: [2, 1], se: [0, 0.25, 0.5]}}
rows:
  - {{channels: 8, kernel: [3, 5], expansion: [2, 4]}}
  - {{channels: 8, kernel: [3, 5], expansion: [2, 4], presence: [absent, present]}}
  - {{channels: 12, stride: 2, kernel: [3, 5], expansion: [2, 4]}}
"""
SMALL = {  # the smaller candidate of every choice, squeeze-excite and LightNL in some rows
    'row01/lightnl': 'present',
    'row01/lightnl_ratio': 0.25,
    'row01/lightnl_stride': 2,
    'row01/kernel': 3,
    'row01/expansion': 2,
    'row01/se': 0.25,
    'row02/presence': 'present',
    'row02/lightnl': 'absent',
    'row02/lightnl_ratio': 0.25,
    'row02/lightnl_stride': 2,
    'row02/kernel': 3,
    'row02/expansion': 2,
    'row02/se': 0,
    'row03/lightnl': 'present',
    'row03/lightnl_ratio': 0.25,
    'row03/lightnl_stride': 1,
    'row03/kernel': 3,
    'row03/expansion': 2,
    'row03/se': 0.25,
}


@pytest.fixture(scope='module')
def space(tmp_path_factory):
    """A folder with the skeletons of three and of four classes, and photographs of three."""
    folder = tmp_path_factory.mktemp('space')
    for classes in (3, 4):
        (folder / f'{classes}.yaml').write_text(SKELETON.format(classes=classes))
    write_images(folder / 'images', ['cat', 'dog', 'owl'], 24)
    return folder


def randomised(network: nn.Module) -> nn.Module:
    """With weights and statistics as a training may leave them: a fresh LightNL, the identity, would show nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + drawn if name.endswith(('running_var', 'bn.weight')) else drawn - 0.5)
    return network


def parameters(space: Path, classes: int = 3, **changes) -> dict:
    """Of a retraining on the photographs."""
    return {
        'strategy': 'user',
        'stage': 'retrain',
        'seed': 0,
        'skeleton': str(space / f'{classes}.yaml'),
        'dataset': 'image-folder',
        'dataset/folder': str(space / 'images'),
        'epochs': 2,
        'batch_size': 8,
        'learning_rate': 0.01,
        **SMALL,
        **changes,
    }


@pytest.fixture(scope='module', params=[3, 4], ids=['as many classes', 'other classes'])
def trained(request, space, tmp_path_factory):
    """The folder of a trained network of ``SMALL``."""
    folder = tmp_path_factory.mktemp(f'trained{request.param}')
    network = randomised(build(load_skeleton(space / f'{request.param}.yaml'), SMALL))
    save_trial(folder, parameters(space, request.param), {}, network)
    return folder


def starting_from(folder: Path, trial: dict) -> tuple[nn.Module, nn.Module]:
    """The network that lies in ``folder``, and the one that a trial starts with."""
    trial = TrialParameters.from_flat({**trial, 'initial': str(folder)})
    network = build(trial.space(), trial.network)
    inherit(network, trial)
    return load_network(folder)[3], network.eval()


def test_a_retraining_starts_as_the_network_that_it_is_given_but_for_a_classifier_of_other_classes(space, trained):
    given, network = starting_from(trained, parameters(space))
    images = torch.randn(2, 3, 32, 32)
    features = [nn.Sequential(n.stem, n.rows, n.head)(images) for n in (given, network)]
    assert torch.equal(*features)
    assert torch.equal(given(images), network(images)) == (given.classifier.out_features == 3)


def test_what_is_fresh_is_drawn_as_without_a_given_network(space, trained):
    torch.manual_seed(3)
    _, network = starting_from(trained, parameters(space, initial_partly=True, **{'row02/kernel': 5}))
    torch.manual_seed(3)
    fresh = build(load_skeleton(space / '3.yaml'), {**SMALL, 'row02/kernel': 5})
    ring = torch.ones(5, 5, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    kernels = [n.rows.row02.body.depthwise.weight[..., ring] for n in (network, fresh)]
    assert torch.equal(*kernels)


def supernet_of(space: Path, folder: Path) -> tuple[nn.Module, AutoNL]:
    """The supernet of AutoNL's search as it starts from the network in ``folder``, gates set to that network."""
    search = {name: value for name, value in parameters(space).items() if not name.startswith('row')}
    trial = TrialParameters.from_flat(
        {**search, 'stage': 'search', 'class': 'strategies.AutoNL', 'initial': str(folder)}
    )
    supernet = AutoNL().mutate_model(LightNLSpace(trial.space()))
    inherit(supernet, trial)
    return supernet


def test_a_supernet_whose_gates_choose_the_given_network_gives_its_logits(space, trained):
    given, supernet = load_network(trained)[3], supernet_of(space, trained)
    thresholds = {}
    for module in supernet.modules():
        if hasattr(module, 'labelled_thresholds'):
            thresholds.update(module.labelled_thresholds())
    supernet.eval()
    images = torch.randn(2, 3, 32, 32)
    for threshold in thresholds.values():  # eval() kept the norms as they are: none was seen yet
        threshold.norm.fill_(1.0)
        threshold.activate(0.1)
    for label, threshold in thresholds.items():
        threshold.choose(SMALL[label], 0.1)
    features = [nn.Sequential(n.stem, n.rows, n.head)(images) for n in (given, supernet)]
    torch.testing.assert_close(*features, rtol=1e-5, atol=1e-6)
    frozen = supernet.freeze(SMALL)
    assert torch.equal(frozen.rows.row01.body.depthwise.weight, given.rows.row01.body.depthwise.weight)


@pytest.mark.parametrize('path', ['strategies.AutoNL', 'nni.nas.strategy.DARTS', 'nni.nas.strategy.RandomOneShot'])
def test_every_weight_of_the_given_network_has_its_place_in_a_supernet(space, trained, path):
    from strategies.experiment.strategy_class import strategy_class

    trial = {n: v for n, v in parameters(space, initial=str(trained)).items() if not n.startswith('row')}
    trial = TrialParameters.from_flat({**trial, 'stage': 'search', 'class': path})
    supernet = strategy_class(path)().mutate_model(LightNLSpace(trial.space()))
    inherit(supernet, trial)
    given = load_network(trained)[3].state_dict()
    found = supernet.freeze(SMALL).state_dict()
    for name, value in given.items():
        if not name.startswith('classifier.') or given['classifier.bias'].numel() == 3:
            assert torch.equal(found[name], value), name


def refusal(trial: dict, capsys, tmp_path: Path) -> str:
    """The one line that a trial is refused with."""
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(trial))
    assert main(['run', '--parameters', str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    (line,) = printed.err.splitlines()
    return line.removeprefix('python -m trials: ')


@pytest.mark.parametrize('key', ['initial', 'teacher'])
@pytest.mark.parametrize('damage', ['no folder', 'no record', 'cut off', 'another skeleton'])
def test_a_network_that_cannot_be_read_is_refused_by_name(space, trained, key, damage, tmp_path, capsys):
    folder = tmp_path / 'given'
    if damage != 'no folder':
        folder.mkdir()
        content = (trained / 'network.pt').read_bytes()
        (folder / 'network.pt').write_bytes(content[: len(content) // 2] if damage == 'cut off' else content)
    if damage in ('cut off', 'another skeleton'):
        record = json.loads((trained / 'trial.json').read_text())
        if damage == 'another skeleton':
            record['parameters'] |= {'row01/kernel': 5}
        (folder / 'trial.json').write_text(json.dumps(record))
    line = refusal(parameters(space, **{key: str(folder)}), capsys, tmp_path)
    assert line.startswith(f'trial parameter {key}: {folder}')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'row02/kernel': 5},
            'its row02/kernel is 3, here it is 5; with initial_partly: true what the two have in common',
        ),
        ({'row03/lightnl': 'absent'}, "its row03/lightnl is 'present', here it is 'absent'; with initial_partly: true"),
        ({'row03/lightnl_ratio': 0.5}, 'its row03/lightnl_ratio is 0.25, here it is 0.5; with initial_partly: true'),
        ({'skeleton': 'cued'}, "its stem_channels is 8, that of skeleton 'cued' 16"),
    ],
    ids=str,
)
def test_a_network_that_does_not_fit_is_refused_by_what_does_not(space, trained, change, message, tmp_path, capsys):
    trial = parameters(space, initial=str(trained), **change)
    if 'skeleton' in change:
        trial = {**{n: v for n, v in trial.items() if not n.startswith('row')}, **change, 'dataset': 'cued-digits'}
        trial |= {label: c[0] for label, c in load_skeleton('cued').choices().items()}
        del trial['dataset/folder']
    line = refusal(trial, capsys, tmp_path)
    assert line.startswith(f'trial parameter initial: {trained} does not fit: {message}')


def test_what_a_row_has_not_need_not_fit(space, trained):
    """Squeeze-excite's ratio is a choice of the row; LightNL's are none where it is absent."""
    given, network = starting_from(trained, parameters(space, **{'row02/lightnl_ratio': 0.5}))
    assert torch.equal(given.rows.row02.body.project.weight, network.rows.row02.body.project.weight)


def test_a_search_whose_candidates_lack_a_choice_of_the_network_is_refused(space, trained, tmp_path, capsys):
    trial = {n: v for n, v in parameters(space, initial=str(trained)).items() if not n.startswith('row')}
    trial |= {'stage': 'search', 'class': 'strategies.AutoNL', 'candidates/row01/kernel': [5]}
    line = refusal(trial, capsys, tmp_path)
    assert line.startswith(f'trial parameter initial: {trained} does not fit: its row01/kernel is 3, here it is 5')


def test_a_part_of_a_network_is_taken_where_that_is_asked_for(space, trained):
    changes = {'row01/kernel': 5, 'row01/expansion': 4, 'row02/presence': 'absent', 'row02/se': 0.5, 'row03/se': 0.5}
    given, network = starting_from(trained, parameters(space, initial_partly=True, **changes))
    body, theirs = network.rows.row01.body, given.rows.row01.body
    assert torch.equal(body.depthwise.weight[:16, :, 1:-1, 1:-1], theirs.depthwise.weight)
    assert torch.equal(body.expand.weight[:16], theirs.expand.weight)
    assert torch.equal(network.rows.row03.body.se.reduce.weight[:2], given.rows.row03.body.se.reduce.weight)
    smaller = build(load_skeleton(space / '3.yaml'), {**SMALL, 'row03/lightnl': 'absent', 'row03/se': 0})
    assert not hasattr(smaller.rows.row03.body, 'se')


def test_a_network_is_fine_tuned_on_photographs_of_other_classes_and_says_so(space, trained, tmp_path, capsys):
    """The user's whole way, from a trained network to one of the user's own classes."""
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(parameters(space, initial=str(trained / 'network.pt'), learning_rate=1e-9)))
    assert main(['run', '--parameters', str(file), '--out', str(tmp_path / 'out')]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert result['epochs'] == 2
    given, tuned = (load_network(folder)[3] for folder in (trained, tmp_path / 'out'))
    for name, value in given.named_parameters():
        if not name.startswith('classifier.'):
            torch.testing.assert_close(tuned.state_dict()[name], value, rtol=0, atol=1e-5)
    other = given.classifier.out_features != 3
    assert tuned.classifier.out_features == 3
    said = f'the classifier starts anew: {trained / "network.pt"} has 4 classes, not 3'
    assert (said in printed.err) == other
    assert f'of the weights start as those of {trained / "network.pt"}' in printed.err


class Ended(Exception):
    """What ends a training from within, at its second epoch."""


@pytest.fixture(scope='module')
def retrained(tmp_path_factory):
    """The folder of a small retraining on cued digits."""
    folder = tmp_path_factory.mktemp('retrained')
    with small_trial.small_data():
        result, network = run_trial(TrialParameters.from_flat({**RETRAIN, 'epochs': 1}), lambda metrics: None)
    save_trial(folder, RETRAIN, result, network)
    return folder


@pytest.mark.parametrize(
    'recipe', [SEARCH, {**RETRAIN, 'teacher': True, 'ema_decay': 0.9}], ids=['search', 'retraining with a teacher']
)
@pytest.mark.slow
def test_a_training_that_was_given_networks_goes_on_as_if_it_had_not_been_ended(retrained, recipe, tmp_path):
    recipe = {**recipe, 'initial': str(retrained)}
    trial = {n: str(retrained) if n == 'teacher' else v for n, v in recipe.items()}
    trial = TrialParameters.from_flat({**trial, 'epochs': 3})
    path = tmp_path / 'trial.ckpt'

    def end(metrics):
        if metrics['epoch'] == 2:
            raise Ended

    with small_trial.small_data():
        result, network = run_trial(trial, lambda metrics: None)
        with pytest.raises(Ended):
            run_trial(trial, end, checkpoint=EpochCheckpoint(path))
        again, network_again = run_trial(trial, lambda metrics: None, checkpoint=EpochCheckpoint(path))
    del result['seconds'], again['seconds']
    assert again == result
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, network_again.state_dict()[name])


def test_the_teachers_loss_is_hintons_formula():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    images, logits = torch.randn(7, 3, 2, 2), torch.randn(7, 5)
    teacher = Teacher(network, weight=0.3, temperature=2.0)
    p, q = ((x / 2.0).softmax(1) for x in (network(images), logits))
    divergence = 4.0 * (p * (p / q).log()).sum(1).mean()
    found = teacher.divergence(images, logits)
    assert found.item() == pytest.approx(divergence.item(), rel=1e-5)
    assert teacher.loss(torch.tensor(2.0), found).item() == pytest.approx(0.7 * 2.0 + 0.3 * found.item())


def test_a_student_comes_nearer_to_its_teacher_than_one_without(retrained, tmp_path):
    reports = {}
    for weight in (0.0, 1.0):
        file = write_parameters(
            tmp_path / 'parameters.json', RETRAIN, teacher=str(retrained), teacher_weight=weight, epochs=2
        )
        trial = TrialParameters.from_flat(json.loads(file.read_text()) | {'seed': 1})
        reports[weight] = []
        with small_trial.small_data():
            run_trial(trial, reports[weight].append)
    assert reports[1.0][-1]['teacher_loss'] < 0.8 * reports[1.0][0]['teacher_loss']
    assert reports[1.0][-1]['teacher_loss'] < 0.7 * reports[0.0][-1]['teacher_loss']
    assert reports[1.0][-1]['train_loss'] == pytest.approx(reports[1.0][-1]['teacher_loss'])


def test_a_teacher_of_other_classes_or_other_images_is_refused(space, trained, retrained, tmp_path, capsys):
    if load_network(trained)[1].classes == 4:
        line = refusal(parameters(space, teacher=str(trained)), capsys, tmp_path)
        assert line == f"trial parameter teacher: {trained} has 4 classes, and skeleton 'small' 3"
    line = refusal({**RETRAIN, 'dataset': 'digits', 'teacher': str(retrained)}, capsys, tmp_path)
    assert line.startswith(f'trial parameter teacher: {retrained} was trained on images of cued-digits, which are')
