"""Tensors that are slow to make, kept in the user's cache folder: each file is there whole or not at all."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from search_space.whole_file import write_whole

from ..training.tensor_file import read_tensors

__all__ = ['cache_folder', 'cached']

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``autonl-nni`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` where it is not set."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'autonl-nni'


def cached(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` gives, from the file ``name`` of the cache if it is there and sound.

    A damaged file is made again with a warning, and a cache that cannot be written is done without. Several trials may
    ask at once: each writes a file of its own, and the last one stays.
    """
    file = cache_folder() / f'{name}.pt'
    try:
        return read_tensors(file)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _logger.warning('%s is damaged and made again (%s)', file, error)
    tensors = make()
    content = io.BytesIO()
    torch.save(tensors, content)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content.getvalue())
    except OSError as error:
        _logger.warning('%s is not cached: %s', name, error)
    return tensors
