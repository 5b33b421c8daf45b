"""CRC32C (Castagnoli), the checksum of TensorFlow's files, fast enough for millions of bytes."""

from __future__ import annotations

import numpy as np

__all__ = ['masked_crc32c']

_POLYNOMIAL = 0x82F63B78  # reflected
_LANES = 1024


def _table() -> np.ndarray:
    """What a byte adds to the checksum, for each of the 256."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


_TABLE = _table()


def _crc32c(data: bytes) -> int:
    """The checksum is linear in the data, so it is taken of many pieces of one length at a time, and these are joined.

    Zeros in front of the data change nothing where the register starts at 0; that it starts with ones is the same as
    the first four bytes inverted.
    """
    if len(data) < 4:
        register = 0xFFFFFFFF
        for byte in data:
            register = int(_TABLE[(register ^ byte) & 0xFF]) ^ (register >> 8)
        return register ^ 0xFFFFFFFF
    length = max(16, -(-len(data) // _LANES))
    lanes = -(-len(data) // length)
    pieces = np.zeros((lanes + 32, length), np.uint8)  # the last 32 see zeros: where each bit is after one piece
    flat = pieces[:lanes].reshape(-1)
    start = lanes * length - len(data)
    flat[start:] = np.frombuffer(data, np.uint8)
    flat[start : start + 4] ^= 0xFF
    registers = np.zeros(lanes + 32, np.uint32)
    registers[lanes:] = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    for column in np.ascontiguousarray(pieces.T):
        registers = _TABLE[(registers ^ column) & 0xFF] ^ (registers >> 8)
    moved = [int(bit) for bit in registers[lanes:]]
    total = 0
    for register in registers[:lanes].tolist():
        shifted = 0
        while total:
            lowest = total & -total
            shifted ^= moved[lowest.bit_length() - 1]
            total ^= lowest
        total = shifted ^ register
    return total ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as it stands in the files: rotated by 15 bits, and a constant added.

    Source: the documentation of LevelDB's log and table format.
    """
    crc = _crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
