"""Virtual environments that have this Python's packages, and a folder and programs of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def environment_at(folder: Path) -> Path:
    """Makes one in ``folder``, which has ``bin/python``, ``bin/python3`` and ``bin/nnictl`` then."""
    (folder / 'bin').mkdir(parents=True)
    for name in ('python', 'python3'):
        (folder / 'bin' / name).symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix, 'bin', 'nnictl'), folder / 'bin')
    (folder / 'pyvenv.cfg').write_text(f'home = {sys.base_prefix}/bin\n')
    packages = folder / 'lib' / f'python{sys.version_info[0]}.{sys.version_info[1]}' / 'site-packages'
    packages.mkdir(parents=True)
    others = [path for path in sys.path if path.endswith('site-packages')]
    (packages / 'others.pth').write_text('\n'.join(others))
    for file in (file for path in others for file in Path(path).glob('autonl_nni.pth')):
        shutil.copy(file, packages)  # Python does not look for such files in what others.pth names
    return folder
