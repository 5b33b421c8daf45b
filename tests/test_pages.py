"""Every command and every piece of Python on the pages runs, and every link leads somewhere."""

import json
import re
import shlex
from pathlib import Path

import pytest
from nnictl_experiment import ROOT
from warm_process import run_program

FILES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PAGES = {page: page.read_text() for page in FILES}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r'^```(\w+)\n(.*?)^```', text, flags=re.M | re.S)]
"""Language and text of each block of code on a page."""

TESTED = {
    'bash run.sh': 'test_run_sh_can_be_interrupted_and_goes_on_to_its_report',
    'bash run.sh tests': 'the tests themselves',
    'bash run.sh experiments/imagenet.yaml': 'test_run_sh_can_be_interrupted_and_goes_on_to_its_report',
    'pip install -e .': 'run.sh, which the tests are run by',
    'nnictl create --config experiment.yaml': 'test_it_ends_done_with_a_table_of_all_strategies',
    'python -m analysis table --wait': 'test_it_ends_done_with_a_table_of_all_strategies',
    'nnictl stop': 'test_it_ends_done_with_a_table_of_all_strategies',
    'python -m trials import': 'test_the_import_goes_on_to_an_accuracy_and_to_onnx',
    'python -m trials evaluate': 'test_the_import_goes_on_to_an_accuracy_and_to_onnx',
    'python -m trials export': 'test_an_exported_network_gives_the_logits_of_the_trained_one_at_any_batch',
    'python benchmarks/speed/networks.py': 'test_it_prints_every_network_in_every_runtime_and_what_lightnl_takes',
    'python benchmarks/speed/block.py': (
        'test_it_prints_a_line_a_shape_batch_and_mode_what_was_left_out_and_what_became_of_every_goal'
    ),
    'python benchmarks/speed/scale.py': 'test_it_says_what_each_size_costs_and_how_that_grows',
    'python benchmarks/quality/search_seeds.py': (
        'test_a_row_a_budget_and_seed_is_printed_and_kept_and_not_computed_twice'
    ),
    'python benchmarks/speed/search_step.py': (
        'test_it_prints_time_and_memory_of_every_subject_and_what_became_of_every_goal'
    ),
    'python benchmarks/quality/search_quality.py': (
        'test_every_strategy_has_a_rank_under_every_budget_and_is_not_run_twice'
    ),
    'python benchmarks/quality/ablations.py': (
        'test_every_variant_has_a_row_per_budget_and_hard_gates_lose_nothing_by_export'
    ),
    'nnictl create --config benchmarks/ground_truth/experiment.yaml': (
        'test_it_is_killed_and_resumed_and_its_table_has_every_training_once'
    ),
    'python -m benchmarks.ground_truth collect': 'test_the_table_is_collected_from_what_the_trials_left',
    'python -m benchmarks.ground_truth describe': 'test_the_description_says_spread_noise_and_what_choices_do',
    'python -m trials check experiments/imagenet.yaml': (
        'test_the_variants_that_are_shipped_are_right_to_nni_and_to_us'
    ),
    'python -m trials prepare': 'test_the_command_makes_a_copy_that_the_data_set_reads_with_the_same_labels',
    'apt-get install dataset-fashion-mnist': 'test_debians_package_is_fashion_mnist',
    'AUTONL_GPU_KERNELS=on python -m trials run': 'test_the_switch_decides_and_without_it_what_was_measured',
    'AUTONL_GPU_KERNELS=off python -m trials run': 'test_the_switch_decides_and_without_it_what_was_measured',
    'bash benchmarks/on_gpu.sh': 'test_on_a_cpu_every_part_runs_and_leaves_its_table_and_its_csv',
    'python benchmarks/speed/reader.py': (
        'test_it_prints_what_a_core_reads_of_images_of_imagenets_size_and_how_many_cores_are_needed'
    ),
    'python benchmarks/quality/attention.py': ('test_a_run_that_was_stopped_goes_on_and_prints_its_table_from_its_csv'),
    'python -m search_space latency': 'test_the_command_measures_stores_and_tells_how_well_it_predicts',
}
"""Commands that take long, by how they begin, and the test that runs them at a smaller size."""


def commands() -> list[str]:
    """The lines of the pages' shell blocks, without their comments, continued lines joined."""
    blocks = [text for language, text in BLOCKS if language == 'sh']
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return sorted({re.sub(r'\s+#.*', '', line).strip() for line in lines if line.strip()})


def long_command(command: str) -> str | None:
    return max((start for start in TESTED if (command + ' ').startswith(start + ' ')), key=len, default=None)


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


@pytest.mark.parametrize('command', [c for c in commands() if long_command(c) is None])
def test_a_command_of_the_pages_runs(command, folder):
    # What is an experiment's id there is here the results that ship with the package.
    command = re.sub(r'\bID\d?\b( ID\d?\b)*', str(ROOT / 'analysis' / 'results' / 'main-job'), command)
    command = command.replace('analysis report --out', f'analysis report {ROOT}/analysis/results/main-job --out')
    words, _, out = command.partition(' > ')
    program, *arguments = shlex.split(words)
    assert program == 'python', f'{command}: neither a command of Python nor one of TESTED'
    done = run_program(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    if out:
        (folder / out).write_text(done.stdout)


@pytest.mark.parametrize('command', [c for c in commands() if long_command(c) is not None])
def test_a_long_command_of_the_pages_is_run_by_another_test(command):
    name = TESTED[long_command(command)]
    if name.startswith('test_'):
        assert any(f'def {name}(' in file.read_text() for file in Path(ROOT / 'tests').rglob('test_*.py'))


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
