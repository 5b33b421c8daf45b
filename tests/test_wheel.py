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
def source(tmp_path_factory):
    """A copy of the packages."""
    source = tmp_path_factory.mktemp('source')
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns('__pycache__'))
    return source


def unpacked(source, kind, folder):
    """``folder``, into which the wheel of that kind, built of ``source``, is unpacked."""
    build = f'from setuptools.build_meta import build_{kind}; build_{kind}("{kind}")'
    subprocess.run([sys.executable, '-c', build], cwd=source, capture_output=True, check=True)
    (wheel,) = (source / kind).glob('*.whl')
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope='module')
def installed(source, tmp_path_factory):
    """The folder that the wheel was unpacked into."""
    return unpacked(source, 'wheel', tmp_path_factory.mktemp('installed'))


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


@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_it_gives_python_3_14_what_typeguard_imports_and_other_versions_nothing(kind, source, tmp_path):
    (tmp_path / 'without').mkdir()
    folder = unpacked(source, kind, tmp_path / 'with')
    for path in folder.glob('__editable__*'):
        path.unlink()  # that they lead to the packages is not what is asked
    code = "import site, sys; site.addsitedir(sys.argv[1]); print('ast' in sys.modules); import ast; print(ast.Str)"
    has_not, has = (
        subprocess.run(
            [sys.executable, '-ISc', code, path], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        for path in (tmp_path / 'without', folder)
    )
    if sys.version_info >= (3, 14):
        assert has_not == ['False']
        assert has == ['True', "<class 'ast.Constant'>"]
    else:
        assert has_not == has
