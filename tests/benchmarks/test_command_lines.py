"""Every benchmark says what is wrong with its arguments in one line, and where its files cannot go before it begins."""

import pytest
from warm_process import ROOT, run_program

PROGRAMS = sorted(
    str(file.relative_to(ROOT / 'benchmarks'))
    for folder in ('speed', 'quality')
    for file in (ROOT / 'benchmarks' / folder).glob('*.py')
    if '__main__' in file.read_text()
)
NEEDED = {
    'speed/hours.py': ['experiment.yaml'],
    'quality/attention.py': ['--csv', 'x.csv'],
    'quality/learning.py': ['--csv', 'x.csv'],
}


def one_line_of(*command):
    done = run_program(*command)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize('program', PROGRAMS)
def test_an_unknown_argument_is_one_line(program):
    line = one_line_of(f'benchmarks/{program}', *NEEDED.get(program, []), '--no-such-option')
    assert line.endswith('--no-such-option')


@pytest.mark.parametrize('program', ['speed/block.py', 'speed/scale.py', 'quality/search_seeds.py'])
def test_rows_that_could_not_be_kept_are_said_before_the_first_is_measured(program):
    assert '/dev/full' in one_line_of(f'benchmarks/{program}', '--csv', '/dev/full')


def test_a_skeleton_that_is_not_there_is_one_line():
    assert "'mobyle'" in one_line_of('benchmarks/speed/cost.py', 'mobyle')


@pytest.mark.parametrize(
    ('program', 'arguments', 'told'),
    [
        ('speed/hours.py', ['/dev/zero'], '/dev/zero: a device, a pipe or a folder, not a regular file'),
        ('speed/hours.py', ['experiment.yaml', '--steps', '0'], 'argument --steps: must be a whole number from 1 to'),
        ('speed/imagenet_search.py', ['--experiment', 'pyproject.toml'], 'pyproject.toml, line 2: not valid YAML'),
        ('speed/kernels.py', ['--shapes', '40x28'], 'argument --shapes: must be channels, height and width, such as'),
        ('speed/reader.py', ['--deliver', 'nan'], 'argument --deliver must be a number above 0, not nan'),
        ('quality/search_seeds.py', ['--experiment', 'CITATION.cff'], 'it has no tuner.classArgs.strategies.autonl'),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_file_or_a_number_is_one_line(program, arguments, told):
    line = one_line_of(f'benchmarks/{program}', *arguments)
    assert line.startswith(program.partition('/')[2])
    assert told in line
