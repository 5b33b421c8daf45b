"""The benchmark of whole networks, as a command."""

import re
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
import yaml
from warm_process import run_program

from search_space import load_skeleton, macs, params

SMALL = ['--threads', '1', '--rounds', '7', '--training-rounds', '6', '--batch', '2', '--input-size', '32']


def run(*arguments: str) -> CompletedProcess:
    return run_program('benchmarks/speed/networks.py', *arguments)


@pytest.mark.slow
def test_it_prints_every_network_in_every_runtime_and_what_lightnl_takes(tmp_path):
    skeleton = load_skeleton('cued')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    ours = str(tmp_path / 'ours.yaml')
    Path(ours).write_text(yaml.safe_dump({'skeleton': 'cued', 'sample': sample}))
    small = [*SMALL, '--networks', 'squeezenet1_1', ours, '--without', ours]
    done = run(*small, '--runtimes', 'eager', 'onnx', 'training', '--csv', str(tmp_path / 'rounds.csv'))
    assert done.returncode == 0, done.stderr
    cost = macs(skeleton, 32)(sample)
    assert re.search(rf'^{ours} +{cost / 1e6:.2f} +{params(skeleton)(sample) / 1e6:.3f}$', done.stdout, re.MULTILINE)
    names = ['squeezenet1_1', ours, f'{ours} without LightNL']
    for title, unit in (('eager', 'ms of 1'), ('onnx', 'ms of 1'), ('training', 'images/s of 2')):
        heading, *rows = re.search(rf'^{title} .*(?:\n.+){{3}}', done.stdout, re.MULTILINE)[0].splitlines()
        assert unit in heading
        found = [re.fullmatch(r'(.+?) +([\d.]+) +([\d.]+) +([\d.]+) to ([\d.]+)( +\d+)?', row) for row in rows]
        assert [row[1] for row in found] == names
        assert found[0].group(3, 4, 5) == ('1.000', '1.000', '1.000')
        for row in found:
            value, ratio, low, high = map(float, row.group(2, 3, 4, 5))
            assert value > 0
            assert low <= ratio <= high
            assert bool(row[6]) == (title == 'onnx')
    without = sample | {label: 'absent' for label in sample if label.endswith('/lightnl')}
    share = f'{1 - macs(skeleton, 32)(without) / cost:.1%}'
    assert f'LightNL of {ours} takes {share} of its MACs, and of its time\n' in done.stdout
    assert len(re.findall(r'^  (?:eager|onnx|training) +-?[\d.]+%   95% interval', done.stdout, re.MULTILINE)) == 3
    rounds = pd.read_csv(tmp_path / 'rounds.csv').groupby(['runtime', 'network']).ms.count()
    assert rounds.to_dict() == {
        (runtime, name): 6 if runtime == 'training' else 7
        for runtime in ('eager', 'onnx', 'training')
        for name in names
    }


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--networks', 'autonl-m'], r"no network 'autonl-m': .* did you mean 'autonl-s'\?"),
        (['--csv', 'nowhere/rounds.csv'], r'nowhere/rounds.csv cannot be written: there is no folder nowhere'),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_status_2(arguments, message):
    done = run('--runtimes', 'eager', *arguments)  # to compile takes a C++ compiler, which not every machine has
    assert done.returncode == 2
    assert re.fullmatch(f'networks.py: {message}\n', done.stderr)
