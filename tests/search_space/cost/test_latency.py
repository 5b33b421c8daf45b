"""Measured latency, as a cost of the same interface as MACs."""

import dataclasses
import json
import math
import random
import time
from collections import Counter

import pytest
import torch
from scipy.stats import kendalltau

from search_space import build, load_skeleton, params
from search_space.__main__ import main
from search_space.cost import latency
from search_space.cost.latency import LatencyTable, Prediction, measure, predict, row_variants


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def parameters_for_time(monkeypatch):
    """Every module takes as many milliseconds as it has parameters, so a table's sums are known."""
    timed = []

    def run_ms(module, x, runs):
        timed.append(module)
        module(x)
        return [float(sum(p.numel() for p in module.parameters()))] * runs

    monkeypatch.setattr(latency, 'run_ms', run_ms)
    monkeypatch.setattr(latency, 'fused', lambda module: module.eval())  # which has fewer parameters
    return timed


def random_sample(skeleton, seed):
    draw = random.Random(seed)
    return {label: draw.choice(candidates) for label, candidates in skeleton.choices().items()}


@pytest.fixture
def small():
    """cifar's first four rows at 8×8: every kind of choice, few variants."""
    skeleton = load_skeleton('cifar')
    return dataclasses.replace(skeleton, rows=skeleton.rows[:4], input_size=8, head_channels=16)


@pytest.mark.usefixtures('parameters_for_time')
def test_stem_rows_and_head_are_the_whole_network(small):
    cost = measure(small, runs=2).cost(small)
    for seed in range(20):
        sample = random_sample(small, seed)
        assert cost(sample) == params(small)(sample)
    assert cost.range() == params(small).range()


@pytest.mark.usefixtures('parameters_for_time')
def test_it_has_the_interface_of_a_cost(small):
    cost, sample = measure(small, runs=1).cost(small), random_sample(small, 3)
    weights = {
        label: torch.tensor([float(c == sample[label]) for c in candidates], requires_grad=True)
        for label, candidates in small.choices().items()
    }
    expected = cost.expected(weights)
    expected.backward()
    assert expected.item() == pytest.approx(cost(sample))
    assert any(weight.grad.abs().sum() > 0 for weight in weights.values())


def test_fractions_of_a_millisecond_survive(small):
    rows = dict.fromkeys(row_variants(small), 0.125)
    conditions = dict.fromkeys(latency.CONDITION_RULES) | {'outside': latency._outside(small, 8), 'input_size': 8}
    cost = LatencyTable(conditions, 0.5, rows).cost(small)
    present = sum(row.presence == 'present' for row in small.fix(random_sample(small, 0)).rows)
    assert cost(random_sample(small, 0)) == 0.5 + 0.125 * present


def test_alike_rows_are_timed_once(parameters_for_time):
    skeleton = load_skeleton('mobile')
    variants = row_variants(skeleton)
    # Rows 3 and 4 are alike, as are 6 to 8, 10 to 12, 14 to 16 and 18 to 20; in each of the 10 searched kinds that are
    # left, LightNL is absent or one of 4, the kernel one of 2, the expansion one of 2, squeeze-excite one of 3.
    searched = len({(row.channels, row.stride, size, channels) for row, channels, size in variants}) - 1
    assert len(variants) == 1 + searched * 5 * 2 * 2 * 3
    assert searched == 11
    small = dataclasses.replace(load_skeleton('cued'), input_size=8)
    measure(small, runs=1)
    assert len(parameters_for_time) == len(row_variants(small)) + 2


@pytest.mark.usefixtures('parameters_for_time')
def test_a_table_is_read_as_it_was_written(small, tmp_path):
    table = measure(small, runs=1)
    table.save(tmp_path / 'table.json')
    assert LatencyTable.load(tmp_path / 'table.json') == table
    assert list(tmp_path.iterdir()) == [tmp_path / 'table.json']


@pytest.mark.usefixtures('one_thread')
def test_a_table_says_how_it_was_measured(tmp_path):
    skeleton = dataclasses.replace(load_skeleton('cued'), input_size=8)
    measure(skeleton, input_size=12, batch=2, runs=1).save(tmp_path / 'table.json')
    table = json.loads((tmp_path / 'table.json').read_text())
    assert table['device']
    stated = {key: table[key] for key in ('threads', 'torch', 'input_size', 'batch', 'runs', 'clock', 'skeleton')}
    assert stated == {
        'threads': 1,
        'torch': torch.__version__,
        'input_size': 12,
        'batch': 2,
        'runs': 1,
        'clock': 'thread',
        'skeleton': 'cued',
    }
    assert all(row['ms'] > 0 for row in table['rows'])


@pytest.mark.usefixtures('parameters_for_time')
def test_a_table_of_another_skeleton_is_refused(small):
    table = measure(small, runs=1)
    with pytest.raises(ValueError, match=r"measured for 'cifar'; 'cifar' is not like it in classes"):
        table.cost(dataclasses.replace(small, classes=100))
    keeping = next(i for i, row in enumerate(small.rows) if row.keeps_shape(small.in_channels(i)))
    deeper = dataclasses.replace(small, rows=(*small.rows[: keeping + 1], *small.rows[keeping:]))
    assert table.cost(deeper).range()[1] > table.cost(small).range()[1]
    with pytest.raises(ValueError, match=r'is not like it in last_row_channels'):
        table.cost(dataclasses.replace(small, rows=small.rows[:1]))
    other_kernels = dataclasses.replace(small.rows[keeping], kernel=7)
    with pytest.raises(ValueError, match=r"measured for 'cifar'; it lacks \d+ row variants"):
        table.cost(dataclasses.replace(deeper, rows=(*small.rows[:keeping], other_kernels, *small.rows[keeping + 1 :])))


@pytest.mark.parametrize('text', ['', '[]', '{"rows": 3}', b'\xff', 'null', '[' * 10**5, '{"rows": [], "rows": []}'])
def test_what_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / 'table.json'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f'^{path}.*: not (a latency table|JSON|a text file)'):
        LatencyTable.load(path)


OF_A_TABLE = {
    'ms of less than nothing': ('rows/0/ms', -1, r': rows, entry 1: ms must be a number in \(0, .+, not -1'),
    'no time at all': ('rows/0/ms', 0, r': rows, entry 1: ms must be .+, not 0'),
    'a time that is none': ('rows/2/ms', math.nan, r': rows, entry 3: ms must be .+, not nan'),
    'a time without end': ('rows/0/ms', math.inf, r': rows, entry 1: ms must be .+, not inf'),
    'a word for a time': ('rows/0/ms', '1.5', r": rows, entry 1: ms must be .+, not '1.5'"),
    'a time that is true': ('rows/0/ms', True, r': rows, entry 1: ms must be .+, not True'),
    'no time': ('rows/0/ms', None, r': rows, entry 1: ms is missing; .+'),
    'another key of a row': ('rows/0/seconds', 1, r": rows, entry 1: unknown key 'seconds'; known: .+"),
    'an even kernel': ('rows/0/kernel', 4, r': rows, entry 1: kernel must be an odd .+, not 4'),
    'a row of two kernels': ('rows/0/kernel', [3, 5], r': rows, entry 1: kernel must be an odd .+, not \[3, 5\]'),
    'a row that is a number': ('rows/0', 7, r': rows, entry 1 must be a mapping with the keys .+, not 7'),
    'a row twice': ('rows/1', 'rows/0', r': rows, entry 2 is a row variant that is there already'),
    'no rows': ('rows', [], r': rows must be a list of at least one row variant, not \[\]'),
    'no stem': ('stem_and_head_ms', None, r': stem_and_head_ms is missing; .+'),
    'a stem of nan': ('stem_and_head_ms', math.nan, r': stem_and_head_ms must be .+, not nan'),
    'a list for the outside': ('outside', [1], r': outside must be a mapping .+, not \[1\]'),
    'nothing outside': ('outside', {}, r': outside: stem_channels is missing; .+'),
    'a stride outside': ('outside/stem_stride', 3, r': outside: stem_stride must be 1 or 2, not 3'),
    'a batch of lists': ('batch', [[]], r': batch must be a whole number .+, not \[\[\]\]'),
    'a batch without end': ('batch', 10**30, r': batch must be a whole number .+, not 1000000.+'),
    'no threads': ('threads', 0, r': threads must be a whole number from 1 to 1,024, not 0'),
    'another clock': ('clock', 'sun', r": clock must be one of thread, wall, not 'sun'"),
    'a size of a word': ('input_size', 'big', r": input_size must be .+, not 'big'"),
    'no device': ('device', '', r": device must be a text that is not empty, not ''"),
    'a name of two lines': ('skeleton', 'a\nb', r": skeleton must be .+, not 'a\\nb'"),
    'another key': ('unit', 'ms', r": unknown key 'unit'; known: .+"),
}


@pytest.fixture(scope='module')
def a_table(tmp_path_factory):
    """A table's file, of made-up times."""
    skeleton = dataclasses.replace(load_skeleton('cued'), input_size=16)
    conditions = {'skeleton': 'cued', 'outside': latency._outside(skeleton, 16), 'device': 'a CPU', 'threads': 1}
    conditions |= {'clock': 'thread', 'torch': torch.__version__, 'input_size': 16, 'batch': 1, 'runs': 1}
    path = tmp_path_factory.mktemp('table') / 'table.json'
    LatencyTable(conditions, 0.5, dict.fromkeys(row_variants(skeleton), 0.25)).save(path)
    return path


@pytest.mark.parametrize(('place', 'value', 'message'), OF_A_TABLE.values(), ids=OF_A_TABLE)
def test_a_table_with_one_thing_wrong_is_one_line_that_says_where(a_table, place, value, message, tmp_path):
    table = json.loads(a_table.read_text())

    def at(place):
        holder, *keys = table, *(int(key) if key.isdecimal() else key for key in place.split('/'))
        for key in keys[:-1]:
            holder = holder[key]
        return holder, keys[-1]

    holder, key = at(place)
    if value is None:
        del holder[key]
    elif value == 'rows/0':
        holder[key] = table['rows'][0]
    else:
        holder[key] = value
    path = tmp_path / 'changed.json'
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=f'^{path}{message}$'):
        LatencyTable.load(path)


@pytest.mark.usefixtures('one_thread')
def test_one_thread_is_timed_by_its_own_busy_time():
    def idle(x):
        time.sleep(0.004)

    assert max(latency.run_ms(idle, torch.zeros(1), 3)) < 2
    torch.set_num_threads(2)
    assert min(latency.run_ms(idle, torch.zeros(1), 3)) >= 4


@pytest.mark.usefixtures('one_thread')
def test_a_larger_module_takes_longer():
    def convolution(channels):
        return lambda: torch.nn.Conv2d(channels, channels, 3, padding=1)

    subjects = {'small': (convolution(8), (8, 16, 16)), 'large': (convolution(64), (64, 32, 32))}
    times = latency.median_ms(subjects, 8)
    assert 0 < times['small'] < times['large']


def test_runs_are_spread_over_passes_in_different_orders(monkeypatch):
    seen = []
    timed = Counter()

    def run_ms(module, x, runs):
        timed[module.number] += runs
        return [module.number] * runs

    monkeypatch.setattr(latency, 'run_ms', run_ms)

    def subject(number):
        def make():
            seen.append(number)
            module = torch.nn.Identity()
            module.number = number
            return module

        return make, (1, 1, 1)

    times = latency.median_ms({number: subject(number) for number in range(6)}, 21)
    assert timed == dict.fromkeys(range(6), 21)
    assert times == {number: number for number in range(6)}
    passes = [tuple(seen[start : start + 6]) for start in range(0, len(seen), 6)]
    assert len(passes) == latency.PASSES
    assert all(sorted(order) == list(range(6)) for order in passes)
    assert len(set(passes)) > 1


def test_the_figures_of_a_prediction():
    draw = random.Random(0)
    measured = [draw.uniform(1, 2) for _ in range(20)]
    predicted = [m * draw.uniform(0.7, 1.1) for m in measured]
    prediction = Prediction(predicted, measured)
    assert prediction.kendall_tau() == pytest.approx(kendalltau(predicted, measured).statistic)
    assert Prediction([1.0, 3.0], [2.0, 2.0]).error() == 0.5
    assert Prediction([1.0, 4.0], [2.0, 2.0]).ratios() == [2.0, 0.5]


@pytest.mark.usefixtures('parameters_for_time')
def test_a_prediction_is_tested_on_whole_networks(small):
    prediction = predict(small, measure(small, runs=1), 5)
    assert prediction.predicted == prediction.measured
    assert len(set(prediction.measured)) > 1
    assert prediction.error() == 0
    assert prediction.kendall_tau() == 1


@pytest.mark.usefixtures('one_thread')
def test_the_command_measures_stores_and_tells_how_well_it_predicts(tmp_path, capsys):
    path = tmp_path / 'table.json'
    options = ['--input-size', '16', '--runs', '2', '--networks', '4', '--out', str(path)]
    assert main(['latency', 'cued', *options]) == 0
    out, said = capsys.readouterr()
    assert 'n = 4' in out
    assert "Kendall's tau" in out
    assert 'mean absolute percentage error' in out
    assert said == ''  # no bar, where it is no terminal
    skeleton = load_skeleton('cued')
    cost = LatencyTable.load(path).cost(skeleton)
    assert 0 < cost.range()[0] < cost.range()[1]
    assert main(['describe', 'cued', '--json', '--input-size', '16', '--latency', str(path)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described['latency_ms']['min'], described['latency_ms']['max']) == cost.range()
    assert main(['describe', 'cued', '--latency', str(path)]) == 2
    assert '--input-size 16' in capsys.readouterr().err


def test_the_network_that_is_timed_is_the_one_of_the_sample(small):
    assert build(small, random_sample(small, 1))(torch.zeros(1, 3, 8, 8)).shape == (1, small.classes)
