"""Where NNI keeps its experiments: a folder that it must be able to write, even to read them."""

from __future__ import annotations

from pathlib import Path

from search_space.whole_file import check_folder

__all__ = ['check_home']


def check_home() -> None:
    """Asked before NNI is: it would wait for a lock there, or end in a traceback.

    Raises:
        ValueError: nothing can be written there.
    """
    if not Path.home().is_absolute():
        raise ValueError(f'HOME must be a whole path (/...), not {Path.home()}: NNI keeps its experiments there')
    try:
        check_folder(Path.home() / 'nni-experiments')
    except OSError as error:
        raise ValueError(f'NNI keeps its experiments in HOME, and {error}: name another folder with HOME=') from None
