"""Files and arguments at random: a command ends in short lines and a status of its kind, never in a traceback.

``FUZZ_INPUTS`` says how many inputs each entry point gets; by default it is so many that all take some minutes.
"""

import contextlib
import io
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from records import SCHEMA, Records

import analysis.__main__
import search_space.__main__
import trials.__main__
import trials.run
from analysis import read
from search_space import load_skeleton
from search_space.cost.latency import LatencyTable, _outside, row_variants

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parent.parent
EXPERIMENT = yaml.safe_load((ROOT / 'experiment.yaml').read_text())
CHOICES = json.loads((ROOT / 'search_space' / 'choices' / 'cued.json').read_text())
SKELETON = yaml.safe_load((ROOT / 'search_space' / 'skeletons' / 'cued.yaml').read_text())
NETWORK = {'skeleton': 'cued', 'sample': {label: choice['_value'][0] for label, choice in CHOICES.items()}}
PARAMETERS = {
    **{'strategy': 's', 'stage': 'retrain', 'seed': 0, 'skeleton': 'cued', 'dataset': 'cued-digits', 'epochs': 1},
    **{'batch_size': 64, 'learning_rate': 0.1, 'dataset/canvases': 100, 'optimizer': 'adamw'},
    **NETWORK['sample'],
}

fuzz = settings(
    max_examples=int(os.environ.get('FUZZ_INPUTS', '25')),
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # each costs as much as the first: what is found is printed, not shrunk
    suppress_health_check=list(HealthCheck),
)

NUMBERS = [0, -1, 1, 2, 2**31, 2**63, 10**19, 10**30, 10**400, 1e308, 5e-324, 0.5, 1.5, True, False, None]
TEXTS = [
    '',
    ' ',
    '/',
    '.',
    '..',
    '/dev/zero',
    '/dev/null',
    'a\x00b',
    'a\nb',
    '\x1b[31m',
    '\udcff',
    'x' * 5000,
    '=1+1',
    '<b>',
]
MEANT = [
    'cued',
    '٣',
    '1e6',
    'os.system',
    'nni.nas.strategy.Random',
    'strategies.AutoNL',
    'image-folder',
    [],
    {},
    [[]],
    [{}],
]
NASTY = (
    st.sampled_from([*NUMBERS, *TEXTS, *MEANT])
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.lists(st.integers(-2, 9), max_size=4)
)
"""Values as people, and their enemies, write them."""


def places(data, path=()):
    """Where something stands in nested lists and mappings."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def changed(draw, data):
    """``data`` with one to three things replaced, left out, added, or copied to another place."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.integers(1, 3))):
        there = list(places(data))
        if not there:
            return draw(NASTY)
        *path, key = draw(st.sampled_from(there))
        holder = data
        for step in path:
            holder = holder[step]
        what = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'add', 'rename', 'copy']))
        if what == 'replace':
            holder[key] = draw(NASTY)
        elif what == 'copy':
            holder[key] = json.loads(json.dumps(data))
        elif what == 'remove' or isinstance(holder, list):
            del holder[key]
        elif what == 'add':
            holder[draw(st.text(max_size=8) | st.just('row01/lightnl') | st.just('class'))] = draw(NASTY)
        else:
            holder[draw(st.text(max_size=8)) if draw(st.booleans()) else f'{key}x'] = holder.pop(key)
    return data


@st.composite
def a_file(draw, data, dump):
    """The bytes of a file of ``data``, changed in what it says or in how it is written."""
    text = dump(draw(changed(data)) if draw(st.integers(0, 4)) else data)
    content = text.encode('utf-8', 'surrogatepass')
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(content)))
        put = draw(
            st.binary(max_size=3) | st.sampled_from([b'&a ', b'*a', b'!!bool ', b'- ', b'? ', b'{', b'[' * 200, b'\n'])
        )
        content = content[:at] + put + content[at + draw(st.integers(0, 3)) :]
    return content


def to_yaml(data) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def end(main, *arguments) -> int:
    """Runs a command; what it says is short lines that a terminal shows."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
    said = err.getvalue()
    assert status in (0, 1, 2), said
    assert status == 0 or said.strip(), 'it failed without a word'
    for line in said.splitlines():
        assert len(line) < 2500
        assert line.isprintable()
    return status


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz') / 'FILE'


@fuzz
@given(content=a_file(SKELETON, to_yaml) | a_file(NETWORK, to_yaml) | st.binary(max_size=200))
def test_describing_and_listing_what_is_in_a_file(file, content):
    file.write_bytes(content)
    end(search_space.__main__.main, 'describe', file)
    end(search_space.__main__.main, 'choices', file)


@fuzz
@given(
    arguments=st.lists(st.text(max_size=20) | st.sampled_from(['--json', '--input-size', '--space', '--batch', 'cued']))
)
@pytest.mark.parametrize('command', ['describe', 'choices', 'compare-nl', 'latency', 'draw', ''])
def test_arguments(command, arguments):
    if command == 'latency' and arguments[:1] == ['cued']:
        arguments = ['cude', *arguments[1:]]  # it would take a minute
    if not any(argument in ('-h', '--help') or argument.startswith('--h') for argument in arguments):
        end(search_space.__main__.main, *([command] if command else []), *(a.replace('\x00', '0') for a in arguments))


def a_table() -> LatencyTable:
    """Of made-up times."""
    skeleton = load_skeleton('cued')
    size = skeleton.input_size
    conditions = {'skeleton': 'cued', 'outside': _outside(skeleton, size), 'device': 'a CPU', 'threads': 1, 'batch': 1}
    conditions |= {'clock': 'thread', 'torch': '2', 'input_size': size, 'runs': 1}
    return LatencyTable(conditions, 0.5, dict.fromkeys(row_variants(skeleton), 0.25))


@fuzz
@given(data=st.data())
def test_a_latency_table(file, data):
    a_table().save(file)
    table = json.loads(file.read_text())
    table['rows'] = table['rows'][:4] if data.draw(st.booleans()) else table['rows']
    file.write_bytes(data.draw(a_file(table, json.dumps)))
    end(search_space.__main__.main, 'describe', 'cued', '--latency', file)


@fuzz
@given(experiment=a_file(EXPERIMENT, to_yaml), choices=st.none() | a_file(CHOICES, json.dumps))
def test_checking_an_experiment(file, experiment, choices):
    folder = file.parent / 'search_space' / 'choices'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'cued.json').write_bytes(json.dumps(CHOICES).encode() if choices is None else choices)
    file.write_bytes(experiment)
    end(trials.__main__.main, 'check', '--no-own-code', file)


@fuzz
@given(content=a_file(PARAMETERS, json.dumps) | a_file({'parameters': PARAMETERS, 'result': {}}, json.dumps))
def test_the_parameters_of_a_trial(file, content):
    def refuse(*_, **__):
        raise ValueError('it would be trained')

    run_trial, trials.run.run_trial = trials.run.run_trial, refuse
    try:
        file.write_bytes(content)
        end(trials.__main__.main, 'run', '--parameters', file)
    finally:
        trials.run.run_trial = run_trial


@fuzz
@given(
    record=a_file({'parameters': PARAMETERS, 'result': {'default': 0.5}}, json.dumps), weights=st.binary(max_size=100)
)
def test_exporting_and_evaluating_what_a_trial_left(file, record, weights):
    (file.parent / 'trial.json').write_bytes(record)
    (file.parent / 'network.pt').write_bytes(weights)
    assert end(trials.__main__.main, 'export', file.parent, '--format', 'torch') == 2
    assert end(trials.__main__.main, 'evaluate', file.parent) == 2


COLUMNS = {
    table: [column.split()[0] for column in columns.split(',')]
    for table, columns in (
        statement.split('(', 1) for statement in SCHEMA.replace('create table ', '').split(';') if '(' in statement
    )
}
"""Of NNI's database: table to its columns."""


def an_experiment(folder: Path) -> Records:
    records = Records(folder, trainingService={'platform': 'local'}, maxTrialNumber=9)
    records.trained('a', 0.9, 30, NETWORK['sample'], stage='search', strategy='autonl')
    records.epoch('a', 1, train_loss=0.5, **{'norm/row01/lightnl': 0.5, 'gate/row01/lightnl': 1.0})
    records.start('b')
    records.left('b', 'failure.json', json.dumps({'type': 'ValueError', 'error': 'no'}))
    records.event('b', 'FAILED')
    return records


@fuzz
@given(data=st.data())
def test_an_experiment_in_a_database_of_nni(file, data):
    shutil.rmtree(folder := file.parent / 'e', ignore_errors=True)
    records = an_experiment(folder)
    (params,) = records.database.execute('select params from ExperimentProfile').fetchone()
    if data.draw(st.booleans()):
        params = data.draw(a_file(json.loads(params), json.dumps))
        records.database.execute('update ExperimentProfile set params = ?', [params.decode('utf-8', 'replace')])
    for _ in range(data.draw(st.integers(0, 2))):
        table = data.draw(st.sampled_from(list(COLUMNS)))
        column = data.draw(st.sampled_from(COLUMNS[table]))
        value = data.draw(NASTY | st.binary(max_size=9))
        value = value if isinstance(value, str | bytes | int | float | None) else json.dumps(value)
        with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):  # what SQLite does not take
            records.database.execute(f'update {table.strip()} set {column} = ?', [value])
    (folder / 'environments/local-env/trials/b/failure.json').write_bytes(
        data.draw(a_file({'type': 'ValueError', 'error': 'no'}, json.dumps))
    )
    records.database.close()
    end(analysis.__main__.main, 'table', folder)
    end(analysis.__main__.main, 'table', folder, '--csv')
    end(analysis.__main__.main, 'export', folder, '--out', file.parent / 'out')


@pytest.fixture(scope='module')
def saved(file):
    folder = file.parent / 'saved'
    read(an_experiment(file.parent / 'to-save').folder).save(folder)
    return {one: one.read_bytes() for one in folder.iterdir()}


@fuzz
@given(data=st.data())
def test_a_result_set_that_was_exported(file, saved, data):
    for one, content in saved.items():
        one.write_bytes(content)
    one = data.draw(st.sampled_from(list(saved)))
    if one.suffix == '.json' and data.draw(st.booleans()):
        one.write_bytes(data.draw(a_file(json.loads(saved[one]), json.dumps)))
    else:
        rows = saved[one].decode().splitlines()
        at = data.draw(st.integers(0, len(rows) - 1))
        cells = rows[at].split(',')
        cells[data.draw(st.integers(0, len(cells) - 1))] = str(data.draw(NASTY))
        rows[at] = ','.join(cells)
        one.write_bytes('\n'.join(rows).encode('utf-8', 'surrogatepass'))
    end(analysis.__main__.main, 'export', one.parent, '--out', file.parent / 'out')
    end(analysis.__main__.main, 'plot', 'timeline', one.parent, '--out', file.parent / 'out.svg')


WORDS = [
    *('table', 'export', 'report', 'plot', 'timeline', 'check', 'run', 'evaluate', 'prepare', 'drop-host', 'import'),
    *('--out', '--csv', '--parameters', '--folder', '--side', '--processes', '--format', 'onnx', '--network', 'cued'),
]


@fuzz
@given(arguments=st.lists(st.text(max_size=20) | st.sampled_from([*WORDS, *TEXTS]), max_size=6))
@pytest.mark.parametrize('program', [trials.__main__, analysis.__main__], ids=['trials', 'analysis'])
def test_arguments_of_trials_and_analysis(program, arguments, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp('here')
    monkeypatch.chdir(folder)
    monkeypatch.setenv('HOME', str(folder))
    if not any(argument.startswith(('-h', '--h')) for argument in arguments):
        end(program.main, *arguments)


@fuzz
@given(content=st.binary(max_size=100))
@pytest.mark.parametrize('name', ['weights.pth', 'weights.index'])
def test_importing_what_others_released(file, name, content):
    released = file.parent / name
    released.write_bytes(content)
    assert end(trials.__main__.main, 'import', released, '--network', 'autonl-s', '--out', file.parent / 'i') == 2
