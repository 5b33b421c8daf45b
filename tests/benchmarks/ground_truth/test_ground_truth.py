"""The ground truth: its tuner against a manager that answers at once, its table, and NNI's strategies on it."""

import itertools
import json
import logging
import math
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import made_up_table
import nni.nas.strategy
import numpy as np
import pytest
import yaml
from made_up_table import NETWORKS, RECIPE, SKELETON
from nni.experiment.config import ExperimentConfig
from records import Records

from benchmarks.ground_truth.__main__ import main
from benchmarks.ground_truth.engine import TableEngine
from benchmarks.ground_truth.table import BUDGETS, FILE, GroundTruth, read_table, shown, write_table
from benchmarks.ground_truth.tuner import GroundTruthTuner
from search_space import LightNLSpace, macs, nni_search_space
from strategies.experiment.bounded_space import BoundedSpace
from strategies.experiment.requests import key
from trials.parameters import TrialParameters

EXPERIMENT = Path(__file__).parents[3] / 'benchmarks' / 'ground_truth' / 'experiment.yaml'
SPACE = nni_search_space(SKELETON.choices())
FOUR = SPACE | {
    label: {'_type': 'choice', '_value': SPACE[label]['_value'][:1]}
    for label in SPACE
    if label not in ('row01/lightnl', 'row02/kernel')
}
"""A search space of four networks: with and without LightNL on row 1, at two kernels of row 2."""


def test_every_sample_is_one_of_the_networks_and_they_are_160():
    choices = SKELETON.choices()
    samples = (dict(zip(choices, values)) for values in itertools.product(*choices.values()))
    canonical = {tuple(SKELETON.canonical(sample).items()) for sample in samples}
    assert len(NETWORKS) == len(canonical) == 160
    assert {tuple(network.items()) for network in NETWORKS} == canonical


class Manager:
    """NNI's manager, to the tuner."""

    def __init__(self):
        self.ended, self.stopped = threading.Event(), threading.Event()
        self.again = {}

    def has_started(self, parameter_id):
        return True

    def unfinished(self):
        return self.again

    def failed(self):
        return []

    def status(self, parameter_id):
        return 'SUCCEEDED' if self.ended.is_set() else 'RUNNING'

    def last_earlier_id(self):
        return max(self.again, default=-1)

    def why_failed(self, parameter_id):
        return 'the log of its trial'

    def end_experiment(self):
        self.ended.set()

    def stop_experiment(self):
        self.stopped.set()


class Experiment:
    """Plays NNI's dispatcher: asks for trials, and ends them in a random order, well or badly."""

    def __init__(self, known=(), again=(), space=FOUR, **arguments):
        self.manager = Manager()
        self.manager.again = dict(enumerate(again))
        arguments = {'skeleton': 'cued-160', 'seeds': 2, 'recipe': self.recipe(), **arguments}
        self.tuner = GroundTruthTuner(**arguments, manager=lambda: self.manager)
        self.tuner.update_search_space(space)
        self.tuner.import_data([{'parameter': parameters, 'value': RESULT} for parameters in known])
        self.running, self.started, self.ids = {}, [], itertools.count(len(again))

    @staticmethod
    def recipe():
        return {key: value for key, value in RECIPE.items() if key != 'skeleton'}

    def send(self, parameter_id, parameters):
        self.running[parameter_id] = parameters
        self.started.append(parameters)

    def ask(self, count=1):
        ids = [next(self.ids) for _ in range(count)]
        assert self.tuner.generate_multiple_parameters(ids, st_callback=self.send) == []

    def queued(self, count):
        """The first ``count`` that are started: one after the other, each in its own time."""
        self.ask(count)
        until = time.monotonic() + 20
        while len(self.started) < count:
            assert time.monotonic() < until, f'{len(self.started)} of {count} are started'
            time.sleep(0.002)
        return self.started

    def run(self, fails=lambda parameters, attempt: False, stop_after=math.inf):
        order, finished = random.Random(0), []
        self.ask(2)
        until = time.monotonic() + 20
        while not self.manager.ended.is_set() and len(finished) < stop_after:
            assert time.monotonic() < until, f'deadlock: {self.running}'
            if not self.running:
                time.sleep(0.002)
                continue
            parameter_id = order.choice(sorted(self.running))
            parameters = self.running.pop(parameter_id)
            if fails(parameters, self.started.count(parameters)):
                self.tuner.trial_end(parameter_id, False)
            else:
                finished.append(parameters)
                self.tuner.receive_trial_result(parameter_id, '', RESULT)  # NNI no longer has what was sent
                self.tuner.trial_end(parameter_id, True)
            self.ask()
        return finished


RESULT = {'default': 0.5, 'test_accuracy': 0.5, 'macs': 1, 'params': 1, 'epochs': 2, 'seconds': 1.0}


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr('strategies.experiment.workers.GRACE_SECONDS', {True: 0.05, False: 0.01})


def all_of(trainings):
    return sorted(map(key, trainings))


def test_every_network_is_trained_once_from_every_seed_and_then_the_experiment_is_done():
    experiment = Experiment()
    finished = experiment.run()
    assert len(finished) == 8
    assert all_of(finished) == sorted(set(all_of(experiment.started)))
    assert [parameters['seed'] for parameters in experiment.started] == [0] * 4 + [1] * 4
    for parameters in finished:
        trial = TrialParameters.from_flat(parameters)
        assert trial.stage == 'test'  # validation and test accuracy
        assert SKELETON.canonical(trial.network) == trial.network


def test_the_whole_space_is_320_trainings():
    experiment = Experiment(space=SPACE)
    assert len(set(all_of(experiment.queued(320)))) == 320


def test_what_failed_is_tried_once_more_at_the_end():
    experiment = Experiment()
    first = []

    def fails(parameters, attempt):
        first.append(parameters)
        return len(first) == 1

    assert len(experiment.run(fails)) == 8
    assert len(experiment.started) == 9
    assert experiment.started[-1] == first[0]


def test_what_fails_again_is_given_up_and_the_rest_is_trained(caplog):
    experiment = Experiment()
    finished = experiment.run(fails=lambda p, attempt: p['seed'] == 1 and p['row02/kernel'] == 5)
    assert len(finished) == 6
    assert len(experiment.started) == 10
    said = [record.getMessage() for record in caplog.records if 'the log of its trial' in record.getMessage()]
    assert sum('it is given up' in line for line in said) == 2


def test_a_trial_that_ends_well_and_never_reports_counts_as_failed():
    experiment = Experiment(seeds=1)
    receive, silent = experiment.tuner.receive_trial_result, []

    def lose_the_first(parameter_id, parameters, value):
        silent.append(experiment.started[parameter_id])
        if len(silent) > 1:
            receive(parameter_id, parameters, value)

    experiment.tuner.receive_trial_result = lose_the_first
    assert all_of(experiment.run()).count(all_of(silent[:1])[0]) == 2


@pytest.mark.parametrize('stop_after', [1, 5, 8])
def test_what_was_trained_before_a_resume_is_not_trained_again(stop_after):
    first = Experiment()
    before = [p | {'gradient_clip': 1} for p in first.run(stop_after=stop_after)]  # 1.0, after NNI has passed it on
    resumed = Experiment(known=before)
    after = resumed.run()
    assert all_of(before + after) == all_of(Experiment().run())
    assert not set(all_of(resumed.started)) & set(all_of(before))


def test_what_the_table_holds_is_not_trained_again(tmp_path, monkeypatch):
    rows = made_up_table.rows()
    table = tmp_path / 'networks.csv'
    monkeypatch.setattr('benchmarks.ground_truth.table.FILE', table)
    untrained = Experiment(space=SPACE, resume_table=True).queued(320)  # there is no table
    write_table(table, RECIPE, rows[:150] + rows[250:])
    part = Experiment(space=SPACE, resume_table=True)
    assert all_of(part.queued(100)) == sorted(all_of(untrained[150:250]))
    part.ask()
    assert len(part.started) == 100
    other = Experiment(space=SPACE, resume_table=True, recipe=Experiment.recipe() | {'epochs': 3})
    assert len(other.queued(320)) == 320
    write_table(table, RECIPE, rows)
    with pytest.raises(ValueError, match='all trainings are in the table already'):
        Experiment(space=SPACE, resume_table=True)
    assert len(Experiment(space=SPACE).queued(320)) == 320


@pytest.fixture
def interrupted():
    """Two trainings that ran when their experiment was interrupted."""
    first = Experiment()
    return [*first.queued(2)]


def test_what_nni_starts_again_itself_is_not_started_here(interrupted):
    resumed = Experiment(again=interrupted)
    resumed.ask(2)  # for these NNI has workers
    assert not set(all_of(resumed.queued(6))) & set(all_of(interrupted))
    resumed.tuner.import_data([{'parameter': json.dumps(p), 'value': json.dumps(RESULT)} for p in interrupted])
    for parameter_id, parameters in list(resumed.running.items()):
        resumed.tuner.receive_trial_result(parameter_id, parameters, RESULT)
    assert resumed.manager.ended.wait(5)
    assert len(resumed.started) == 6


def test_an_id_of_an_earlier_trial_is_left_unanswered_since_its_result_would_be_taken_for_that_trials(interrupted):
    resumed = Experiment(again=interrupted)
    assert resumed.tuner.generate_multiple_parameters([0], st_callback=resumed.send) == []
    resumed.tuner.import_data([{'parameter': p, 'value': RESULT} for p in interrupted])
    assert not resumed.started
    assert len(resumed.run()) == 6


def test_the_end_of_an_earlier_trial_may_be_told_before_there_is_anything_to_train():
    GroundTruthTuner('cued-160', 2, Experiment.recipe(), manager=Manager).trial_end(0, True)


@pytest.mark.parametrize(
    ('arguments', 'what'),
    [
        ({'seeds': 0}, 'seeds must be a whole number'),
        ({'resume_table': 'yes'}, "resume_table must be true or false, not 'yes'"),
        ({'skeleton': 'cued-1600'}, "did you mean 'cued-160'"),
        ({'recipe': {**Experiment.recipe(), 'epoch': 3}}, "unknown trial parameter 'epoch'"),
        ({'space': nni_search_space({'row09/kernel': (3, 5)})}, 'row09/kernel'),
    ],
)
def test_arguments_that_are_not_valid_stop_the_experiment_before_anything_is_trained(arguments, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        Experiment(**arguments)


def test_the_tuner_starts_without_the_slow_imports():
    code = "import sys, benchmarks.ground_truth.tuner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=EXPERIMENT.parents[2], check=False).returncode == 0


def test_the_experiment_is_right_to_nni_and_its_trainings_to_us():
    config = ExperimentConfig.load(EXPERIMENT)
    config.validate()
    config = config.json()
    assert config['searchSpace'] == SPACE
    assert Path(config['tuner']['codeDirectory']) == Path(config['trialCodeDirectory']) == EXPERIMENT.parents[2]
    assert config['tuner']['className'] == f'{GroundTruthTuner.__module__}.{GroundTruthTuner.__name__}'
    tuner = GroundTruthTuner(**config['tuner']['classArgs'] | {'resume_table': False}, manager=Manager)
    tuner.update_search_space(config['searchSpace'])


@pytest.fixture(scope='module')
def truth(tmp_path_factory):
    return GroundTruth(made_up_table.write(tmp_path_factory.mktemp('table') / 'networks.csv', noise=0.01))


@pytest.fixture
def experiment(tmp_path):
    """An experiment in which two networks were trained from seed 0, as NNI and our trials leave it."""
    records = Records(tmp_path / 'EXP', tuner='benchmarks.ground_truth.tuner.GroundTruthTuner')
    for number, row in enumerate(made_up_table.rows(seeds=1)[:2]):
        sample = {label: row[label] for label in SKELETON.choices()}
        parameters = {'strategy': 'ground-truth', 'stage': 'test', 'seed': 0, **RECIPE, **sample}
        result = {key: row[key] for key in ('test_accuracy', 'macs', 'params', 'seconds')}
        result |= {'default': row['validation_accuracy'], 'epochs': 2}
        # As where NNI has mixed up two trials: its own record is of the other's parameters.
        records.start(f't{number}', 'ground-truth', 'test', seed=7)
        records.left(f't{number}', 'trial.json', json.dumps({'parameters': parameters, 'result': result}))
        records.event(f't{number}', 'SUCCEEDED')
    return records


def test_the_table_is_collected_from_what_the_trials_left(experiment, tmp_path, capsys):
    out = tmp_path / 'networks.csv'
    assert main(['collect', str(experiment.folder), '--out', str(out)]) == 1
    said = capsys.readouterr()
    assert '2 of 160 trainings' in said.out
    assert 'nnictl resume EXP' in said.err
    first, *lines = out.read_text().splitlines()
    assert json.loads(first.removeprefix('#')) == RECIPE
    assert len(lines) == 3
    with pytest.raises(ValueError, match='158 of 160 trainings are missing'):
        GroundTruth(out)


def test_trainings_are_added_to_the_table_that_is_there(experiment, tmp_path, capsys):
    out = tmp_path / 'networks.csv'
    before = made_up_table.rows()[1:6]
    write_table(out, RECIPE, before)
    assert main(['collect', str(experiment.folder), '--out', str(out)]) == 1
    assert '6 of 160 trainings' in capsys.readouterr().out
    whole = made_up_table.write(tmp_path / 'whole.csv').read_text().splitlines()
    assert out.read_text().splitlines() == whole[:8]


def test_a_table_of_another_recipe_is_not_written_over(experiment, tmp_path, capsys):
    out = tmp_path / 'networks.csv'
    write_table(out, RECIPE | {'epochs': 3}, made_up_table.rows()[:1])
    before = out.read_text()
    assert main(['collect', str(experiment.folder), '--out', str(out)]) == 2
    assert 'another recipe' in capsys.readouterr().err
    assert out.read_text() == before


def test_an_experiment_without_trainings_is_one_line(tmp_path, capsys):
    records = Records(tmp_path / 'EXP')
    assert main(['collect', str(records.folder)]) == 2
    assert re.fullmatch(r'python -m benchmarks.ground_truth: .*no training.*\n', capsys.readouterr().err)


def test_a_table_that_is_not_there_says_how_it_is_made(tmp_path, capsys):
    assert main(['describe', '--table', str(tmp_path / 'networks.csv')]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert str(EXPERIMENT.relative_to(EXPERIMENT.parents[2])) in said


@pytest.mark.parametrize('text', ['', 'row01/kernel,seed\n3,0\n', '# {"skeleton": "cued-160"}\na,b\n1,2\n', '# []\n'])
def test_a_file_that_is_no_table_is_refused(text, tmp_path):
    (tmp_path / 'networks.csv').write_text(text)
    with pytest.raises(ValueError, match='not a table'):
        GroundTruth(tmp_path / 'networks.csv')


@pytest.mark.skipif(not FILE.exists(), reason='the trainings take hours')
def test_the_table_of_the_package_is_of_its_experiment():
    recipe, frame = read_table(FILE)
    arguments = yaml.safe_load(EXPERIMENT.read_text())['tuner']['classArgs']
    assert recipe == {'skeleton': arguments['skeleton'], **arguments['recipe']}
    assert set(frame.seed) <= set(range(arguments['seeds']))


def test_a_network_is_ranked_among_those_within_the_budget(truth):
    for budget in BUDGETS:
        within = np.flatnonzero(truth.within(budget))
        by_accuracy = within[truth.accuracy[within].argsort()]
        assert truth.regret(by_accuracy[-1], budget) == 0
        assert truth.top(by_accuracy[-1], budget) == 0
        assert truth.top(by_accuracy[0], budget) == 1 - 1 / len(within)
        assert truth.regret(by_accuracy[0], budget) == np.ptp(truth.accuracy[within])
    assert [round(truth.within(budget).mean(), 1) for budget in BUDGETS] == [0.3, 0.7, 0.9]


def test_a_sample_is_found_whatever_it_says_where_nothing_shows(truth):
    absent = next(network for network in NETWORKS if network['row01/lightnl'] == 'absent')
    assert truth.index({**absent, 'row01/lightnl_ratio': 1.0}) == truth.index(absent)
    assert 'row01/lightnl_ratio' not in shown(SKELETON, absent)
    assert truth.macs[truth.index(absent)] == macs(SKELETON)(absent)


def effects(said: str) -> dict[str, tuple[float, float]]:
    """Label to how far apart its candidates are, and the standard error of that; in percent."""
    found = re.findall(r'(row\S+): .*apart by (\S+)% ± (\S+)%', said)
    return {label: (float(apart), float(error)) for label, apart, error in found}


def test_the_description_says_spread_noise_and_what_choices_do(truth, tmp_path, capsys):
    made_up_table.write(tmp_path / 'networks.csv', noise=0.01)
    assert main(['describe', '--table', str(tmp_path / 'networks.csv')]) == 0
    said = capsys.readouterr().out
    assert '160 networks of cued-160, each from 2 seeds, 1.5 hours' in said
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


def test_the_ratio_decides_what_else_a_budget_affords(truth):
    of = {0.0625: [], 1.0: []}  # within the middle budget, at stride 1: as docs/results/ground-truth.md says
    for sample in itertools.compress(truth.networks, truth.within(BUDGETS[1])):
        ratio, stride = truth.skeleton.lightnl_positions(sample).get(1, (None, None))
        if stride == 1:
            of[ratio].append(sample['row01/expansion'])
    assert {ratio: (len(found), found.count(4)) for ratio, found in of.items()} == {0.0625: (24, 8), 1.0: (16, 0)}


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
