"""What was measured ships as rows; the pages' tables are what the benchmarks print of them."""

import re
import shlex

import pytest
from nnictl_experiment import ROOT

from benchmarks.quality import attention, learning, search_quality, search_seeds

RESULTS = ROOT / 'benchmarks' / 'results'
PAGES = ROOT / 'docs' / 'results'


COST = [
    ['--set', 'epochs=6'],
    ['--set', 'epochs=6', 'autonl.threshold_every=2'],
    ['--set', 'epochs=6', 'autonl.warmup_epochs=6'],
    [],
    ['--set', 'epochs=3', 'autonl.warmup_epochs=3'],
    ['--set', 'epochs=2', 'autonl.warmup_epochs=2'],
]
"""What was tried to make a search cheaper."""


@pytest.mark.parametrize(
    ('file', 'arguments', 'count', 'quoted'),
    [
        (
            'search_quality.csv',
            ['--first-seed', '20'],
            24,
            r'^ *[\d,]+,000  .*|^[\d,]+,000 MACs: .*|^LightNL of .*',
        ),
        *(
            (
                'search_cost.csv',
                ['--strategies', 'autonl', '--first-seed', '1000', '--seeds', '4', *cost],
                3,
                r'^ *[\d,]+,000  .*',
            )
            for cost in COST
        ),
    ],
)
def test_the_page_on_search_quality_quotes_what_is_printed_of_the_shipped_rows(
    file, arguments, count, quoted, monkeypatch, capsys
):
    monkeypatch.setattr(
        search_quality, 'rows_of', lambda *_: pytest.fail(f'{file} lacks a row: it would be measured anew')
    )
    assert search_quality.main(['--csv', str(RESULTS / file), '--processes', '1', *arguments]) == 0
    lines = re.findall(quoted, capsys.readouterr().out, re.M)
    assert len([line for line in lines if re.match(r' *[\d,]+,000  ', line)]) == count
    page = (PAGES / 'search-quality.md').read_text()
    assert [line for line in lines if line not in page] == []


@pytest.mark.parametrize(
    ('file', 'quoted'), [('seeds.csv', 'target_macs|  '), ('budgets.csv', ''), ('one_cycle.csv', '')]
)
def test_the_page_on_seeds_quotes_what_is_printed_of_the_shipped_rows(file, quoted, monkeypatch, capsys):
    page = (PAGES / 'where.md').read_text()
    (command,) = re.findall(rf'search_seeds.py (.*{file} --print)', page)
    monkeypatch.setattr(
        'sys.argv', ['search_seeds.py', *shlex.split(command.replace('benchmarks/results', str(RESULTS)))]
    )
    search_seeds.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(quoted, line)]
    assert len(lines) >= 6
    assert [line for line in lines if line not in page.splitlines()] == []


def test_the_front_page_says_how_often_the_search_found_row_1():
    page, front = ((PAGES.parents[n] / name).read_text() for n, name in ((0, 'results/where.md'), (1, 'README.md')))
    found = re.findall(r'^target_macs .*: of 32 at row 1: (\d+) ', page, re.M)
    assert '{}, {} and {} of 32 fresh seeds'.format(*found) in ' '.join(front.split())


def test_the_front_page_says_how_many_trainings_learned():
    page, front = ((PAGES.parents[n] / name).read_text() for n, name in ((0, 'results/learning.md'), (1, 'README.md')))
    failed, trainings = map(int, re.search(r'row 1 alone +(\d+) of (\d+)', page).groups())
    assert f'{trainings - failed} of {trainings} trainings with LightNL on row 1 alone learn' in ' '.join(front.split())


@pytest.mark.parametrize(('benchmark', 'name'), [(learning, 'learning'), (attention, 'attention')])
def test_the_page_quotes_what_each_of_its_commands_prints_of_the_shipped_rows(benchmark, name, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark.Job, 'rows', lambda job: pytest.fail(f'{job} is not there: it would be measured anew')
    )
    page = (PAGES / f'{name}.md').read_text()
    commands = re.findall(rf'^python \S+{name}\.py (.*?) +# prints', page.replace('\\\n', ' '), re.M)
    assert commands
    for command in commands:
        arguments = shlex.split(command.replace('benchmarks/results', str(RESULTS)))
        assert benchmark.main([*arguments, '--processes', '1']) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 5
        assert [line for line in lines if line not in page] == []
