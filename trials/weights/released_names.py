"""Which tensor of the released files is which tensor of the network.

Two programs published weights of these networks: the paper's authors' (TensorFlow) and a re-implementation (PyTorch).
Their names follow the rows that are there; absent rows have no name.

Source: LiYingwei/AutoNL; meijieru/yet_another_mobilenet_series.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from search_space.skeleton import PRESENT, Skeleton, row_name

__all__ = ['AVERAGE', 'names_in_pytorch', 'names_in_tensorflow']

AVERAGE = '/ExponentialMovingAverage'
"""How the name of a variable's moving average ends, in TensorFlow; those are the weights that were evaluated."""

_VARIABLE = re.compile(
    r'single-path/(?:mnas_net_model/)?mnas_(stem|head|blocks_\d+)/(?:(se|nl)/)?'
    r'(conv2d|depthwise_conv2d|dense|batch_normalization)(?:_(\d+))?/\w+'
)
_LEAVES = {
    'conv2d': {'kernel': 'weight', 'bias': 'bias'},
    'depthwise_conv2d': {'depthwise_kernel': 'weight'},
    'dense': {'kernel': 'weight', 'bias': 'bias'},
    'batch_normalization': {
        'gamma': 'weight',
        'beta': 'bias',
        'moving_mean': 'running_mean',
        'moving_variance': 'running_var',
    },
}
_WORDS = {'conv2d': 'convolutions', 'depthwise_conv2d': 'depthwise convolutions', 'dense': 'dense layers'}


def _present(network: Skeleton) -> list[int]:
    return [index for index, row in enumerate(network.rows) if row.presence == PRESENT]


def _modules(network: Skeleton) -> dict[tuple[str, str, str], list[str]]:
    """Part, scope in it and kind of layer to the network's modules, in the order in which TensorFlow counted them."""
    modules = {
        ('stem', '', 'conv2d'): ['stem.0'],
        ('stem', '', 'batch_normalization'): ['stem.1'],
        ('head', '', 'conv2d'): ['head.0'],
        ('head', '', 'batch_normalization'): ['head.1'],
        ('head', '', 'dense'): ['classifier'],
    }
    for number, index in enumerate(_present(network)):
        row, part, name = network.rows[index], f'blocks_{number}', f'rows.{row_name(index)}'
        first = [f'{name}.body.expand'] if row.expansion > 1 else []
        norms = [f'{module}_bn' for module in (*first, f'{name}.body.depthwise', f'{name}.body.project')]
        modules[part, '', 'conv2d'] = [*first, f'{name}.body.project']
        modules[part, '', 'depthwise_conv2d'] = [f'{name}.body.depthwise']
        modules[part, '', 'batch_normalization'] = norms
        if row.se:
            modules[part, 'se', 'conv2d'] = [f'{name}.body.se.reduce', f'{name}.body.se.expand']
        if row.lightnl == PRESENT:
            modules[part, 'nl', 'depthwise_conv2d'] = [f'{name}.lightnl.conv']
            modules[part, 'nl', 'batch_normalization'] = [f'{name}.lightnl.bn']
    return modules


def names_in_tensorflow(network: Skeleton, names: Iterable[str]) -> dict[str, str]:
    """Name in the network to name in the authors' checkpoint, without :data:`AVERAGE`.

    Suffixes (``conv2d_17``) count over the whole graph, so only their order within a scope says anything.

    Args:
        network: a skeleton with nothing left to choose.
        names: of the variables of the checkpoint that have an average, without :data:`AVERAGE`.

    Raises:
        ValueError: the checkpoint has other layers; the message says of which part.
    """
    found: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in names:
        if match := _VARIABLE.fullmatch(name):
            part, scope, kind, number = match.groups()
            found.setdefault((part, scope or '', kind), {})[int(number or 0)] = name.rpartition('/')[0]
    wanted = _modules(network)
    rows = [len({part for part, *_ in keys if part.startswith('blocks_')}) for keys in (found, wanted)]
    if rows[0] != rows[1]:
        raise ValueError(f'it has {rows[0]} rows, the network {rows[1]}')
    pairs = {}
    for key in sorted({*found, *wanted}):
        part, scope, kind = key
        layers, modules = found.get(key, {}), wanted.get(key, [])
        if len(layers) != len(modules):
            where, what = f'mnas_{part}' + (f'/{scope}' if scope else ''), _WORDS.get(kind, 'batch normalizations')
            raise ValueError(f'{where}: it has {len(layers)} {what}, the network {len(modules)}')
        for module, (_, layer) in zip(modules, sorted(layers.items()), strict=True):
            for theirs, ours in _LEAVES[kind].items():
                pairs[f'{module}.{ours}'] = f'{layer}/{theirs}'
    return pairs


_FEATURE = re.compile(r'features\.(\d+)\.(.+)')
_IN_ROW = (
    (re.compile(r'expand_conv\.0\.weight'), 'body.expand.weight'),
    (re.compile(r'expand_conv\.1\.(\w+)'), r'body.expand_bn.\1'),
    (re.compile(r'depth_ops\.0\.\d+\.0\.weight'), 'body.depthwise.weight'),
    (re.compile(r'depth_ops\.0\.\d+\.1\.(\w+)'), r'body.depthwise_bn.\1'),
    (re.compile(r'se_op\.se_(reduce|expand)\.(\w+)'), r'body.se.\1.\2'),
    (re.compile(r'project_conv\.0\.weight'), 'body.project.weight'),
    (re.compile(r'project_conv\.1\.(\w+)'), r'body.project_bn.\1'),
    (re.compile(r'nl_op\.depthwise_conv\.weight'), 'lightnl.conv.weight'),
    (re.compile(r'nl_op\.bn\.(\w+)'), r'lightnl.bn.\1'),
)


def names_in_pytorch(network: Skeleton, names: Iterable[str]) -> dict[str, str]:
    """Name in the network to key of the re-implementation's weights.

    Args:
        network: a skeleton with nothing left to choose.
        names: the keys.

    Raises:
        ValueError: it has another number of rows, or two keys for one tensor.
    """
    keys = {name: name.removeprefix('module.') for name in names}
    features = {int(match[1]) for key in keys.values() if (match := _FEATURE.fullmatch(key))}
    rows = [row_name(index) for index in _present(network)]
    if features and max(features) != len(rows) + 1:
        raise ValueError(f'it has {max(max(features) - 1, 0)} rows, the network {len(rows)}')
    parts = {0: 'stem', len(rows) + 1: 'head', **{i: f'rows.{row}' for i, row in enumerate(rows, start=1)}}
    pairs, ours_of = {}, Counter()
    for name, key in keys.items():
        ours = _ours(key, parts)
        if ours and not ours.endswith('num_batches_tracked'):
            pairs[ours] = name
            ours_of[ours] += 1
    twice = next((ours for ours, count in ours_of.items() if count > 1), None)
    if twice:
        raise ValueError(f'two of its tensors are {twice} of the network')
    return pairs


def _ours(key: str, parts: dict[int, str]) -> str | None:
    if key.startswith('classifier.1.'):
        return f'classifier.{key.removeprefix("classifier.1.")}'
    match = _FEATURE.fullmatch(key)
    if not match:
        return None
    part, rest = parts.get(int(match[1]), ''), match[2]
    if not part.startswith('rows.'):
        return f'{part}.{rest}' if part else None
    for pattern, ours in _IN_ROW:
        if inner := pattern.fullmatch(rest):
            return f'{part}.{inner.expand(ours)}'
    return None
