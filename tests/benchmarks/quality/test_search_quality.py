"""``search_quality.py`` on a made-up table of a task of a second, and ``ablations.py``."""

import json
import math
import pkgutil
import re

import made_up_table
import pandas as pd
import pytest
import torch
from made_up_table import BUDGETS
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.ground_truth.table import GroundTruth, shown
from benchmarks.quality import ablations, search_quality
from search_space import LightNLSpace, load_skeleton
from strategies import AutoNL
from strategies.autonl.gate import gate
from strategies.autonl.gated_lightnl import GatedInsertion

TINY = ['--seeds', '1', '--processes', '1', '--set', 'epochs=2', 'autonl.warmup_epochs=1']


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    return made_up_table.write(tmp_path_factory.mktemp('table') / 'networks.csv', noise=0.02)


@pytest.fixture(scope='module')
def truth(table):
    return GroundTruth(table)


@pytest.mark.slow
def test_every_strategy_has_a_rank_under_every_budget_and_is_not_run_twice(table, truth, tmp_path, capsys):
    out = ['--csv', str(tmp_path / 'quality.csv'), '--plot', str(tmp_path / 'quality.svg')]
    command = ['--table', str(table), '--tau-networks', '6', '--budgets', '1.0e6', '1.1e6', *TINY, *out]
    assert search_quality.main(command) == 0
    said = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / 'quality.csv')
    assert len(rows) == 2 * len(search_quality.NAMES)
    assert (rows.macs <= rows.max_macs).all()
    for row in rows.itertuples():
        picked = [
            i
            for i in range(len(truth.networks))
            if math.isclose(truth.regret(i, row.max_macs), row.regret, abs_tol=1e-12)
        ]
        assert any(truth.top(i, row.max_macs) == row.top and truth.macs[i] == row.macs for i in picked)
    one_shot = rows[~rows.strategy.isin(search_quality.MULTI_TRIAL)]
    assert (one_shot.cpu_seconds > 0).all()
    # 3 passes over 80 of 100 images and a training of 2 epochs; an epoch of DARTS has two passes, so it gets 2 epochs.
    assert one_shot.groupby('strategy').epochs.first().round(6).to_dict() == {
        'autonl': 4.4,
        'autonl-evolved': 4.4,
        'darts': 5.2,
        'gumbel-darts': 5.2,
        'random-one-shot': 4.4,
    }
    assert len(re.findall(r'^ *1,\d{3},000  \S+ +1 ', said, re.M)) == len(rows)
    assert len(re.findall(r'; (?:met|missed)$', said, re.M)) == 2 * 9
    assert '<svg' in (tmp_path / 'quality.svg').read_text()

    before = (tmp_path / 'quality.csv').read_bytes()
    assert search_quality.main(command) == 0
    assert capsys.readouterr().out == said
    assert (tmp_path / 'quality.csv').read_bytes() == before


def test_the_regrets_of_a_multi_trial_strategy_are_of_its_best_by_validation(table, truth):
    recipe = {**truth.recipe, 'epochs': 5}
    settings = search_quality.Settings(str(table), '', recipe, search_quality.STRATEGIES, [BUDGETS[1]], 0)
    (row,) = search_quality.rows_of(settings, ('random', 3))
    equal = settings.search_epochs() + truth.recipe['epochs']
    regrets = json.loads(row['regrets'])
    assert regrets[0][0] == truth.recipe['epochs']
    assert row['regret'] == [regret for spent, regret in regrets if spent <= equal][-1]
    assert regrets[-1][0] <= truth.recipe['epochs'] * truth.within(BUDGETS[1]).sum()
    assert search_quality.until(row['regrets'], math.inf) == regrets[0][0]
    assert search_quality.until(row['regrets'], -1.0) == search_quality.NEVER


def test_evolution_picks_the_best_of_what_it_has_measured_within_the_budget(truth):
    asked = []

    def accuracy(network):
        asked.append(network)
        return float(truth.accuracy[network])

    settings = search_quality.Settings('', '', {}, search_quality.STRATEGIES, [], 0)
    pick = search_quality.evolved(truth, settings, accuracy, 0, BUDGETS[1])
    assert truth.macs[asked].max() <= BUDGETS[1]
    assert truth.accuracy[pick] == truth.accuracy[asked].max()
    assert truth.regret(pick, BUDGETS[1]) < 0.02


def test_what_evolution_picks_depends_on_its_settings_and_not_what_autonl_finds():
    def settings(**evolution):
        strategies = search_quality.STRATEGIES | {'evolution': evolution}
        return search_quality.Settings('', '', {'epochs': 5}, strategies, [], 0)

    few, many = settings(population_size=4), settings(population_size=8)
    assert few.of('autonl') == many.of('autonl')
    for name in search_quality.PICKED_BY_EVOLUTION:
        assert few.of(name) != many.of(name)


def test_a_pick_is_lost_whose_regret_is_more_than_noise_alone_makes(truth):
    settings = search_quality.Settings('', '', {'epochs': 5}, search_quality.STRATEGIES, [BUDGETS[2]], 0)
    picks = [truth.accuracy.argmax(), truth.accuracy.argmin(), truth.accuracy.argmin()]
    rows = [
        search_quality.row(truth, settings, 'random', seed, BUDGETS[2], pick, 4, [(4.0, 0.5)])
        for seed, pick in enumerate(picks)
    ]
    (line,) = search_quality.summary(pd.DataFrame(rows)).itertuples()
    assert (line.seeds, line.lost) == (3, 2)


def test_as_sure_is_when_no_more_runs_are_lost_also_those_that_get_lost_again_or_have_not_begun():
    of_runs = [json.dumps(run) for run in ([[4, 0.3], [8, 0.02], [12, 0.4]], [[8, 0.05]], [[4, 0.2], [16, 0.01]])]
    shares = {share: search_quality.until_few_are_lost(of_runs, share) for share in (1, 0.9, 0.4, 0.3, 0)}
    assert shares == {1: 4, 0.9: 8, 0.4: 8, 0.3: search_quality.NEVER, 0: search_quality.NEVER}


def test_the_most_probable_network_is_that_of_the_largest_product_within_the_budget(truth):
    torch.manual_seed(0)
    probabilities = {
        label: dict(zip(candidates, torch.rand(len(candidates)).softmax(0).tolist()))
        for label, candidates in truth.skeleton.choices().items()
    }

    def product(index):
        sample = shown(truth.skeleton, truth.networks[index])
        return math.prod(probabilities[label][candidate] for label, candidate in sample.items())

    assert sum(map(product, range(len(truth.networks)))) == pytest.approx(1)
    for budget in BUDGETS:
        pick = search_quality.most_probable(truth, probabilities, budget)
        assert truth.macs[pick] <= budget
        assert product(pick) == max(product(i) for i in range(len(truth.networks)) if truth.macs[i] <= budget)


@pytest.mark.parametrize(
    ('arguments', 'what'),
    [
        (['--table', 'nowhere.csv'], 'python -m benchmarks.ground_truth train'),
        (['--set', 'autonl.margni=1'], "did you mean 'margin'"),
        (['--set', 'autonk.margin=1'], "did you mean 'autonl'"),
        (['--set', 'epochs'], 'NAME=VALUE'),
        (['--set', 'dataset/canvases=200'], 'the table is of dataset/canvases=100'),
        (['--budgets', '5e5'], 'no network meets 500,000 MACs'),
        (['--csv', '/nowhere/quality.csv'], '/nowhere'),
    ],
)
def test_what_is_not_right_is_one_line_before_anything_is_searched(arguments, what, table, capsys):
    assert search_quality.main(['--table', str(table), *arguments]) == 2
    said = capsys.readouterr().err
    assert what in said
    assert said.count('\n') == 1


def test_rows_of_other_strategies_depend_on_the_passes_that_autonl_makes_and_not_on_how_it_divides_them():
    def settings(epochs, warmup, **others):
        autonl = {'class': 'strategies.AutoNL', 'warmup_epochs': warmup, **others}
        return search_quality.Settings('', '', {'epochs': epochs}, {'autonl': autonl, 'darts': {}}, [], 0)

    assert settings(5, 2).of('darts') == settings(6, 4).of('darts') != settings(6, 2).of('darts')
    assert settings(5, 2).of('autonl') != settings(6, 4).of('autonl')
    assert settings(6, 4, threshold_every=2).passes() == 7
    assert settings(6, 5, threshold_every=4).passes() == 6.25


@pytest.mark.slow
def test_every_variant_has_a_row_per_budget_and_hard_gates_lose_nothing_by_export(table, tmp_path, capsys):
    file = tmp_path / 'ablations.csv'
    assert ablations.main(['--table', str(table), '--csv', str(file), '--budgets', '1.05e6', *TINY]) == 0
    said = capsys.readouterr().out
    rows = pd.read_csv(file)
    assert rows.groupby('variant').size().to_dict() == dict.fromkeys(ablations.VARIANTS, 1)
    assert len(re.findall(r'^ *[\d,]+,000  ', said, re.M)) == len(rows)
    hard = rows[rows.variant != 'soft gates']
    assert (hard.left_behind.abs() < 1e-6).all()  # the supernet is the network that its gates choose
    assert rows[rows.variant == 'fixed cost weight'].lightnl.nunique() == 1
    selected = rows[~rows.variant.isin(['fixed cost weight', 'gates alone'])]
    assert selected.fits.all()
    assert rows[rows.fits].regret.notna().all()
    assert rows[~rows.fits].regret.isna().all()


@pytest.mark.parametrize('name', [name for name, variant in ablations.VARIANTS.items() if variant.patches])
def test_a_part_is_replaced_while_a_variant_is_searched_and_no_longer(name):
    def part():
        return [pkgutil.resolve_name(f'strategies.autonl.{place}') for place in ablations.VARIANTS[name].patches]

    before = part()
    with ablations.made_otherwise(ablations.VARIANTS[name]):
        assert part() == [getattr(ablations, function) for function in ablations.VARIANTS[name].patches.values()]
    assert part() == before


def test_the_norm_of_the_folded_kernel_is_that_of_the_convolution_that_batch_norm_is_folded_into():
    strategy = AutoNL()
    supernet = strategy.mutate_model(LightNLSpace(load_skeleton('cued-72')))
    insertion = next(module for module in supernet.modules() if isinstance(module, GatedInsertion))
    bn = insertion['present'].bn
    torch.nn.init.uniform_(bn.weight)
    torch.nn.init.uniform_(bn.running_var, 0.5, 2)
    folded = fuse_conv_bn_eval(insertion['present'].conv.eval(), bn.eval())
    expected = folded.weight.square().sum().item() / len(folded.weight)
    assert ablations.folded_norm(insertion).item() == pytest.approx(expected)


def test_a_soft_gate_lets_through_what_a_hard_one_has_as_its_gradient():
    u, at = torch.tensor([0.3], requires_grad=True), torch.tensor([-0.2])
    assert ablations.soft_gate(u, at).item() == pytest.approx(torch.sigmoid(at).item())
    gradients = [torch.autograd.grad(function(u, at).sum(), u)[0].item() for function in (gate, ablations.soft_gate)]
    assert gradients[0] == pytest.approx(gradients[1])


@pytest.mark.parametrize('name', ablations.VARIANTS)
def test_every_variant_makes_as_many_passes_as_the_default(name):
    variant = ablations.VARIANTS[name]
    epochs = variant.epochs(18, 6)
    warmup = variant.arguments.get('warmup_epochs', 6)
    assert (epochs if variant.one_step else 2 * epochs - min(epochs, warmup)) == 30
