"""What was measured ships as rows; the pages' tables are what the benchmarks print of them."""

import re
import shlex

import pandas as pd
import pytest
from nnictl_experiment import ROOT

from benchmarks.quality import ablations, learning, search_quality, search_seeds

RESULTS = ROOT / 'benchmarks' / 'results'
PAGES = ROOT / 'docs' / 'results'
EARLIER = [
    '--table',
    str(ROOT / 'benchmarks' / 'ground_truth' / 'cued-160.csv'),
    '--budgets',
    '950000',
    '1050000',
    '1165000',
]
BEFORE = (['epochs=5', 'autonl.warmup_epochs=2', 'autonl.drawn_share=0'], ['autonl.drawn_share=0'])
"""AutoNL's search as it was."""

ON_TABLE = ('autonl', search_quality.EVOLVED, *search_quality.MULTI_TRIAL)
DRAWN = ('default', 'insertion drawn')
ABLATED = list(pd.read_csv(RESULTS / 'ablations.csv').variant.unique())


@pytest.mark.parametrize(
    ('benchmark', 'file', 'arguments', 'count'),
    [
        (
            search_quality,
            'search_quality.csv',
            ['--strategies', 'autonl', search_quality.EVOLVED, *search_quality.MULTI_TRIAL],
            15,
        ),
        (search_quality, 'search_quality.csv', [*EARLIER, '--strategies', *search_quality.STRATEGIES], 21),
        *(
            (search_quality, 'search_quality.csv', [*EARLIER, '--strategies', 'autonl', '--set', *set_], 3)
            for set_ in BEFORE
        ),
        (
            ablations,
            'ablations.csv',
            [*EARLIER, '--first-seed', '100', '--seeds', '3', '--variants', *ABLATED],
            3 * len(ABLATED),
        ),
        (ablations, 'insertion_drawn.csv', [*EARLIER, '--first-seed', '100', '--seeds', '6', '--variants', *DRAWN], 6),
    ],
)
def test_a_page_quotes_what_is_printed_of_the_shipped_rows(benchmark, file, arguments, count, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'rows_of', lambda *_: pytest.fail(f'{file} lacks a row: it would be measured anew'))
    assert benchmark.main(['--csv', str(RESULTS / file), '--processes', '1', *arguments]) == 0
    lines = re.findall(r'^ *[\d,]+,000  .*|^[\d,]+,000 MACs: .*|^LightNL of .*', capsys.readouterr().out, re.M)
    assert len([line for line in lines if re.match(r' *[\d,]+,000  ', line)]) == count
    page = (PAGES / f'{benchmark.__name__.rpartition(".")[2].replace("_", "-")}.md').read_text()
    assert [line for line in lines if line not in page] == []


@pytest.mark.parametrize('file', ['budgets.csv'])
def test_the_page_on_seeds_quotes_what_is_printed_of_the_shipped_rows(file, monkeypatch, capsys):
    page = (PAGES / 'where.md').read_text()
    (command,) = re.findall(rf'search_seeds.py (.*{file} --print)', page)
    monkeypatch.setattr(
        'sys.argv', ['search_seeds.py', *shlex.split(command.replace('benchmarks/results', str(RESULTS)))]
    )
    search_seeds.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line not in page.splitlines()] == []


def test_the_page_on_learning_quotes_what_is_printed_of_the_shipped_rows(monkeypatch, capsys):
    monkeypatch.setattr(learning.Job, 'rows', lambda job: pytest.fail(f'{job} is not there: it would be measured anew'))
    page = (PAGES / 'learning.md').read_text()
    (command,) = re.findall(r'learning\.py (.*?) +# prints', page.replace('\\\n', ' '))
    arguments = shlex.split(command.replace('benchmarks/results', str(RESULTS)))
    assert learning.main([*arguments, '--processes', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if line not in page] == []
