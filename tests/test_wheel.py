"""The wheel, which ``pip install .`` installs too: everything that the packages need is in it."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from nnictl_experiment import ROOT

PACKAGES = ('search_space', 'strategies', 'trials', 'analysis')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder that the wheel, built of a copy of the packages, was unpacked into."""
    source, installed = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns('__pycache__'))
    build = 'from setuptools.build_meta import build_wheel; build_wheel("wheel")'
    subprocess.run([sys.executable, '-c', build], cwd=source, capture_output=True, check=True)
    (wheel,) = (source / 'wheel').iterdir()
    zipfile.ZipFile(wheel).extractall(installed)
    return installed


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    for package in PACKAGES:
        files = {path.relative_to(ROOT) for path in (ROOT / package).rglob('*') if path.is_file()}
        files = {path for path in files if path.suffix != '.pyc'}
        assert files
        assert {path for path in files if not (installed / path).is_file()} == set()


@pytest.mark.parametrize(
    'command', ['search_space describe autonl-s', 'trials --help', 'analysis plot found-networks --help']
)
def test_its_commands_run_in_any_folder(command, installed, tmp_path):
    environment = os.environ | {'PYTHONPATH': str(installed)}
    arguments = [sys.executable, '-m', *command.split()]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout
