"""Reads a file of named tensors, and only one that is sound."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

__all__ = ['read_tensors']


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Name to tensor, on the CPU, from what ``torch.save`` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or holds something else; the message is one line, without the file's name.
    """
    content = io.BytesIO(file.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:  # PyTorch does not look at the checksums that it writes
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f'checksum of {damaged}')
        content.seek(0)
        tensors = torch.load(content, map_location='cpu', weights_only=True)
    except Exception as error:  # of whatever the bytes in the file make of themselves
        raise ValueError(str(error).strip().partition('\n')[0] or type(error).__name__) from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError('it holds something else than named tensors')
    return tensors
