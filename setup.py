"""What pyproject.toml cannot say: a file that Python reads at its start, in every wheel, an editable one too."""

from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

PTH = """\
# NNI 3.0 needs a version of typeguard that imports ast.Str, which Python 3.14 no longer has.
import sys; sys.version_info >= (3, 14) and setattr(__import__('ast'), 'Str', __import__('ast').Constant)
"""


class BuildPth(Command):
    """Writes it into what will be ``site-packages``."""

    def initialize_options(self) -> None:
        self.build_lib, self.editable_mode = None, False

    def finalize_options(self) -> None:
        self.set_undefined_options('build', ('build_lib', 'build_lib'))

    def run(self) -> None:
        # What is built is left out of an editable wheel.
        folder = self.get_finalized_command('install').install_lib if self.editable_mode else self.build_lib
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, 'autonl_nni.pth').write_text(PTH)


build.sub_commands = [*build.sub_commands, ('build_pth', None)]
setup(cmdclass={'build_pth': BuildPth})
