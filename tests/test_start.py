"""What a command imports before it knows what is asked of it: nothing that takes time."""

import subprocess
import sys

import pytest

SLOW = {'torch', 'torchvision', 'pytorch_lightning', 'pandas', 'scipy', 'sklearn', 'matplotlib'}


@pytest.mark.parametrize('package', ['search_space', 'trials', 'analysis'])
def test_help_imports_nothing_slow(package):
    command = [sys.executable, '-X', 'importtime', '-m', package, '--help']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition('|')[2].strip().partition('.')[0] for line in done.stderr.splitlines()}
    assert 'argparse' in imported
    assert imported & SLOW == set()
    assert done.stdout.startswith(f'usage: python -m {package}')


@pytest.mark.slow
def test_a_trial_imports_scikit_learn_only_where_its_data_is_divided():
    code = "import sys, trials.run; sys.exit('sklearn.model_selection' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
