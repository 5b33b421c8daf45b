"""Every command and every piece of Python on the pages runs, and every link leads somewhere."""

import argparse
import ast
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from nnictl_experiment import ROOT
from warm_process import run_program

FILES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PAGES = {page: page.read_text() for page in FILES}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r'^```(\w+)\n(.*?)^```', text, flags=re.M | re.S)]
"""Language and text of each block of code on a page."""

LONG = {
    'bash run.sh': 'tests/test_main_job.py',
    'bash run.sh resume': 'tests/test_main_job.py',
    'bash run.sh tests': '.ci/run',
    'bash benchmarks/on_gpu.sh': 'tests/benchmarks/speed/test_on_gpu.py',
    'nnictl create --config': 'tests/nnictl_experiment.py',
    'nnictl stop': 'tests/nnictl_experiment.py',
    'python -m analysis table --wait': 'tests/test_finished_experiment.py',
    'python -m benchmarks.ground_truth train': 'tests/benchmarks/ground_truth/test_ground_truth.py',
    'python -m search_space latency': 'tests/search_space/cost/test_latency.py',
    'python -m trials check experiments/imagenet.yaml': 'tests/trials/test_check.py',
    'python -m trials evaluate': 'tests/trials/weights/test_released_weights.py',
    'python -m trials export': 'tests/trials/test_export.py',
    'python -m trials import': 'tests/trials/weights/test_released_weights.py',
    'python -m trials prepare': 'tests/trials/test_prepared_copy.py',
    'python -m trials run --parameters': 'tests/trials/weights/test_released_weights.py',
    'python -m trials run ...': 'tests/trials/test_evaluation.py',
    'python benchmarks/quality/attention.py': 'tests/benchmarks/quality/test_attention.py',
    'python benchmarks/quality/learning.py': 'tests/benchmarks/quality/test_learning.py',
    'python benchmarks/quality/search_quality.py': 'tests/benchmarks/quality/test_search_quality.py',
    'python benchmarks/quality/search_seeds.py': 'tests/benchmarks/quality/test_search_seeds.py',
    'python benchmarks/speed/block.py': 'tests/benchmarks/speed/test_block_speed.py',
    'python benchmarks/speed/networks.py': 'tests/benchmarks/speed/test_networks.py',
    'python benchmarks/speed/reader.py': 'tests/benchmarks/speed/test_reader.py',
    'python benchmarks/speed/scale.py': 'tests/benchmarks/speed/test_scale.py',
    'python benchmarks/speed/search_step.py': 'tests/benchmarks/speed/test_search_step.py',
    'python benchmarks/speed/trial_start.py': 'tests/benchmarks/speed/test_trial_start.py',
}
"""Commands that take minutes, an experiment or what is not here, by how they begin; and the file that runs them at a
smaller size."""

INSTALLED = ('apt-get install dataset-fashion-mnist', 'pip install -e .')
"""Commands that change the machine: whoever runs the tests has done the second, and a test needs the first."""


def commands() -> list[str]:
    """The lines of the pages' shell blocks, without their comments, continued lines joined."""
    blocks = [text for language, text in BLOCKS if language == 'sh']
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return sorted({re.sub(r'\s+#.*', '', line).strip() for line in lines if line.strip()})


def without_environment(command: str) -> str:
    """Without ``NAME=value`` before it."""
    return re.sub(r'^(\w+=\S+ )+', '', command)


def long_command(command: str) -> str | None:
    command = without_environment(command)
    return max((start for start in LONG if (command + ' ').startswith(start + ' ')), key=len, default=None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the commands are run: a folder with what they name, as a user's would have it."""
    folder = tmp_path_factory.mktemp('readme')
    for name in ('experiment.yaml', 'experiments', 'search_space', 'trials', 'strategies', 'analysis', 'benchmarks'):
        (folder / name).symlink_to(ROOT / name)
    trial = {
        'strategy': 'random',
        'stage': 'retrain',
        'seed': 0,
        'skeleton': 'cued',
        'dataset': 'cued-digits',
        'dataset/canvases': 128,
        'epochs': 1,
        'batch_size': 16,
        'learning_rate': 0.005,
    }
    choices = json.loads((ROOT / 'search_space' / 'choices' / 'cued.json').read_text())
    trial |= {label: choice['_value'][0] for label, choice in choices.items()}
    (folder / 'trial.json').write_text(json.dumps(trial))
    return folder


@pytest.mark.parametrize('command', [c for c in commands() if long_command(c) is None and c not in INSTALLED])
@pytest.mark.slow
def test_a_command_of_the_pages_runs(command, folder):
    # What is an experiment's id there is here the results that ship with the package.
    command = re.sub(r'\bID\d?\b( ID\d?\b)*', str(ROOT / 'analysis' / 'results' / 'main-job'), command)
    command = command.replace('analysis report --out', f'analysis report {ROOT}/analysis/results/main-job --out')
    words, _, out = command.partition(' > ')
    program, *arguments = shlex.split(words)
    assert program == 'python', f'{command}: neither a command of Python nor one of LONG'
    done = run_program(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    if out:
        (folder / out).write_text(done.stdout)


class Understood(BaseException):
    """A program has read its arguments, and found nothing wrong with them."""


@pytest.mark.parametrize('command', [c for c in commands() if (long_command(c) or '').startswith('python')])
def test_a_long_command_of_the_pages_is_one_that_its_program_understands(command, monkeypatch, capsys):
    def parse(parser, arguments=None, namespace=None):
        raise Understood(read(parser, arguments, namespace))

    read = argparse.ArgumentParser.parse_args
    _, *words = shlex.split(without_environment(command).removesuffix(' ...'))
    module = words[1] if words[0] == '-m' else words[0]
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
    monkeypatch.setattr(sys, 'path', [str(ROOT / module).rpartition('/')[0], str(ROOT), *sys.path])
    monkeypatch.setattr(sys, 'argv', [module, *words[1 + (words[0] == '-m') :]])
    monkeypatch.chdir(ROOT)
    start = runpy.run_module if words[0] == '-m' else runpy.run_path
    with pytest.raises(Understood):
        start(f'{module}.__main__' if words[0] == '-m' else module, run_name='__main__')
    assert capsys.readouterr().err == ''


def own_words(command: str) -> set[str]:
    """What tells a long command from others: its script, or its module's command."""
    program, *words = command.removesuffix(' ...').split()
    if program == 'python':
        words = words[2:3] if words[0] == '-m' else words[:1]
    return {word.rpartition('/')[2] for word in words if not word.startswith('-')}


def words_in(file: Path) -> set[str]:
    """The words of the texts that a file of Python holds, docstrings aside, and ``x.py`` where it imports ``x``."""
    tree, words = ast.parse(file.read_text('utf-8')), set()
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            words |= {*node.value.split(), *(word.rpartition('/')[2] for word in node.value.split())}
        if isinstance(node, ast.ImportFrom):
            words |= {f'{name}.py' for name in ((node.module or '').rpartition('.')[2], *(a.name for a in node.names))}
    return words


@pytest.mark.parametrize('start', LONG)
def test_a_long_command_of_the_pages_is_in_the_file_that_is_named_beside_it(start):
    assert any(long_command(command) == start for command in commands()), 'no page has it'
    file = ROOT / LONG[start]
    assert own_words(start) <= words_in(file) if file.suffix == '.py' else start in file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize('code', [text for language, text in BLOCKS if language == 'python'])
def test_the_python_of_the_pages_runs(code, tmp_path):
    code = code.replace("load('cued-digits')", "load('cued-digits', canvases=320)").replace('epochs=14', 'epochs=7')
    environment = {'PATH': '', 'HOME': str(tmp_path), 'MPLBACKEND': 'agg', 'OMP_NUM_THREADS': '1'}
    done = run_program('-c', code, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r'\]\((?!https?:)([^)#]+)\)', PAGES[page])
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_front_page_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 180
