"""What a network or a space is, row by row: shapes, choices, MACs and parameters."""

from __future__ import annotations

from typing import Any

from ..cost.macs import (
    Cost,
    head_macs,
    head_params,
    macs,
    params,
    row_macs,
    row_params,
    row_sizes,
    stem_macs,
    stem_params,
)
from ..skeleton import ABSENT, PRESENT, SYMMETRIC, Row, Sample, Skeleton, row_name

__all__ = ['describe_network', 'describe_space', 'input_text', 'network_text', 'space_text']


def describe_network(
    skeleton: Skeleton, sample: Sample, input_size: int | None = None, latency: Cost | None = None
) -> dict[str, Any]:
    """A network as plain data, which JSON can hold.

    Args:
        skeleton, sample: the network.
        input_size: side of the square input in pixels; the skeleton's own by default.
        latency: milliseconds, of the same skeleton.

    Returns:
        ``kind`` (``network``), ``skeleton``, ``input_size``, ``classes``, ``padding``, ``macs``, ``params``,
        ``sample``, ``latency_ms`` where ``latency`` is given, and ``rows``: a dict for the stem, for each row and for
        the head, with ``name``, ``output`` (C, H, W), ``macs``, ``params``, and of a row ``presence``, ``expansion``,
        ``kernel``, ``stride``, ``se``, and ``lightnl``, None or its ``ratio`` and ``stride``. The head's output is its
        logits.

    Raises:
        ValueError: as :meth:`Skeleton.check_sample`.
    """
    network, sizes = skeleton.fix(sample), row_sizes(skeleton, input_size)
    rows = [
        {
            'name': 'stem',
            'output': [skeleton.stem_channels, sizes[0], sizes[0]],
            'macs': stem_macs(skeleton, sizes[0]),
            'params': stem_params(skeleton),
        }
    ]
    for index, row in enumerate(network.rows):
        shape = skeleton.in_channels(index), sizes[index]
        inserted = row.presence == PRESENT and row.lightnl == PRESENT
        rows.append(
            {
                'name': row_name(index),
                'output': [row.channels, sizes[index + 1], sizes[index + 1]],
                'macs': row_macs(row, *shape),
                'params': row_params(row, *shape),
                'presence': row.presence,
                'expansion': row.expansion,
                'kernel': row.kernel,
                'stride': row.stride,
                'se': row.se,
                'lightnl': {'ratio': row.lightnl_ratio, 'stride': row.lightnl_stride} if inserted else None,
            }
        )
    rows.append(
        {
            'name': 'head',
            'output': [skeleton.classes],
            'macs': head_macs(skeleton, sizes[-1]),
            'params': head_params(skeleton),
        }
    )
    return {
        'kind': 'network',
        'skeleton': skeleton.name,
        'input_size': input_size or skeleton.input_size,
        'classes': skeleton.classes,
        'padding': skeleton.padding,
        'macs': macs(skeleton, input_size)(sample),
        'params': params(skeleton)(sample),
        **({'latency_ms': latency(skeleton.check_sample(sample))} if latency else {}),
        'sample': skeleton.check_sample(sample),
        'rows': rows,
    }


def describe_space(skeleton: Skeleton, input_size: int | None = None, latency: Cost | None = None) -> dict[str, Any]:
    """A space as plain data, which JSON can hold; arguments as of :func:`describe_network`.

    Returns:
        ``kind`` (``space``), ``skeleton``, ``input_size``, ``classes``, ``padding``, ``samples`` (how many there are),
        ``macs``, ``params`` and ``latency_ms`` where it is given, each with ``min`` and ``max``, ``choices``, label to
        candidates, and ``rows``, a dict for each with ``name``, ``output`` (C, H, W), ``stride``, ``fixed``, key to its
        one value where it shows, and ``choices``, key to candidates.
    """
    sizes = row_sizes(skeleton, input_size)
    rows, idle = [], ('lightnl_ratio', 'lightnl_stride')
    for index, row in enumerate(skeleton.rows):
        candidates = {key: list(row.candidates(key)) for key in Row.SEARCHED}
        rows.append(
            {
                'name': row_name(index),
                'output': [row.channels, sizes[index + 1], sizes[index + 1]],
                'stride': row.stride,
                'fixed': {
                    key: values[0]
                    for key, values in candidates.items()
                    if len(values) == 1 and not (key in idle and candidates['lightnl'] == [ABSENT])
                },
                'choices': {key: values for key, values in candidates.items() if len(values) > 1},
            }
        )
    costs = {'macs': macs(skeleton, input_size), 'params': params(skeleton), 'latency_ms': latency}
    return {
        'kind': 'space',
        'skeleton': skeleton.name,
        'input_size': input_size or skeleton.input_size,
        'classes': skeleton.classes,
        'padding': skeleton.padding,
        'samples': skeleton.size(),
        **{name: dict(zip(('min', 'max'), cost.range(), strict=True)) for name, cost in costs.items() if cost},
        'choices': {label: list(candidates) for label, candidates in skeleton.choices().items()},
        'rows': rows,
    }


def input_text(described: dict[str, Any]) -> str:
    """The side of the input, and the padding of a network or space where it is not PyTorch's."""
    size, padding = described['input_size'], described['padding']
    return f'{size}×{size}' + (f', padding {padding}' if padding != SYMMETRIC else '')


def network_text(network: dict[str, Any]) -> str:
    """:func:`describe_network`'s data as a table, for people."""
    header = ('', 'output', 'expansion', 'kernel', 'stride', 'se', 'LightNL r/s', 'MACs', 'parameters')
    lines = [header]
    for row in network['rows']:
        columns: tuple = ('', '', '', '', '')
        if row.get('presence') == ABSENT:
            columns = (ABSENT, '', '', '', '')
        elif 'presence' in row:
            inserted = row['lightnl']
            compact = f'{inserted["ratio"]}/{inserted["stride"]}' if inserted else '-'
            columns = (row['expansion'], row['kernel'], row['stride'], row['se'] or '-', compact)
        lines.append((row['name'], _shape(row['output']), *columns, f'{row["macs"]:,}', f'{row["params"]:,}'))
    lines.append(('total', '', '', '', '', '', '', f'{network["macs"]:,}', f'{network["params"]:,}'))
    title = (
        f'a network of {network["skeleton"]} at {input_text(network)}: '
        f'{_millions(network["macs"], 2)} MACs, {_millions(network["params"], 3)} parameters'
    )
    if 'latency_ms' in network:
        title += f', {network["latency_ms"]:.3f} ms'
    return f'{title}\n\n{_table(lines)}'


def space_text(space: dict[str, Any]) -> str:
    """:func:`describe_space`'s data, for people."""
    count = f'{space["samples"]:,}' if space['samples'] < 10**12 else f'{space["samples"]:.2e}'
    lines = [
        f'the space {space["skeleton"]} at {input_text(space)}: {len(space["choices"])} choices, {count} samples',
        *(
            f'{name}: {_millions(space[key]["min"], digits)} to {_millions(space[key]["max"], digits)}'
            for name, key, digits in (('MACs', 'macs', 2), ('parameters', 'params', 3))
        ),
    ]
    if 'latency_ms' in space:
        lines.append(f'latency: {space["latency_ms"]["min"]:.3f} to {space["latency_ms"]["max"]:.3f} ms')
    rows = [('', 'output', 'stride', *Row.SEARCHED)]
    for row in space['rows']:
        columns = (_candidates(row['choices'].get(key, [row['fixed'].get(key, '-')])) for key in Row.SEARCHED)
        rows.append((row['name'], _shape(row['output']), row['stride'], *columns))
    return '\n'.join([*lines, '', _table(rows)])


def _candidates(values: list) -> str:
    return ' | '.join(str(value) for value in values)


def _shape(output: list[int]) -> str:
    return '×'.join(str(side) for side in output)


def _millions(value: float, digits: int) -> str:
    return f'{value / 1e6:.{digits}f}M'


def _table(lines: list[tuple]) -> str:
    """Columns as wide as they need to be, the first two to the left, numbers to the right."""
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
