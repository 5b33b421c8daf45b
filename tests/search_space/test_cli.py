"""``python -m search_space``: what its commands print, and what they say of mistakes."""

import json
import os
import subprocess
import sys

import pytest

from search_space import load_network, load_skeleton, macs, params
from search_space.__main__ import main

NETWORK = 'skeleton: cued\nsample: {\n'


@pytest.fixture
def run(capsys):
    """Runs a command line; its exit status, what it printed and what it said on stderr."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def network_file(tmp_path):
    """A network of cued: LightNL on row 1 alone."""
    sample = {label: candidates[0] for label, candidates in load_skeleton('cued').choices().items()}
    sample['row01/lightnl'] = 'present'
    path = tmp_path / 'first-row.yaml'
    path.write_text(json.dumps({'skeleton': 'cued', 'sample': sample}))  # JSON is YAML
    return path


@pytest.mark.parametrize(('name', 'macs', 'params'), [('autonl-l', 352.83, 5.580), ('autonl-s', 266.88, 4.389)])
def test_the_published_networks_are_described_at_their_published_costs(run, name, macs, params):
    status, out, _ = run('describe', name, '--json')
    network = json.loads(out)
    assert status == 0
    assert round(network['macs'] / 1e6, 2) == macs
    assert round(network['params'] / 1e6, 3) == params
    assert f'{macs}M MACs, {params:.3f}M parameters' in run('describe', name)[1]


def test_the_rows_of_a_network_add_up_to_it(run):
    network = json.loads(run('describe', 'autonl-s', '--json')[1])
    assert len(network['rows']) == 23
    for key in ('macs', 'params'):
        assert sum(row[key] for row in network['rows']) == network[key]


def test_a_row_is_described_as_in_the_paper(run):
    rows = json.loads(run('describe', 'autonl-l', '--json')[1])['rows']
    row = next(row for row in rows if row['name'] == 'row12')
    described = {key: row[key] for key in ('output', 'expansion', 'stride', 'kernel', 'lightnl', 'se')}
    assert described == {
        'output': [80, 14, 14],
        'expansion': 3,
        'stride': 1,
        'kernel': 3,
        'lightnl': {'ratio': 0.125, 'stride': 2},
        'se': 0.5,
    }
    (line,) = (line for line in run('describe', 'autonl-l')[1].splitlines() if line.startswith('row12'))
    assert line.split()[:7] == ['row12', '80×14×14', '3', '3', '1', '0.5', '0.125/2']


def test_an_absent_row_is_described_as_absent_and_free(run):
    rows = json.loads(run('describe', 'autonl-s', '--json')[1])['rows']
    assert [row['name'] for row in rows if row.get('presence') == 'absent'] == ['row04', 'row08', 'row12']
    assert all(row['macs'] == row['params'] == 0 for row in rows if row.get('presence') == 'absent')


def test_a_network_in_a_file_is_described(run, network_file):
    network = json.loads(run('describe', network_file, '--json')[1])
    skeleton, sample = load_network(network_file)
    assert network['kind'] == 'network'
    assert (network['macs'], network['params']) == (macs(skeleton)(sample), params(skeleton)(sample))


def test_the_input_size_changes_shapes_and_MACs_and_not_parameters(run):
    at_224, at_97 = (json.loads(run('describe', 'autonl-s', '--json', *size)[1]) for size in ((), ('--input-size', 97)))
    assert at_97['rows'][0]['output'] == [32, 49, 49]
    assert at_97['macs'] < at_224['macs'] / 3
    assert at_97['params'] == at_224['params']


@pytest.mark.parametrize('name', ['cued', 'cifar', 'mobile'])
def test_a_space_is_described_by_its_choices_its_size_and_its_range(run, name):
    skeleton = load_skeleton(name)
    space = json.loads(run('describe', name, '--json')[1])
    assert space['kind'] == 'space'
    assert space['samples'] == skeleton.size()
    assert {label: tuple(candidates) for label, candidates in space['choices'].items()} == skeleton.choices()
    for key, cost in (('macs', macs(skeleton)), ('params', params(skeleton))):
        assert (space[key]['min'], space[key]['max']) == cost.range()
    out = run('describe', name)[1]
    assert f'{len(skeleton.choices())} choices' in out
    assert all(f'row{index:02d}' in out for index in range(1, len(skeleton.rows) + 1))


def test_a_network_stands_for_its_space_when_asked_to(run):
    assert json.loads(run('describe', 'autonl-s', '--space', '--json')[1]) == json.loads(
        run('describe', 'mobile', '--json')[1]
    )


def test_a_skeleton_with_everything_fixed_is_a_network(run, tmp_path):
    path = tmp_path / 'fixed.yaml'
    path.write_text(
        'name: fixed\ninput_size: 32\nclasses: 10\nstem_channels: 8\nstem_stride: 1\nhead_channels: 16\n'
        'rows: [{channels: 8, lightnl: present}]\n'
    )
    assert json.loads(run('describe', path, '--json')[1])['kind'] == 'network'


def test_the_comparison_has_the_numbers_of_the_paper(run):
    comparison = json.loads(run('compare-nl', '--json')[1])
    assert [(row['block'], row['macs'], round(row['times_less'])) for row in comparison] == [
        ('NL', 6_249_599_552, 1),
        ('LightNL r=0.25, s=1', 16_483_208, 379),
        ('LightNL r=0.25, s=2', 11_516_960, 543),
        ('LightNL r=0.125, s=1', 11_421_704, 547),
        ('LightNL r=0.125, s=2', 8_647_520, 723),
    ]
    status, out, _ = run('compare-nl')
    assert status == 0
    assert [line.split()[-2:] for line in out.splitlines()[1:]] == [
        [f'{row["macs"]:,}', f'{row["times_less"]:.0f}'] for row in comparison
    ]


def test_the_comparison_is_computed_at_the_size_that_is_asked_for(run):
    small, large = (json.loads(run('compare-nl', '--json', '--input-size', size)[1]) for size in (112, 224))
    assert small[0]['macs'] < large[0]['macs'] / 14
    assert all(a['macs'] < b['macs'] for a, b in zip(small, large))


def test_every_argument_of_every_command_is_explained(run):
    status, out, _ = run('--help')
    assert status == 0
    for command in ('describe', 'compare-nl', 'draw', 'latency', 'choices'):
        assert command in out
        status, text, _ = run(command, '--help')
        lines = text[text.index('options:') :].splitlines()[1:]
        explained = ' '.join(lines).split()
        assert status == 0
        assert len(explained) > 3 * sum(word.startswith('--') for word in explained)


def bad_sample(**changes):
    sample = {label: candidates[0] for label, candidates in load_skeleton('cued').choices().items()} | changes
    return json.dumps({'skeleton': 'cued', 'sample': {k: v for k, v in sample.items() if v is not None}})


MISTAKES = [
    # what is typed, with the name of the file below it; that file's text; what the line must say
    (['describe', 'autonl-x'], None, "did you mean 'autonl-"),
    (['describe', 'mobil'], None, "did you mean 'mobile'?"),
    (['describe', 'zzz'], None, 'known: autonl-l, autonl-s, mobilenet-v2, cifar, cued'),
    (['describe', 'no/such/file.yaml'], None, 'neither a file nor a shipped one'),
    (['describe', 'FILE'], bad_sample(**{'row01/lightnl': None}), "no value for 'row01/lightnl'"),
    (['describe', 'FILE'], bad_sample(**{'row01/lightnl': 'yes'}), "row01/lightnl: 'yes' is not among"),
    (['describe', 'FILE'], bad_sample(**{'row01/lightnl_ration': 1}), "did you mean 'row01/lightnl_ratio'?"),
    (['describe', 'FILE'], '{"skeleton": "cude", "sample": {}}', "did you mean 'cued'?"),
    (['describe', 'FILE'], 'skeleton: cued', 'rows is missing'),
    (['describe', 'FILE'], 'sample: [1, 2', 'not valid YAML'),
    (['describe', 'FILE'], '- a list', 'a network has the keys skeleton and rows'),
    (['describe', 'FILE'], b'\xff\xfe\x00', 'not a text file'),
    (['describe', 'autonl-s', '--input-size', '0'], None, "must be a whole number of pixels from 1 to 8,192, not '0'"),
    (
        ['describe', 'autonl-s', '--input-size', 'big'],
        None,
        "--input-size: must be a whole number of pixels from 1 to 8,192, not 'big'",
    ),
    (['describe', 'autonl-s', '--input-size', '-3'], None, "not '-3'"),
    (['describe', 'autonl-s', '--input-size', '99999999'], None, "from 1 to 8,192, not '99999999'"),
    (['describe', 'autonl-s', '--jsom'], None, '--jsom'),
    (['describe', 'autonl-s', '--latency', 'none.json'], None, 'none.json'),
    (['describe', 'autonl-s', '--latency', 'FILE'], '{}', 'not a latency table'),
    (['describe'], None, 'name'),
    (['descripe', 'autonl-s'], None, "invalid choice: 'descripe' (choose from"),
    ([], None, 'COMMAND'),
    (['draw', 'autonl-s'], None, '--out'),
    (['draw', 'autonl-s', '--out', 'picture.pgn'], None, "did you mean 'png'?"),
    (['draw', 'autonl-s', '--out', 'picture'], None, 'a .png or a .svg file'),
    (['draw', 'autonl-s', '--out', 'no/such/folder/picture.png'], None, 'no folder no/such/folder'),
    (['draw', 'cued', '--out', 'picture.png'], None, 'a whole space, not a network'),
    (['draw', 'autonl', '--out', 'picture.png'], None, "did you mean 'autonl-"),
    (['compare-nl', '--input-size', '1.5'], None, "'1.5'"),
    (['choices', 'cude'], None, "did you mean 'cued'?"),
    (['latency', 'cude'], None, "did you mean 'cued'?"),
    (['latency', 'cued', '--runs', '0'], None, "--runs: must be a whole number from 1 to 10,000, not '0'"),
    (['latency', 'cued', '--networks', '1'], None, "--networks: must be a whole number from 2 to 10,000, not '1'"),
    (['latency', 'cued', '--out', 'no/such/folder/table.json'], None, 'no folder no/such/folder'),
    (['latency', 'cued', '--device', 'tpu'], None, "'tpu'"),
]


@pytest.mark.parametrize(('arguments', 'text', 'message'), MISTAKES)
def test_a_mistake_is_one_clear_line_and_status_2(run, tmp_path, monkeypatch, arguments, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / 'FILE').write_bytes(text if isinstance(text, bytes) else text.encode())
    before = set(tmp_path.iterdir())
    status, out, err = run(*arguments)
    assert (status, out) == (2, '')
    assert message in err
    assert len(err.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ('arguments', 'status'), [(['describe', 'autonl-s', '--json'], 0), (['describe', 'autonl-z'], 2)]
)
def test_as_a_program_it_prints_to_stdout_and_complains_on_stderr(arguments, status):
    ended = subprocess.run([sys.executable, '-m', 'search_space', *arguments], capture_output=True, text=True)
    assert ended.returncode == status
    if status:
        assert ended.stdout == ''
        assert len(ended.stderr.splitlines()) == 1
    else:
        assert json.loads(ended.stdout)['macs'] == 266_878_784
        assert ended.stderr == ''


def test_whoever_stops_reading_gets_no_complaint():
    command = f'{sys.executable} -m search_space describe mobile --json | head -c 1'
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)  # noqa: S602 - a pipe is the point
    assert (ended.stdout, ended.stderr) == ('{', '')


def test_where_the_locale_has_ascii_alone_a_network_is_described_all_the_same():
    """As in a slim container, and without what Python does about it by itself."""
    environment = {**os.environ, 'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}
    command = [sys.executable, '-m', 'search_space', 'describe', 'autonl-s']
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b'')
    assert r'at 224\xd7224: 266.88M MACs' in done.stdout.decode('ascii')
