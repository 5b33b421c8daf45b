"""The command that measures all that needs a GPU, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = ['bash', str(ROOT / 'benchmarks' / 'on_gpu.sh'), *arguments]
    environment = os.environ | {'PYTHON': sys.executable}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
def test_on_a_cpu_every_part_runs_and_leaves_its_table_and_its_csv(tmp_path):
    done = run(str(tmp_path / 'out'), '--device', 'cpu')
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / 'out' / 'README.md').read_text()
    assert 'a CPU, where no figure is of a GPU' in page
    titles = ['Kernels', 'The block', 'Networks', "The search at ImageNet's size", 'A search on cued digits']
    assert [line.removeprefix('## ') for line in page.splitlines() if line.startswith('## ')] == titles
    assert 'kernels against the formula: 4 of 4 within a few roundings' in page
    assert '| search | ' in page
    for part in ('kernels', 'block', 'networks', 'imagenet', 'cued'):
        assert len((tmp_path / 'out' / f'{part}.csv').read_text().splitlines()) > 1
        assert f'{part}: done' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--device', 'tpu'], "--device must be cpu or cuda, not 'tpu'"),
        (['--devise', 'cpu'], 'unknown option --devise; it is: bash benchmarks/on_gpu.sh [OUT] [--device cpu]'),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(arguments, message, tmp_path):
    done = run(str(tmp_path / 'out'), *arguments)
    assert (done.returncode, done.stderr) == (2, f'on_gpu.sh: {message}\n')
    assert not (tmp_path / 'out').exists()
