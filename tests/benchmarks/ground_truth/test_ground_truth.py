"""The ground truth: its trainings, its table, and NNI's strategies on it."""

import itertools
import logging
import math
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import made_up_table
import nni.nas.strategy
import numpy as np
import pandas as pd
import pytest
import yaml
from made_up_table import BUDGETS, NETWORKS, RECIPE, SKELETON

from benchmarks.ground_truth.__main__ import main, taus_of_halves
from benchmarks.ground_truth.engine import TableEngine
from benchmarks.ground_truth.table import FILE, GroundTruth, shown, write_table
from benchmarks.ground_truth.table import RECIPE as RECIPE_FILE
from benchmarks.ground_truth.train import train
from search_space import LightNLSpace, macs
from strategies.experiment.bounded_space import BoundedSpace


def test_every_sample_is_one_of_the_networks_and_they_are_160():
    choices = SKELETON.choices()
    samples = (dict(zip(choices, values)) for values in itertools.product(*choices.values()))
    canonical = {tuple(SKELETON.canonical(sample).items()) for sample in samples}
    assert len(NETWORKS) == len(canonical) == 160
    assert {tuple(network.items()) for network in NETWORKS} == canonical


@pytest.fixture(scope='module')
def truth(tmp_path_factory):
    return GroundTruth(made_up_table.write(tmp_path_factory.mktemp('table') / 'networks.csv', noise=0.01))


@pytest.fixture
def recipe(tmp_path):
    """The file of a recipe that trains four networks in a second: with and without LightNL, at two expansions."""
    skeleton = tmp_path / 'four.yaml'
    skeleton.write_text(
        'name: four\ninput_size: 16\nclasses: 10\nstem_channels: 4\nstem_stride: 2\nhead_channels: 8\n'
        'every_row: {kernel: 3, lightnl_ratio: 0.5, lightnl_stride: 1}\n'
        'rows:\n  - {channels: 4, stride: 1, lightnl: [absent, present], expansion: [2, 4]}\n'
    )
    given = yaml.safe_load(RECIPE_FILE.read_text())
    given |= {'skeleton': str(skeleton), 'seeds': 2}
    given['recipe'] |= {'dataset/canvases': 100, 'epochs': 1}
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(given))
    return file


def test_every_network_is_trained_once_from_every_seed_and_a_stopped_run_goes_on(recipe, tmp_path):
    whole, part = tmp_path / 'whole.csv', tmp_path / 'part.csv'
    assert train(whole, recipe=recipe) == 8
    truth = GroundTruth(whole)
    assert truth.test.shape == (4, 2)
    assert len(np.unique(truth.test)) > 4  # a seed is another training
    assert train(whole, recipe=recipe) == 0

    part.write_text(''.join(whole.read_text().splitlines(keepends=True)[:5]))  # a run that was stopped after three
    assert train(part, recipe=recipe) == 5
    seconds = pd.read_csv(part, comment='#').seconds > 0
    assert seconds.all()
    for one, other in zip(
        *(pd.read_csv(f, comment='#').drop(columns='seconds').to_dict('records') for f in (whole, part))
    ):
        assert one == other
    assert train(part, seeds=3, recipe=recipe) == 4


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_no_training_is_lost(recipe, tmp_path):
    given = yaml.safe_load(recipe.read_text())
    given['recipe']['epochs'] = 12
    recipe.write_text(yaml.safe_dump(given))
    out = tmp_path / 'networks.csv'
    arguments = ['train', '--table', str(out), '--recipe', str(recipe), '--processes', '1']
    command = [sys.executable, '-m', 'benchmarks.ground_truth', *arguments]
    killed = subprocess.Popen(command, cwd=FILE.parents[2])
    until = time.monotonic() + 120
    while not out.exists():
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    before = pd.read_csv(out, comment='#').to_dict('records')
    assert 1 <= len(before) < 8
    assert main(arguments) == 0
    after = pd.read_csv(out, comment='#').to_dict('records')
    assert len(after) == 8
    assert after[: len(before)] == before


def test_a_table_of_another_recipe_is_not_written_over(recipe, tmp_path):
    out = tmp_path / 'networks.csv'
    write_table(out, RECIPE, made_up_table.rows()[:1])
    before = out.read_text()
    with pytest.raises(ValueError, match='another recipe'):
        train(out, recipe=recipe)
    assert out.read_text() == before


def test_a_mistake_in_the_recipe_is_said_before_anything_is_trained(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace('optimizer: adamw', 'optimizer: adamn'))
    with pytest.raises(ValueError, match='adamw'):
        train(tmp_path / 'networks.csv', recipe=recipe)


def test_whether_a_table_is_good_enough_is_said(recipe, tmp_path, capsys):
    file = tmp_path / 'networks.csv'

    def said(**kwargs):
        made_up_table.write(file, **kwargs)
        assert main(['describe', '--table', str(file)]) == 0
        return re.findall('^goal: (.*); (met|missed)$', capsys.readouterr().out, re.M)

    assert [met for _, met in said(noise=0.001, seeds=4)] == ['met'] * 5
    seeds, tau, failed, best, _ = said(noise=0.2, seeds=2)
    assert seeds == ('at least 3 seeds: 2', 'missed')
    assert float(re.search(r'at least 0.7: (\S+),', tau[0])[1]) < 0.7
    assert tau[1] == failed[1] == best[1] == 'missed'


def test_every_way_to_halve_the_seeds_is_taken_once(tmp_path):
    for seeds, ways in ((2, 1), (3, 3), (4, 3)):
        truth = GroundTruth(made_up_table.write(tmp_path / 'networks.csv', noise=0.01, seeds=seeds))
        assert len(taus_of_halves(truth)) == ways


def test_a_table_that_is_not_there_says_how_it_is_made(tmp_path, capsys):
    assert main(['describe', '--table', str(tmp_path / 'networks.csv')]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert 'python -m benchmarks.ground_truth train' in said


@pytest.mark.parametrize('text', ['', 'row01/kernel,seed\n3,0\n', '# {"skeleton": "cued-72"}\na,b\n1,2\n', '# []\n'])
def test_a_file_that_is_no_table_is_refused(text, tmp_path):
    (tmp_path / 'networks.csv').write_text(text)
    with pytest.raises(ValueError, match='not a table'):
        GroundTruth(tmp_path / 'networks.csv')


def test_the_table_of_the_package_is_of_its_recipe_and_complete():
    given = yaml.safe_load(RECIPE_FILE.read_text())
    truth = GroundTruth(FILE)
    assert truth.recipe == {'skeleton': given['skeleton'], **given['recipe']}
    assert truth.seeds == list(range(given['seeds']))
    assert [round(float(truth.within(budget).mean()), 1) for budget in truth.budgets] == [0.3, 0.7, 0.9]


def test_the_page_says_what_the_command_prints(capsys):
    page = (FILE.parents[2] / 'docs' / 'results' / 'ground-truth.md').read_text()
    assert main(['describe']) == 0
    said = capsys.readouterr().out
    effects = re.findall(r'[\d.]+% ± [\d.]+%', page)
    assert len(effects) == 7
    for figure in (*effects, '58.29%', '89.84%', '93.54%', '0.774'):
        assert figure in page
        assert figure in said
    assert '0.33%, 0.31%' in said
    assert 'by 0.33%; the error is 0.31%' in page
    assert 'below another one of its network: 35 of 288' in said
    assert 'with LightNL on row 1 0 of 192 [0.0%, 1.9%]; the lowest test accuracy there is 84.75%' in said
    assert '[0.0%, 1.9%]' in page
    met = re.findall('^goal: .*; (met|missed)$', said, re.M)
    assert met == re.findall(r'\| (met|missed) \|$', page, re.M)


def test_a_network_is_ranked_among_those_within_the_budget(truth):
    for budget in BUDGETS:
        within = np.flatnonzero(truth.within(budget))
        by_accuracy = within[truth.accuracy[within].argsort()]
        assert truth.regret(by_accuracy[-1], budget) == 0
        assert truth.top(by_accuracy[-1], budget) == 0
        assert truth.top(by_accuracy[0], budget) == 1 - 1 / len(within)
        assert truth.regret(by_accuracy[0], budget) == np.ptp(truth.accuracy[within])


def test_a_sample_is_found_whatever_it_says_where_nothing_shows(truth):
    absent = next(network for network in NETWORKS if network['row01/lightnl'] == 'absent')
    assert truth.index({**absent, 'row01/lightnl_ratio': 1.0}) == truth.index(absent)
    assert 'row01/lightnl_ratio' not in shown(SKELETON, absent)
    assert truth.macs[truth.index(absent)] == macs(SKELETON)(absent)


def effects(said: str) -> dict[str, tuple[float, float]]:
    """Label to how far apart its candidates are, and the standard error of that; in percent."""
    found = re.findall(r'(row\S+): .*apart by (\S+)% ± (\S+)%', said)
    return {label: (float(apart), float(error)) for label, apart, error in found}


@pytest.mark.slow
def test_the_description_says_spread_noise_and_what_choices_do(truth, tmp_path, capsys):
    made_up_table.write(tmp_path / 'networks.csv', noise=0.01)
    assert main(['describe', '--table', str(tmp_path / 'networks.csv')]) == 0
    said = capsys.readouterr().out
    assert '160 networks of made-up, each from 2 seeds, 1.5 hours' in said
    counts = re.search(r'in steps of 10%: (.*)', said)[1].split(', ')
    expected = np.bincount((truth.test.ravel() * 10).astype(int))
    assert counts == [f'from {step}0%: {count}' for step, count in enumerate(expected) if count]
    for of in ('all networks', 'the upper three quarters of them'):
        noise = rf'{of}: standard deviation (\S+)% of a training, (\S+)% of a mean over seeds'
        deviation, of_mean = map(float, re.search(noise, said).groups())
        assert 0.85 < deviation < 1.15
        assert of_mean == pytest.approx(deviation / 2**0.5, abs=0.01)
    assert 0 < float(re.search(r"Kendall's tau of the first two seeds (\S+)", said)[1]) < 1
    costs = re.search(r'row04/expansion: 6 \S+% at (\S+) MACs, 2 \S+% at (\S+) MACs', said).groups()
    for expansion, said_cost in zip((6, 2), costs):
        of = [cost for cost, sample in zip(truth.macs, truth.networks) if sample['row04/expansion'] == expansion]
        assert said_cost == f'{np.mean(of):,.0f}'
    everywhere, with_row_1, at_stride_1, *more = map(effects, re.split(r'of the \d+ networks with ', said))
    assert sorted(everywhere, key=everywhere.get)[-2:] == ['row01/lightnl_stride', 'row01/lightnl']
    assert 'of the 128 networks with row01/lightnl present:' in said
    assert with_row_1.keys() == everywhere.keys() - {'row01/lightnl'}
    assert with_row_1['row01/lightnl_stride'] == everywhere['row01/lightnl_stride']  # elsewhere it does not show
    assert all(0.1 < error < 0.15 for _, error in with_row_1.values())  # 1% over the root of 64, two sides of 128
    assert 'of the 64 networks with row01/lightnl present, row01/lightnl_stride 1:' in said
    assert at_stride_1.keys() == with_row_1.keys() - {'row01/lightnl_stride'}
    made = ['row01/lightnl', 'row01/lightnl_stride', 'row01/lightnl_ratio', 'row01/expansion', 'row02/kernel']
    assert more[-1].keys() == everywhere.keys() - set(made)
    assert all(apart <= 2 * error + 0.01 for apart, error in more[-1].values())  # nothing is left that is known
    assert said.count('best of the ') == 3
    under_budgets = re.findall(r'of all: (row01/lightnl present .*)', said)
    assert len(under_budgets) == 3
    assert all('row01/lightnl_stride 1 ' in line and line.count('±') >= 7 for line in under_budgets)
    assert len(re.findall(r'of the \d+ with row01/lightnl present: row01/lightnl_ratio ', said)) == 3
    assert len(re.findall(r'of the \d+ with row01/lightnl present, row01/lightnl_stride 1: ', said)) == 3
    assert any(float(regret) > 0 for regret in re.findall(r'regret (\S+)%', said))
    assert any(float(below) > 0 for below in re.findall(r'(\S+)% below the best', said))


@pytest.mark.slow
def test_where_seeds_agree_one_training_tells_the_best(tmp_path, capsys):
    made_up_table.write(tmp_path / 'networks.csv')
    assert main(['describe', '--table', str(tmp_path / 'networks.csv')]) == 0
    said = capsys.readouterr().out
    assert "Kendall's tau of the first two seeds 1.000" in said
    assert re.findall(r'regret (\S+)%, (\S+)% are better', said) == [('0.00', '0.0')] * 6
    assert re.findall(r'(\S+)% below the best, (\S+)% are better', said) == [('0.00', '0.0')] * 6


STRATEGIES = {
    'random': lambda: nni.nas.strategy.Random(seed=0),
    'evolution': lambda: nni.nas.strategy.RegularizedEvolution(population_size=4, sample_size=2, seed=0),
    'tpe': lambda: nni.nas.strategy.TPE(optimize_mode='maximize', seed=0),
}


@pytest.fixture
def engine_after(truth, monkeypatch):
    monkeypatch.setattr('nni.nas.strategy.hpo.time', SimpleNamespace(sleep=lambda seconds: None))
    logging.getLogger('nni').setLevel(logging.ERROR)
    space = BoundedSpace.from_model(LightNLSpace(SKELETON))
    space.cost = macs(SKELETON)

    def run(name, budget, max_macs=None):
        space.max_macs = max_macs
        engine = TableEngine(
            truth.index, lambda n: truth.accuracy[n], lambda n: truth.macs[n], 2, budget, max_macs=max_macs
        )
        STRATEGIES[name]()(space, engine)
        return engine

    return run


@pytest.mark.parametrize('name', STRATEGIES)
def test_a_strategy_of_nnis_is_answered_until_its_compute_is_used(name, engine_after, truth):
    engine = engine_after(name, 21, BUDGETS[0])
    assert [answer.spent for answer in engine.answers] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert len({answer.network for answer in engine.answers}) == 10  # one that is known costs nothing
    assert all(truth.macs[answer.network] <= BUDGETS[0] for answer in engine.answers)
    best = max(engine.answers, key=lambda answer: answer.accuracy)
    assert engine.picks()[-1] == best
    assert best.accuracy == truth.accuracy[best.network]


@pytest.mark.parametrize('name', ['random', 'tpe'])
def test_a_strategy_ends_though_it_may_spend_more_than_the_table_has(name, engine_after, truth):
    engine = engine_after(name, math.inf, 1e6)
    assert len(engine.answers) > 0.9 * truth.within(1e6).sum()
