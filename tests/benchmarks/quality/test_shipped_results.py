"""What was measured ships as rows; the README's tables are what the benchmarks print of them."""

import re

import pytest
from nnictl_experiment import ROOT

from benchmarks.quality import ablations, search_quality

RESULTS = ROOT / 'benchmarks' / 'results'
README = (ROOT / 'README.md').read_text()
BEFORE = (['epochs=5', 'autonl.warmup_epochs=2', 'autonl.drawn_share=0'], ['autonl.drawn_share=0'])
"""AutoNL's search as it was."""


@pytest.mark.parametrize(
    ('benchmark', 'file', 'arguments', 'count'),
    [
        (search_quality, 'search_quality.csv', [], 3 * len(search_quality.STRATEGIES)),
        *((search_quality, 'search_quality.csv', ['--strategies', 'autonl', '--set', *set_], 3) for set_ in BEFORE),
        (ablations, 'ablations.csv', ['--first-seed', '100', '--seeds', '3'], 3 * len(ablations.VARIANTS)),
    ],
)
def test_the_readme_quotes_what_is_printed_of_the_shipped_rows(benchmark, file, arguments, count, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'rows_of', lambda job: pytest.fail(f'{file} lacks a row: it would be measured anew'))
    assert benchmark.main(['--csv', str(RESULTS / file), '--processes', '1', *arguments]) == 0
    lines = re.findall(r'^ *[\d,]+,000  .*|^[\d,]+,000 MACs: .*', capsys.readouterr().out, re.M)
    assert len([line for line in lines if 'MACs: ' not in line]) == count
    assert [line for line in lines if line not in README] == []
