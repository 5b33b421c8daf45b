"""Files of weights as the two programs that released some write them, with made-up values.

``tests/data/weights`` holds the names and shapes of AutoNL-S in both, and the logits that the two programs gave for the
values of :func:`made_up` and the images of :func:`images`.
"""

from __future__ import annotations

import json
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trials.weights.crc32c import masked_crc32c

DATA = Path(__file__).parents[2] / 'data' / 'weights'
AVERAGE = '/ExponentialMovingAverage'


def images() -> Tensor:
    """What the network takes, `(4, 3, 224, 224)`."""
    draw = np.random.default_rng(7)
    coarse = draw.normal(0, 1, [4, 7, 7, 3]).repeat(32, 1).repeat(32, 2)
    pixels = coarse + 0.3 * draw.normal(0, 1, [4, 224, 224, 3])
    return torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def made_up(name: str, shape: list[int]) -> np.ndarray:
    """The value of a tensor of either program, by its name there."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    in_lightnl, leaf = '/nl/' in name or '.nl_op.' in name, name.replace('.', '/').rpartition('/')[2]
    norm = '/batch_normalization' in name or (len(shape) == 1 and ('.bn.' in name or '.1.' in name[:-6]))
    norm = norm and not name.startswith('classifier')
    if leaf in ('gamma', 'weight') and norm:
        value = draw.uniform(0.5, 1.5, shape) * (0.05 if in_lightnl else 1)
    elif leaf in ('beta', 'bias') and norm:
        value = draw.normal(0, 0.1, shape) * (0.1 if in_lightnl else 1)
    elif leaf == 'moving_variance':
        value = draw.uniform(0.5, 1.5, shape)
    elif leaf in ('moving_mean', 'bias'):
        value = draw.normal(0, 0.1, shape)
    elif len(shape) == 2:
        value = draw.normal(0, 0.05, shape)
    elif leaf == 'depthwise_kernel':
        value = draw.normal(0, np.sqrt(1 / (shape[0] * shape[1])), shape)
    else:
        fan_in = np.prod(shape[1:]) if leaf == 'weight' else np.prod(shape[:-1])
        value = draw.normal(0, np.sqrt(1.2 / fan_in), shape)
    return value.astype(np.float32)


def made_up_tensorflow() -> dict[str, np.ndarray]:
    shapes = json.loads((DATA / 'tf-autonl-s.json').read_text())
    return {name: made_up(name.removesuffix(AVERAGE), shape) for name, shape in shapes.items()}


def made_up_pytorch() -> dict[str, Tensor]:
    """The averages, which have BN's statistics of a run of that program, and no counters."""
    shapes, recorded = json.loads((DATA / 'pt-autonl-s.json').read_text()), np.load(DATA / 'pt-autonl-s.npz')
    return {
        name: torch.from_numpy(recorded[name] if name in recorded else made_up(name, shape))
        for name, shape in shapes.items()
        if not name.endswith('num_batches_tracked')
    }


def as_tensorflow_names_them(network: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a network under the names, and in the shapes, of the authors' program.

    It makes its layers block after block, then stem and head, and numbers them through the whole graph; BN by scope.
    """
    found, count = {}, {'conv2d': 0, 'depthwise_conv2d': 0}

    def put(kind: str, scope: str, module: nn.Module) -> None:
        number = count[kind]
        count[kind] += 1
        layer = f'single-path/mnas_net_model/{scope}/{kind}' + (f'_{number}' if number else '')
        weight = module.weight.detach().numpy()
        if kind == 'conv2d':
            found[f'{layer}/kernel'] = weight.transpose(2, 3, 1, 0)
        else:
            found[f'{layer}/depthwise_kernel'] = weight.transpose(2, 3, 0, 1)
        if module.bias is not None:
            found[f'{layer}/bias'] = module.bias.detach().numpy()

    def put_norms(scope: str, *norms: nn.Module) -> None:
        for number, norm in enumerate(norms):
            layer = f'single-path/{scope}/batch_normalization' + (f'_{number}' if number else '')
            for theirs, ours in (
                ('gamma', norm.weight),
                ('beta', norm.bias),
                ('moving_mean', norm.running_mean),
                ('moving_variance', norm.running_var),
            ):
                found[f'{layer}/{theirs}'] = ours.detach().numpy()

    there = [row for row in network.rows if not isinstance(row, nn.Identity)]
    for number, row in enumerate(there):
        scope, body = f'mnas_blocks_{number}', row.body
        expanded = hasattr(body, 'expand')
        if expanded:
            put('conv2d', scope, body.expand)
        put('depthwise_conv2d', scope, body.depthwise)
        if hasattr(body, 'se'):
            put('conv2d', f'{scope}/se', body.se.reduce)
            put('conv2d', f'{scope}/se', body.se.expand)
        put('conv2d', scope, body.project)
        put_norms(scope, *([body.expand_bn] if expanded else []), body.depthwise_bn, body.project_bn)
        if hasattr(row.lightnl, 'conv'):
            put('depthwise_conv2d', f'{scope}/nl', row.lightnl.conv)
            put_norms(f'{scope}/nl', row.lightnl.bn)
    for part, layers in (('mnas_stem', network.stem), ('mnas_head', network.head)):
        of = dict(layers.named_children())
        put('conv2d', part, of['0'])
        put_norms(part, of['1'])
    dense = 'single-path/mnas_net_model/mnas_head/dense'
    found[f'{dense}/kernel'] = network.classifier.weight.detach().numpy().T
    found[f'{dense}/bias'] = network.classifier.bias.detach().numpy()
    return {name + AVERAGE: np.ascontiguousarray(value) for name, value in found.items()}


def as_pytorch_names_them(network: nn.Module) -> dict[str, Tensor]:
    """The ``state_dict`` of a network under the names of the re-implementation."""
    parts = [network.stem, *(row for row in network.rows if not isinstance(row, nn.Identity)), network.head]
    found = {}
    for number, part in enumerate(parts):
        names = {'': ''}
        if number not in (0, len(parts) - 1):
            names = {
                'body.expand.': 'expand_conv.0.',
                'body.expand_bn.': 'expand_conv.1.',
                'body.depthwise.': f'depth_ops.0.{int(number > 1)}.0.',
                'body.depthwise_bn.': f'depth_ops.0.{int(number > 1)}.1.',
                'body.se.': 'se_op.se_',
                'body.project.': 'project_conv.0.',
                'body.project_bn.': 'project_conv.1.',
                'lightnl.conv.': 'nl_op.depthwise_conv.',
                'lightnl.bn.': 'nl_op.bn.',
            }
        for ours, value in part.state_dict().items():
            (prefix,) = (prefix for prefix in names if ours.startswith(prefix))
            found[f'features.{number}.{names[prefix]}{ours.removeprefix(prefix)}'] = value
    found |= {f'classifier.1.{key}': value for key, value in network.classifier.state_dict().items()}
    return found


def write_tensorflow(index: Path, tensors: dict[str, np.ndarray], dtypes=None, block_size: int = 4096) -> None:
    """``NAME.index`` and ``NAME.data-00000-of-00001``: a table of LevelDB, and the bytes that it points to."""
    data, entries = bytearray(), [(b'', b'\x08\x01\x1a\x02\x08\x01')]  # one data file; the lowest byte first
    for name in sorted(tensors, key=str.encode):
        content = tensors[name].tobytes()
        dims = b''.join(_bytes_field(2, _number_field(1, size)) for size in tensors[name].shape)
        entry = _number_field(1, (dtypes or {}).get(name, 1)) + _bytes_field(2, dims)
        entry += _number_field(4, len(data)) if data else b''
        entry += _number_field(5, len(content)) + b'\x35' + struct.pack('<I', masked_crc32c(content))
        entries.append((name.encode(), entry))
        data += content
    index.with_name(index.name.removesuffix('.index') + '.data-00000-of-00001').write_bytes(data)
    write_table(index, entries, block_size)


def write_table(file: Path, entries: list[tuple[bytes, bytes]], block_size: int = 4096) -> None:
    table, handles, block = bytearray(), [], []
    for number, entry in enumerate(entries):
        block.append(entry)
        if number == len(entries) - 1 or sum(len(k) + len(v) for k, v in block) > block_size:
            handles.append((block[-1][0], _put_block(table, block)))
            block = []
    footer = _put_block(table, []) + _put_block(table, handles, restart_every=1)
    file.write_bytes(bytes(table) + footer.ljust(40, b'\0') + struct.pack('<Q', 0xDB4775248B80FB57))


def _put_block(table: bytearray, entries: list[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    """Appends a block; its handle."""
    block, restarts, before = bytearray(), [], b''
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart_every:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        else:
            restarts.append(len(block))
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    block += struct.pack(f'<{len(restarts) + 1}I', *restarts, len(restarts))
    handle = _varint(len(table)) + _varint(len(block))
    table += block + b'\0' + struct.pack('<I', masked_crc32c(bytes(block) + b'\0'))
    return handle


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _number_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def write_pytorch(file: Path, averages: dict[str, Tensor], archive: bool = True, **changes) -> None:
    """What the re-implementation saves in training: weights, averages, optimizer, and meters of a class of its own."""
    meters = types.ModuleType('utils.meters')
    meters.ScalarMeter = type('ScalarMeter', (), {'__module__': 'utils.meters'})
    meter = meters.ScalarMeter()
    meter.values = [0.5, torch.ones(2), np.float64(0.25)]
    weights = {f'module.{name}': value for name, value in averages.items()}
    content = {
        'model': weights,
        'ema': {'info': dict.fromkeys(averages, 3), 'shadow': averages},
        'optimizer': torch.optim.RMSprop([torch.ones(2, requires_grad=True)]).state_dict(),
        'last_epoch': 349,
        'best_val': np.float64(0.235),
        'meters': {'val': {'top1_error': meter}},
        **changes,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'utils', types.ModuleType('utils'))
        patch.setitem(sys.modules, 'utils.meters', meters)
        torch.save(content, file, _use_new_zipfile_serialization=archive)
