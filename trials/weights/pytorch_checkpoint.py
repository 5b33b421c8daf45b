"""Reads what ``torch.save`` wrote, whatever objects are in it, and runs nothing of it.

Training programs save objects of their own classes beside the weights. ``torch.load`` refuses such a file with
``weights_only=True``, and without it runs whatever the file asks for. Here tensors, dicts, lists, numbers and texts are
read; an object of any other class is an empty stand-in; and a file that wants a function called is refused.

Both of PyTorch's formats: an archive (since PyTorch 1.6), and pickles with the tensors' bytes behind them (before).
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

__all__ = ['StandIn', 'StoredTensor', 'read_pytorch']

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
_ARCHIVE = b'PK\x03\x04'
_LARGEST = 2**31
"""Bytes of a record in an archive; no network of this project has a tensor near that size."""


class StandIn:
    """What stands for an object of a class that is not known here; it is empty."""

    def __setstate__(self, state: Any) -> None:
        pass

    def __reduce__(self):
        raise TypeError('a stand-in is not written')


class _NotCalled(type):
    """A class of the file: objects of it may be made, as empty ones; to call it, as a function, is refused."""

    def __call__(cls, *_, **__):
        raise _Refused(f'it wants {cls.__name__[:80]!a} called')


class _Refused(Exception):
    """What a file wants and does not get."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numel: int
    first: int = 0


class StoredTensor(NamedTuple):
    """A tensor that is still in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def read_pytorch(file: Path) -> Any:
    """What ``torch.save`` wrote, with :class:`StoredTensor` for tensors and :class:`StandIn` for what is not known.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, no such file, or wants code to be run; one line that names the file.
    """
    content = file.read_bytes()
    try:
        return _read_archive(content) if content.startswith(_ARCHIVE) else _read_pickles(content)
    except _Refused as error:
        raise ValueError(f'{file}: refused, nothing of it was run: {error}') from None
    except Exception as error:  # of whatever the bytes in the file make of themselves
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise ValueError(f'{file}: neither a TensorFlow checkpoint nor a PyTorch file, or damaged ({reason})') from None


def _read_archive(content: bytes) -> Any:
    archive = zipfile.ZipFile(io.BytesIO(content))
    if any(record.file_size > _LARGEST for record in archive.infolist()):
        raise ValueError('a record of more than 2 GiB')
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ValueError('a record twice')
    damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f'checksum of {damaged}')
    (root,) = (name.removesuffix('data.pkl') for name in names if name.count('/') == 1 and name.endswith('/data.pkl'))
    if f'{root}byteorder' in names and archive.read(f'{root}byteorder') != b'little':
        raise ValueError('numbers with the highest byte first')

    def bytes_of(storage: _Storage) -> bytes:
        return archive.read(f'{root}data/{storage.key}')

    return _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')), bytes_of).load()


def _read_pickles(content: bytes) -> Any:
    stream = io.BytesIO(content)
    places: dict[str, tuple[int, int]] = {}

    def bytes_of(storage: _Storage) -> bytes:
        start, numel = places[storage.key]
        return content[start : start + numel * storage.dtype.itemsize]

    if _Unpickler(stream, bytes_of).load() != _MAGIC or _Unpickler(stream, bytes_of).load() != _PROTOCOL:
        raise ValueError('its first bytes')
    system = _Unpickler(stream, bytes_of).load()
    if not isinstance(system, dict) or not system.get('little_endian', True):
        raise ValueError('numbers with the highest byte first')
    unpickler = _Unpickler(stream, bytes_of)
    loaded = unpickler.load()
    for key in _Unpickler(stream, bytes_of).load():
        (numel,) = struct.unpack('<q', stream.read(8))
        start, storage = stream.tell(), unpickler.storages[key]
        if numel < storage.numel:
            raise ValueError(f'storage {key} of {numel} values, not {storage.numel}')
        places[key] = start, numel
        if stream.seek(numel * storage.dtype.itemsize, io.SEEK_CUR) > len(content):
            raise ValueError('the file ends within its tensors')
    if stream.tell() < len(content) or places.keys() != unpickler.storages.keys():
        raise ValueError('other tensors than it names')
    return loaded


class _Unpickler(pickle.Unpickler):
    """Makes tensors that are still in the file, stand-ins, and Python's own values; calls nothing else.

    Args:
        stream: the pickle.
        bytes_of: the bytes of a storage.

    Attributes:
        storages: key to storage of all that the pickle has named so far.
    """

    def __init__(self, stream: BinaryIO, bytes_of: Callable[[_Storage], bytes]):
        super().__init__(stream, encoding='utf-8')
        self.bytes_of, self.storages = bytes_of, {}
        # Made anew for each file: a pickle can set attributes of what it is given.
        self._known = {
            'collections.OrderedDict': OrderedDict,
            'torch.Size': lambda sizes=(): tuple(sizes),
            'torch.device': lambda *_: StandIn(),
            'torch._utils._rebuild_tensor': lambda *arguments: self._tensor(*arguments),
            'torch._utils._rebuild_tensor_v2': lambda *arguments: self._tensor(*arguments[:4]),
            'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
            'copyreg._reconstructor': lambda cls, *_: _empty(cls),
            # Numbers of NumPy, as losses and accuracies often are.
            'numpy.dtype': lambda *_: StandIn(),
            'numpy.core.multiarray.scalar': lambda *_: StandIn(),
            'numpy._core.multiarray.scalar': lambda *_: StandIn(),
            '_codecs.encode': lambda *_: StandIn(),
        }

    def find_class(self, module: str, name: str) -> Any:
        # The old format writes a class of Python 2's library by its old name, which pickle would translate.
        full = f'{module}.{name}'.replace('copy_reg.', 'copyreg.')
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        if full not in self._known:
            self._known[full] = _NotCalled(full, (StandIn,), {})
        return self._known[full]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, dtype, key, _, numel, *view = identifier
        if kind != 'storage' or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or numel < 0:
            raise _Refused('it wants something else than tensors from outside of its pickle')
        first = 0
        if view and view[0] is not None:
            _, first, numel = view[0]
        else:
            self.storages[key] = _Storage(key, dtype, numel)
        return _Storage(key, dtype, numel, first)

    def _tensor(self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
        whole = (storage.first, offset, *shape, *stride)
        if not isinstance(storage, _Storage) or len(shape) != len(stride) or any(n < 0 for n in whole):
            raise ValueError('a tensor of no such shape')
        reach = offset + sum((size - 1) * step for size, step in zip(shape, stride)) + 1 if math.prod(shape) else 0
        if reach > storage.numel:
            raise ValueError(f'a tensor of {reach} values in a storage of {storage.numel}')

        def read() -> Tensor:
            content = bytearray(self.bytes_of(storage))
            at, item = (storage.first + offset) * storage.dtype.itemsize, storage.dtype.itemsize
            if len(content) < at + reach * item - offset * item:
                raise ValueError(f'storage {storage.key} is too short')
            if not math.prod(shape):
                return torch.empty(shape, dtype=storage.dtype)
            return torch.frombuffer(content, dtype=storage.dtype, offset=at).as_strided(shape, stride).clone()

        return StoredTensor(tuple(shape), storage.dtype, read)


def _empty(cls: Any) -> StandIn:
    if not isinstance(cls, _NotCalled):
        raise _Refused('it wants something else than an object of a class made')
    return cls.__new__(cls)
