"""Skeletons and networks as people get them wrong: each is one clear line, naming the file and what is wrong in it."""

import os

import pytest

from search_space import load_network, load_skeleton
from search_space.__main__ import main

SKELETON = """
name: mine
input_size: 32
classes: 10
stem_channels: 16
stem_stride: 2
head_channels: 64
every_row: {lightnl: [absent, present], lightnl_ratio: [0.125, 0.25]}
rows:
  - {channels: 16, stride: 1, presence: [absent, present]}
  - {channels: 24, stride: 2, kernel: [3, 5]}
"""

NETWORK = """
skeleton: mine.yaml
sample:
  row01/presence: present
  row01/lightnl: present
  row01/lightnl_ratio: 0.25
  row02/lightnl: absent
  row02/lightnl_ratio: 0.125
  row02/kernel: 5
"""

# What is replaced in the skeleton, by what, and what the error says after the file's name.
SKELETONS = {
    'no YAML': ('stride: 2, kernel', 'stride: 2: kernel', r', line 11: not valid YAML \(.+\)'),
    'a tab': ('classes: 10', '\tclasses: 10', r', line 4: not valid YAML \(.+\)'),
    'a Python object': ('classes: 10', 'classes: !!python/tuple [1]', r', line 4: not valid YAML \(.+\)'),
    'a key twice': ('classes: 10', 'classes: 10\nclasses: 9', r", line 2: not valid YAML \(the key 'classes' twice\)"),
    'a row key twice': ('stride: 1,', 'stride: 1, stride: 1,', r", line 10: not valid YAML \(the key 'stride' twice\)"),
    'a control character': ('mine', 'mi\x01ne', r': not valid YAML \(.+\)'),
    'a list': (SKELETON, '- 1', r': a skeleton is a mapping with the key rows, not \[1\]'),
    'nothing': (SKELETON, '', r': a skeleton is a mapping with the key rows, not an empty file'),
    'unknown key': ('classes:', 'clases:', r": unknown key 'clases'; did you mean 'classes'\?"),
    'unknown key of rows': ('rows:', 'row:', r": unknown key 'row'; did you mean 'rows'\?"),
    'unknown row key': ('kernel:', 'kernal:', r", row 2: unknown key 'kernal'; did you mean 'kernel'\?"),
    'unknown key of every row': (
        '{lightnl:',
        '{lightln:',
        r", every_row: unknown key 'lightln'; did you mean 'lightnl'\?",
    ),
    'a number as key': ('kernel:', '5:', r', row 2: unknown key 5; known: channels, stride, .+'),
    'missing key': ('classes: 10', '', r': classes is missing; it takes a whole number from 2 to 1,000,000'),
    'missing row key': (
        'channels: 24, ',
        '',
        r', row 2: channels is missing; it takes a whole number from 1 to 16,384',
    ),
    'rows is a word': (SKELETON[SKELETON.index('rows:') :], 'rows: many', r': rows must be a list .+, not .many.'),
    'rows is empty': (
        SKELETON[SKELETON.index('rows:') :],
        'rows: []',
        r': rows must be a list of at least one row, .+',
    ),
    'rows is missing': (SKELETON[SKELETON.index('rows:') :], '', r': rows must be a list of at least one row, .+'),
    'a row is a number': (
        '{channels: 24, stride: 2, kernel: [3, 5]}',
        '24',
        r', row 2 must be a mapping of row keys, .+',
    ),
    'every_row is empty': (
        'every_row: {lightnl: [absent, present], lightnl_ratio: [0.125, 0.25]}',
        'every_row:',
        r', every_row must be a mapping of row keys, not None',
    ),
    'word for a number': ('input_size: 32', 'input_size: big', r": input_size must be a whole number .+, not 'big'"),
    'fraction': ('input_size: 32', 'input_size: 32.5', r': input_size must be a whole number .+, not 32.5'),
    'truth for a number': ('classes: 10', 'classes: yes', r': classes must be a whole number from 2 to .+, not True'),
    'one class': ('classes: 10', 'classes: 1', r': classes must be a whole number from 2 to .+, not 1'),
    'stem stride 3': ('stem_stride: 2', 'stem_stride: 3', r': stem_stride must be 1 or 2, not 3'),
    'no name': ('name: mine', 'name: 3', r': name must be a name of .+, not 3'),
    'unknown activation': (
        'classes: 10',
        'classes: 10\nactivation: gelu',
        r": activation must be 'swish' or .+, not 'gelu'",
    ),
    'dropout 1': ('classes: 10', 'classes: 10\ndropout: 1', r': dropout must be a number in \[0, 1\), not 1'),
    'unknown padding': ('classes: 10', 'classes: 10\npadding: valid', r": padding must be 'symmetric' or .+"),
    'no kernel or one, padded as in TensorFlow': (
        SKELETON,
        SKELETON.replace('kernel: [3, 5]', 'kernel: [1, 3]') + 'padding: same',
        r', row 2: kernel: 1 cannot be one of several .+ where padding is same',
    ),
    'infinite eps': ('classes: 10', 'classes: 10\nbn_eps: .inf', r': bn_eps must be a number in \(0, 1\], not inf'),
    'a list for one value': ('classes: 10', 'classes: [10]', r': classes must be a whole number .+, not \[10\]'),
    'no channels': ('channels: 24', 'channels: 0', r', row 2: channels must be a whole number from 1 .+, not 0'),
    'searched channels': ('channels: 24', 'channels: [24, 32]', r', row 2: channels is not searched, it takes one .+'),
    'row stride 3': ('stride: 2, k', 'stride: 3, k', r', row 2: stride must be 1 or 2, not 3'),
    'even kernel': ('kernel: [3, 5]', 'kernel: [3, 4]', r', row 2: kernel must be an odd whole number .+, not 4'),
    'no candidate': ('kernel: [3, 5]', 'kernel: []', r', row 2: kernel needs at least one candidate'),
    'candidate twice': ('kernel: [3, 5]', 'kernel: [3, 3]', r', row 2: kernel has a candidate twice: \[3, 3\]'),
    'candidates in candidates': (
        'kernel: [3, 5]',
        'kernel: [[3, 5]]',
        r', row 2: kernel must be an odd .+, not \[3, 5\]',
    ),
    'ratio above 1': ('[0.125, 0.25]', '[0.125, 1.25]', r', every_row: lightnl_ratio must be a number in \(0, 1\], .+'),
    'ratio 0': ('[0.125, 0.25]', '0', r', every_row: lightnl_ratio must be a number in \(0, 1\], not 0'),
    'ratio nan': ('[0.125, 0.25]', '.nan', r', every_row: lightnl_ratio must be a number in \(0, 1\], not nan'),
    'LightNL yes': ('[absent, present], l', 'yes, l', r", every_row: lightnl must be 'absent' or 'present', not True"),
    'squeeze-excite above 1': ('kernel: [3, 5]', 'se: 4', r', row 2: se must be a number from 0 to 1, not 4'),
    'LightNL stride 0': ('kernel: [3, 5]', 'lightnl_stride: 0', r', row 2: lightnl_stride must be a whole number .+'),
    'fractional expansion': (
        'kernel: [3, 5]',
        'expansion: 1.5',
        r', row 2: expansion must be a whole number .+, not 1.5',
    ),
    'expansion 1 or 3': (
        'kernel: [3, 5]',
        'expansion: [1, 3]',
        r', row 2: expansion: 1 \(no expansion .+\) cannot be .+',
    ),
    'absent row that strides': (
        'stride: 1,',
        'stride: 2,',
        r', row 1: presence: only a row that keeps its shape may .+',
    ),
    'absent row that widens': ('{channels: 16', '{channels: 17', r', row 1: presence: .+ takes 16 channels to 17 .+'),
    'too many channels': ('channels: 24', f'channels: {10**19}', r', row 2: channels must be .+ 16,384, not 1000.+'),
    'a vast kernel': ('kernel: [3, 5]', 'kernel: 99', r', row 2: kernel must be an odd .+ to 31, not 99'),
    'vast classes': ('classes: 10', f'classes: {10**12}', r': classes must be a whole number .+, not 1000000000000'),
    'a vast input': ('input_size: 32', 'input_size: 8193', r': input_size must be .+ from 1 to 8,192, not 8193'),
    'a ratio of 300 digits': ('kernel: [3, 5]', f'se: {10**300}', r', row 2: se must be .+, not .+ bits'),
    'a name of two lines': ('name: mine', r'name: "mi\nne"', r": name must be a name of .+, not 'mi\\nne'"),
    'a name with terminal codes': ('name: mine', r'name: "\e[31m"', r": name must be .+, not '\\x1b\[31m'"),
    'too many weights': (
        'rows:',
        'rows:\n' + '  - {channels: 16384, expansion: 64}\n' * 3,
        r': its largest network has [\d,]+ weights; at most 1,000,000,000 do',
    ),
    'too many rows': (
        SKELETON[SKELETON.index('rows:') :],
        'rows:\n' + '  - {channels: 16}\n' * 201,
        r': rows must be a list of at most 200 rows, not of 201',
    ),
    'candidates without end': (
        'kernel: [3, 5]',
        f'kernel: {list(range(1, 32, 2))}, expansion: {list(range(2, 65))}, se: {[n / 100 for n in range(100)]}',
        r': its candidates make [\d,]+ variants of rows; at most 50,000 do',
    ),
    'candidates of nothing': (
        'kernel: [3, 5]',
        'lightnl: absent, lightnl_stride: [1, 2]',
        r', row 2: lightnl_stride has candidates, but there is nothing here for them to choose',
    ),
}

NETWORKS = {
    'no YAML': ('row02/kernel: 5', 'row02/kernel: [5', r', line \d+: not valid YAML \(.+\)'),
    'a list': (NETWORK, '[1]', r': a network is a mapping with the keys skeleton and rows, not \[1\]'),
    'unknown key': ('sample:', 'samples:', r": unknown key 'samples'; did you mean 'sample'\?"),
    'no skeleton': ('skeleton: mine.yaml', '', r': skeleton is missing'),
    'skeleton is a number': ('mine.yaml', '7', r": skeleton must be a skeleton's name or path, not 7"),
    'unknown skeleton': ('mine.yaml', 'mobil', r": no skeleton 'mobil': .+; did you mean 'mobile'\?"),
    'sample is a word': (
        NETWORK[NETWORK.index('sample:') :],
        'sample: all',
        r": sample must be a mapping of .+, not 'all'",
    ),
    'missing label': ('  row02/kernel: 5\n', '', r": no value for 'row02/kernel'; it takes one of 3, 5"),
    'unknown label': (
        'row02/kernel',
        'row02/kernal',
        r": unknown label 'row02/kernal' .+ did you mean 'row02/kernel'\?",
    ),
    'label of a row too many': ('row02/kernel', 'row03/kernel', r": unknown label 'row03/kernel' .+ 'row02/kernel'\?"),
    'label twice': ('row02/kernel', 'row02/lightnl', r", line 4: not valid YAML \(the key 'row02/lightnl' twice\)"),
    'value not a candidate': (
        'row02/kernel: 5',
        'row02/kernel: 7',
        r': row02/kernel: 7 is not among its candidates 3, 5',
    ),
    'value of another kind': ('row01/lightnl: present', 'row01/lightnl: 1', r': row01/lightnl: 1 is not among .+'),
    'truth for a number': ('row02/kernel: 5', 'row02/kernel: yes', r': row02/kernel: True is not among .+'),
    'candidates for a value': ('row02/kernel: 5', 'row02/kernel: [3, 5]', r': row02/kernel: \[3, 5\] is not among .+'),
    'nothing for a value': ('row02/kernel: 5', 'row02/kernel:', r': row02/kernel: None is not among .+'),
}


TABLE = """
skeleton: mine.yaml
rows:
  - {channels: 16, lightnl: present, lightnl_ratio: 0.25}
  - {lightnl: absent, kernel: 5}
"""

TABLES = {
    'neither rows nor a sample': (TABLE[TABLE.index('rows:') :], '', r': rows is missing'),
    'rows and a sample': ('rows:', 'sample: {}\nrows:', r': rows and sample are both there'),
    'rows is a word': (TABLE[TABLE.index('rows:') :], 'rows: all', r": rows must be a list of 2 rows, .+, not 'all'"),
    'a row too few': (
        '  - {lightnl: absent, kernel: 5}\n',
        '',
        r': rows must be a list of 2 rows, .+, not a list of 1',
    ),
    'a row is a word': ('{lightnl: absent, kernel: 5}', 'absent', r": row 2 must be a mapping .+, not 'absent'"),
    'unknown key of a row': ('kernel', 'kernal', r": row 2: unknown key 'kernal'; did you mean 'kernel'\?"),
    'an open choice': (', kernel: 5', '', r': row 2: kernel is missing; it takes one of 3, 5'),
    'not a candidate of the row': ('kernel: 5', 'kernel: 7', r": row 2: kernel is 7; skeleton 'mine' has 3, 5 there"),
    'not what the row has': ('channels: 16', 'channels: 24', r": row 1: channels is 24; skeleton 'mine' has 16 there"),
    'candidates in a row': ('kernel: 5', 'kernel: [3, 5]', r': row 2: kernel is \[3, 5\]; .+ has 3, 5 there'),
    'a row that cannot be absent': ('{lightnl: absent', '{presence: absent', r": row 2: presence is 'absent'; .+"),
}


@pytest.fixture
def files(tmp_path):
    """Writes the two files, with one thing replaced, and gives their paths."""

    def write(skeleton=('', ''), network=('', '')):
        paths = []
        for name, text, (old, new) in (('mine.yaml', SKELETON, skeleton), ('net.yaml', NETWORK, network)):
            assert old in text
            (tmp_path / name).write_text(text.replace(old, new, 1) if old else text)
            paths.append(tmp_path / name)
        return paths

    return write


def test_the_files_are_valid_as_they_are(files):
    skeleton, network = files()
    assert load_network(network)[0] == load_skeleton(skeleton)


@pytest.mark.parametrize(('old', 'new', 'message'), SKELETONS.values(), ids=SKELETONS)
def test_an_invalid_skeleton_is_one_line_that_names_file_and_place(files, old, new, message):
    path, _ = files(skeleton=(old, new))
    with pytest.raises(ValueError, match='^' + str(path) + message + '$') as error:
        load_skeleton(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('old', 'new', 'message'), NETWORKS.values(), ids=NETWORKS)
def test_an_invalid_network_is_one_line_that_names_file_and_place(files, old, new, message):
    _, path = files(network=(old, new))
    with pytest.raises(ValueError, match='^' + str(path) + message + '$') as error:
        load_network(path)
    assert '\n' not in str(error.value)


def test_a_network_may_be_a_table_of_rows_that_leaves_out_what_does_not_show(files):
    network = files()[1]
    table = network.with_name('table.yaml')
    table.write_text(TABLE)
    assert load_network(table) == load_network(network)


@pytest.mark.parametrize(('old', 'new', 'message'), TABLES.values(), ids=TABLES)
def test_an_invalid_table_of_rows_is_one_line_that_names_file_and_row(files, old, new, message):
    path = files()[1].with_name('table.yaml')
    assert old in TABLE
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ValueError, match='^' + str(path) + message + '$') as error:
        load_network(path)
    assert '\n' not in str(error.value)


def test_a_networks_error_names_its_skeletons_file_too(files):
    skeleton, network = files(skeleton=('kernel: [3, 5]', 'kernel: 2'))
    with pytest.raises(ValueError, match=f'^{network}: {skeleton}, row 2: kernel must be an odd'):
        load_network(network)


@pytest.mark.parametrize('load', [load_skeleton, load_network])
def test_a_file_that_is_not_text_is_one_line(load, tmp_path):
    path = tmp_path / 'picture.png'
    path.write_bytes(b'\x89PNG\xff\xfe')
    with pytest.raises(ValueError, match=f'^{path}: not a text file$'):
        load(path)


DEEP = '[' * 100_000
BOMB = 'a0: &a0 [x]\n' + ''.join(f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]\n' for n in range(1, 10))
MERGES = 'a0: &a0 {x: 1}\n' + ''.join(f'a{n}: &a{n} {{<<: [{", ".join([f"*a{n - 1}"] * 9)}]}}\n' for n in range(1, 10))
HURTING = {
    'aliases of aliases': (BOMB, r', line \d+: not valid YAML \(more than 100,000 values, aliases written out\)'),
    'merges of merges': (MERGES, r', line \d+: not valid YAML \(more than 100,000 values, aliases written out\)'),
    'an alias within itself': ('a: &a [*a]', r', line 1: not valid YAML \(an alias within what it stands for\)'),
    'lists in lists': (DEEP, r', line 1: not valid YAML \(nested too deeply\)'),
    'mappings in mappings': ('{a: ' * 20_000, r', line 1: not valid YAML \(nested too deeply\)'),
    'lists in lists, by lines': ('- ' * 60_000, r': not valid YAML \(nested too deeply\)'),
    'a truth that is none': ('a: !!bool maybe', r', line 1: not valid YAML \(no value of the type bool\)'),
    'a time that is none': ('a: !!timestamp noon', r', line 1: not valid YAML \(no value of the type timestamp\)'),
    'a day that is none': ('a: 2024-02-31', r', line 1: not valid YAML \(no value of the type timestamp\)'),
    'a number that is none': ('a: !!int few', r', line 1: not valid YAML \(no value of the type int\)'),
    'a mapping that is none': ('a: !!map b', r', line 1: not valid YAML \(expected a mapping node, .+\)'),
    'bytes that are none': ('a: !!binary é', r', line 1: not valid YAML \(.+\)'),
    'hexadecimal without end': (f'a: 0x{"f" * 5000}', r', line 1: not valid YAML \(a number of 20000 bits\)'),
    'decimal without end': (f'a: {"9" * 5000}', r', line 1: not valid YAML \(no value of the type int\)'),
    'a list as a key': ('? [1, 2]\n: 3', r', line 1: not valid YAML \(.+\)'),
    'more than a file may have': ('#' * 300_000, r': more than the 131,072 bytes that such a file may have'),
    'many rows': ('rows:\n' + '- {channels: 1}\n' * 8_000, r'(, line \d+)?: .+'),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize('load', [load_skeleton, load_network])
@pytest.mark.parametrize(('text', 'message'), HURTING.values(), ids=HURTING)
def test_a_file_that_is_made_to_hurt_is_one_short_line(text, message, load, tmp_path):
    path = tmp_path / 'file.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'^{path}{message}$') as error:
        load(path)
    assert len(str(error.value)) < 600
    assert '\n' not in str(error.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize('load', [load_skeleton, load_network])
def test_what_is_not_a_regular_file_is_not_read(load, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in ('/dev/zero', tmp_path / 'pipe'):
        with pytest.raises(ValueError, match=f'^{path}: a device, a pipe or a folder, not a regular file$'):
            load(path)


@pytest.mark.parametrize(
    ('load', 'name', 'nearest'),
    [(load_skeleton, 'mobil', 'mobile'), (load_skeleton, 'Cifar', 'cifar'), (load_network, 'autonl_l', 'autonl-l')],
)
def test_an_unknown_name_is_one_line_with_the_nearest_valid_one(load, name, nearest):
    with pytest.raises(ValueError, match=f"^no .+ '{name}': .+; did you mean '{nearest}'\\?$"):
        load(name)


@pytest.mark.parametrize('load', [load_skeleton, load_network])
@pytest.mark.parametrize('name', ['', '.', '/', 'x' * 5000, 'a\x00b'])
def test_a_name_that_is_like_none_lists_what_there_is(load, name):
    with pytest.raises(ValueError, match=r'^no .+: neither a file nor a shipped one; known: .+$'):
        load(name)


def test_the_command_line_says_it_in_one_line_and_ends_with_status_2(capsys):
    assert main(['choices', 'mobil']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == 1
    assert "did you mean 'mobile'?" in captured.err
