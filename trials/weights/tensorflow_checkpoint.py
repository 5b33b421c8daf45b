"""Reads TensorFlow's checkpoints, ``NAME.index`` and ``NAME.data-00000-of-00001``, without TensorFlow.

The index is a table of LevelDB: blocks of sorted keys, each without what it shares with the one before it, and at the
end of the file a footer that says where the block is that lists the others. Its values are protocol buffers,
``BundleEntryProto``: type, shape, and where in the data the tensor's bytes are. Blocks and tensors have checksums.

Source: LevelDB's ``table_format.md``; TensorFlow's ``tensor_bundle.proto``.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .crc32c import masked_crc32c

__all__ = ['Entry', 'TensorFlowCheckpoint', 'index_of']

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5
_FLOAT32 = 1
_OTHER_CHECKSUMS = {7, 21}
"""Types, texts and variants, whose checksum is not that of their bytes as they stand in the file."""
_ENTRY = {1: 'dtype', 2: 'shape', 3: 'shard', 4: 'offset', 5: 'size', 6: 'crc32c', 7: 'slices'}
_INDEX, _DATA = '.index', re.compile(r'\.data-\d{5}-of-\d{5}$')


@dataclass(frozen=True)
class Entry:
    """Where a tensor is.

    Attributes:
        dtype: TensorFlow's number of its type; 1 is float32.
        shape: of the tensor.
        shard: number of the data file.
        offset, size: of its bytes there.
        crc32c: their checksum, masked.
        sliced: whether it is stored in several pieces.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    sliced: bool


def index_of(file: Path) -> Path | None:
    """The index of a checkpoint, given by its index, by a data file or as TensorFlow names it, without an ending."""
    name = file.name.removesuffix(_INDEX)
    index = file.with_name(_DATA.sub('', name) + _INDEX)
    return index if file.name != _INDEX and index.is_file() else None


class TensorFlowCheckpoint:
    """A checkpoint whose index has been read, and whose tensors are read one at a time.

    Attributes:
        entries: name to :class:`Entry`, in the order of the names.

    Args:
        index: the file ``NAME.index``; the data lies beside it.

    Raises:
        ValueError: it is not such a file, or damaged; one line that names the file.
        OSError: it cannot be read.
    """

    def __init__(self, index: Path):
        self.index = index
        try:
            table = _table(index.read_bytes())
            header = dict(_fields(table.pop(b'', b'')))
            self.shards, big_endian = header.get(1, 0), header.get(2, 0)
            self.entries = {key.decode(): _entry(value) for key, value in table.items()}
        except (_Damaged, UnicodeDecodeError) as error:
            raise ValueError(f'{index}: not the index of a TensorFlow checkpoint, or damaged ({error})') from None
        if big_endian or not 1 <= self.shards <= 99999:
            raise ValueError(f'{index}: not the index of a TensorFlow checkpoint that can be read here (its header)')

    def data_file(self, shard: int) -> Path:
        return self.index.with_name(f'{self.index.name.removesuffix(_INDEX)}.data-{shard:05d}-of-{self.shards:05d}')

    def read(self, name: str) -> np.ndarray:
        """A tensor of float32.

        Raises:
            ValueError: its data is missing, damaged or of another type; one line that names file and tensor.
            OSError: the data cannot be read.
        """
        entry = self.entries[name]
        if entry.dtype != _FLOAT32 or entry.sliced:
            raise ValueError(f'{self.index}: {name} is not one whole tensor of float32, which is all that is read here')
        content = self._content(name)
        if 4 * math.prod(entry.shape) != entry.size:
            raise ValueError(f'{self.index}: damaged: {name} of shape {entry.shape} has {entry.size} bytes')
        return np.frombuffer(content, '<f4').reshape(entry.shape)

    def check(self) -> None:
        """Looks at the checksums of all tensors, of whatever type.

        Raises:
            ValueError, OSError: as :meth:`read`.
        """
        for name, entry in self.entries.items():
            if not entry.sliced and entry.dtype not in _OTHER_CHECKSUMS:
                self._content(name)

    def _content(self, name: str) -> bytes:
        """The bytes of a tensor, which have its checksum."""
        entry = self.entries[name]
        file = self.data_file(entry.shard)
        if not file.is_file():
            raise ValueError(f'{file}: there is no such file; the data belongs beside {self.index.name}')
        with file.open('rb') as data:
            data.seek(entry.offset)
            content = data.read(entry.size)
        if len(content) < entry.size:
            raise ValueError(f'{file}: damaged: it ends within {name}')
        if masked_crc32c(content) != entry.crc32c:
            raise ValueError(f'{file}: damaged: checksum of {name}')
        return content


class _Damaged(Exception):
    """Why bytes are not what they should be."""


def _table(content: bytes) -> dict[bytes, bytes]:
    """Key to value of a table of LevelDB."""
    if len(content) < _FOOTER or struct.unpack('<Q', content[-8:])[0] != _MAGIC:
        raise _Damaged('its last bytes')
    footer = content[-_FOOTER:]
    _, at = _handle(footer, 0)  # of the block with statistics, which is empty
    index, _ = _handle(footer, at)
    table: dict[bytes, bytes] = {}
    last = None
    for _, handle in _block(content, *index):
        for key, value in _block(content, *_handle(handle, 0)[0]):
            if last is not None and key <= last:
                raise _Damaged(f'the key {key.decode(errors="replace")!r} twice or out of order')
            table[key] = value
            last = key
    return table


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block; and where the handle ends."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block, after a look at its checksum."""
    end = offset + size
    if end + _TRAILER > len(content) or size < 4:
        raise _Damaged('a block beyond the end of the file')
    block, kind = content[offset:end], content[end]
    if masked_crc32c(content[offset : end + 1]) != struct.unpack('<I', content[end + 1 : end + _TRAILER])[0]:
        raise _Damaged(f'checksum of the block at {offset}')
    if kind != 0:
        raise _Damaged('compressed blocks, which TensorFlow does not write')
    (restarts,) = struct.unpack('<I', block[-4:])
    stop, at, key = size - 4 * (restarts + 1), 0, b''
    while at < stop:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > stop:
            raise _Damaged(f'an entry of the block at {offset}')
        key = key[:shared] + block[at : at + own]
        at += own + length
        yield key, block[at - length : at]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Damaged('a number without an end')


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(message)), at)
            value = message[at : at + length]
            at += length
            if len(value) < length:
                raise _Damaged('a message that is cut off')
            value = value if kind == 2 else int.from_bytes(value, 'little')
        yield number, value


def _entry(message: bytes) -> Entry:
    found: dict[str, int | bytes] = {}
    for number, value in _fields(message):
        if number in _ENTRY:
            found[_ENTRY[number]] = value
    shape = found.pop('shape', b'')
    sliced = found.pop('slices', None) is not None
    if not isinstance(shape, bytes) or not all(isinstance(value, int) for value in found.values()):
        raise _Damaged('an entry of other fields')
    dims = [dict(_fields(value)) for number, value in _fields(shape) if number == 2 and isinstance(value, bytes)]
    sizes = tuple(dim.get(1, 0) for dim in dims)
    numbers = {key: found.get(key, 0) for key in ('dtype', 'shard', 'offset', 'size', 'crc32c')}
    return Entry(**numbers, shape=sizes, sliced=sliced)
