"""Reads a file of tensors, and only one that is sound."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_space.rules import one_line

__all__ = ['read_saved', 'read_tensors']


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Name to tensor, on the CPU, from what ``torch.save`` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or holds something else; the message is one line, without the file's name.
    """
    tensors = read_saved(file)
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError('it holds something else than named tensors')
    return tensors


def read_saved(file: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; tensors, and what is made of plain values.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, by its checksums, or holds objects of other types; the message is one line, without
            the file's name.
    """
    if file.exists() and not file.is_file():
        raise ValueError('a device, a pipe or a folder, not a regular file')
    content = io.BytesIO(file.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(content.getbuffer()):
                raise ValueError('it holds more than its size: PyTorch packs nothing')
            damaged = archive.testzip()  # PyTorch does not look at the checksums that it writes
        if damaged is not None:
            raise ValueError(f'checksum of {one_line(damaged)}')
        content.seek(0)
        return torch.load(content, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError:  # PyTorch's text advises how to run what is in it
        raise ValueError('it holds objects that are neither tensors nor plain values, or no weights at all') from None
    except Exception as error:  # of whatever the bytes in the file make of themselves
        raise ValueError(one_line(str(error).strip().partition('\n')[0], 300) or type(error).__name__) from None
