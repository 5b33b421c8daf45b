"""What every shipped skeleton must be, and how a user's own is read."""

import json
import random
from importlib import resources

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import LightNLSpace, build, load_skeleton, macs, nni_search_space, shipped_skeletons
from search_space.__main__ import main
from search_space.skeleton import Row, canonical_sample, visible

PACKAGE = resources.files('search_space')


@pytest.fixture(params=shipped_skeletons())
def skeleton(request):
    return load_skeleton(request.param)


def random_sample(skeleton, seed=0):
    rng = random.Random(seed)
    return {label: rng.choice(candidates) for label, candidates in skeleton.choices().items()}


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_the_skeletons_that_the_issue_asks_for_are_shipped():
    assert {'mobile', 'cifar', 'cued'} <= set(shipped_skeletons())
    assert [load_skeleton(name).input_size for name in ('mobile', 'cifar', 'cued')] == [224, 32, 32]


def test_a_skeleton_is_called_what_its_file_is_called(skeleton):
    assert (PACKAGE / 'skeletons' / f'{skeleton.name}.yaml').is_file()


def test_a_skeleton_reads_the_same_by_name_and_by_path(skeleton):
    assert load_skeleton(PACKAGE / 'skeletons' / f'{skeleton.name}.yaml') == skeleton


def test_a_label_says_where_it_is(skeleton):
    for label, candidates in skeleton.choices().items():
        row, key = label.split('/')
        assert skeleton.rows[int(row.removeprefix('row')) - 1].candidates(key) == candidates


def test_what_is_done_to_its_choices_leaves_a_skeleton_as_it_is(skeleton):
    labels = list(skeleton.choices())
    skeleton.choices().clear()
    assert list(skeleton.choices()) == labels


def test_the_space_has_the_skeletons_labels_and_candidates(skeleton):
    with torch.device('meta'):
        space = LightNLSpace(skeleton)
    assert {label: tuple(c.values) for label, c in space.simplify().items()} == skeleton.choices()


def test_the_shipped_choices_are_the_ones_that_the_command_writes(skeleton, capsys):
    assert main(['choices', skeleton.name]) == 0
    written = capsys.readouterr().out
    assert written == (PACKAGE / 'choices' / f'{skeleton.name}.json').read_text('utf-8')
    assert json.loads(written) == json.loads(json.dumps(nni_search_space(skeleton.choices())))


def test_freezing_the_space_gives_the_network_that_is_built_from_the_sample(skeleton):
    sample = random_sample(skeleton)
    frozen = LightNLSpace(skeleton).freeze(sample)
    assert shapes(frozen) == shapes(build(skeleton, sample))
    assert not frozen.simplify()
    assert not skeleton.fix(sample).choices()


def test_a_fresh_network_trains_in_every_weight_that_is_not_behind_a_scale_of_zero(skeleton):
    torch.manual_seed(0)
    network = build(skeleton, random_sample(skeleton))
    logits = network(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, skeleton.classes)
    logits.square().mean().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    behind = {name for name, _ in network.named_parameters() if name.endswith('lightnl.conv.weight')}
    assert without == (set() if skeleton.lightnl_scale else behind)


@pytest.mark.slow
def test_samples_with_one_canonical_form_are_one_network(skeleton):
    for seed in range(20):
        sample = random_sample(skeleton, seed)
        canonical = skeleton.canonical(sample)
        assert skeleton.canonical(canonical) == canonical
        assert skeleton.lightnl_positions(canonical) == skeleton.lightnl_positions(sample)
        assert macs(skeleton)(canonical) == macs(skeleton)(sample)
        with torch.device('meta'):
            assert shapes(build(skeleton, canonical)) == shapes(build(skeleton, sample))


def test_a_sample_may_come_as_text(skeleton):
    sample = random_sample(skeleton)
    assert skeleton.check_sample({label: str(value) for label, value in sample.items()}) == sample


def test_a_row_takes_what_it_does_not_say_from_every_row(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text("""
name: mine
input_size: 32
classes: 10
stem_channels: 8
stem_stride: 1
head_channels: 16
every_row: {kernel: [3, 5], lightnl: [absent, present], lightnl_ratio: [0.125, 0.25]}
rows:
  - &first {channels: 8, stride: 1}
  - {<<: *first, kernel: 3}
  - {<<: *first, lightnl: absent}
  - {<<: *first, lightnl: present, lightnl_ratio: [0.5]}
""")
    choice = {'lightnl': ('absent', 'present'), 'lightnl_ratio': (0.125, 0.25)}
    assert load_skeleton(path).rows == (
        Row(channels=8, kernel=(3, 5), **choice),
        Row(channels=8, kernel=3, **choice),
        Row(channels=8, kernel=(3, 5), lightnl_ratio=0.125),
        Row(channels=8, kernel=(3, 5), lightnl='present', lightnl_ratio=0.5),
    )


@st.composite
def restrictions(draw):
    skeleton = load_skeleton(draw(st.sampled_from(['cued', 'cifar', 'mobile'])))
    labels = draw(st.lists(st.sampled_from(list(skeleton.choices())), unique=True))
    candidates = {
        label: draw(st.lists(st.sampled_from(skeleton.choices()[label]), min_size=1, unique=True)) for label in labels
    }
    restricted = skeleton.restrict(candidates)
    sample = {label: draw(st.sampled_from(values)) for label, values in restricted.choices().items()}
    return skeleton, candidates, restricted, sample


@settings(max_examples=50, deadline=None)
@given(restrictions())
@pytest.mark.slow
def test_a_network_of_a_part_of_the_space_is_one_of_the_whole_of_the_same_cost(case):
    skeleton, candidates, restricted, sample = case
    whole = skeleton.sample_of(restricted.fix(sample))
    assert skeleton.check_sample(whole) == whole
    assert all(whole[label] in values for label, values in candidates.items())
    assert skeleton.fix(whole) == restricted.fix(sample)
    assert macs(skeleton)(whole) == macs(restricted)(sample)
    low, high = macs(restricted).range()
    assert macs(skeleton).range()[0] <= low <= high <= macs(skeleton).range()[1]


def test_what_could_choose_nothing_in_a_part_of_the_space_is_no_choice():
    cued = load_skeleton('cued')
    left = cued.restrict({'row02/lightnl': ['absent'], 'row03/lightnl_ratio': [0.25]})
    gone = {'row02/lightnl', 'row02/lightnl_ratio', 'row02/lightnl_stride', 'row03/lightnl_ratio'}
    assert set(left.choices()) == set(cued.choices()) - gone
    assert set(LightNLSpace(left).simplify()) == set(left.choices())
    assert cued.restrict({}) == cued


@pytest.mark.parametrize(
    ('candidates', 'message'),
    [
        ({'row09/lightnl': ['absent']}, "unknown label 'row09/lightnl' for skeleton 'cued'; did you mean"),
        ({'row01/lightnl': ['maybe']}, "row01/lightnl: 'maybe' is not among its candidates 'absent', 'present'"),
        ({'row01/lightnl': []}, 'row01/lightnl takes a list of at least one of'),
        ({'row01/lightnl': 'absent'}, 'row01/lightnl takes a list of at least one of'),
    ],
)
def test_a_part_that_is_not_of_the_space_is_refused(candidates, message):
    with pytest.raises(ValueError, match=message):
        load_skeleton('cued').restrict(candidates)


def test_what_does_not_show_is_not_among_what_is_shown():
    row = {'row03/presence': 'absent', 'row03/kernel': 5, 'row03/lightnl': 'present'}
    assert visible(row) == {'row03/presence': 'absent'}
    position = {'features/3/lightnl': 'absent', 'features/3/lightnl_ratio': 0.25}
    assert visible(position) == {'features/3/lightnl': 'absent'}
    assert visible({'row03/lightnl_ratio': 0.25}) == {'row03/lightnl_ratio': 0.25}  # LightNL is fixed there


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False), st.sampled_from(['cued', 'cifar', 'mobile']))
def test_a_network_has_one_canonical_sample_whatever_the_order_of_its_labels(random, name):
    skeleton = load_skeleton(name)
    choices = skeleton.choices()
    sample = {label: random.choice(candidates) for label, candidates in choices.items()}
    other = {label: sample[label] if label in visible(sample) else random.choice(choices[label]) for label in choices}
    shuffled = dict(random.sample(list(other.items()), len(other)))
    first, second = (list(canonical_sample(choices, s).items()) for s in (sample, shuffled))
    assert first == second == list(skeleton.canonical(sample).items())
    for label in visible(sample):
        changed = {**sample, label: next(c for c in choices[label] if c != sample[label])}
        assert canonical_sample(choices, changed) != dict(first)
