"""A picture of a network: its rows by resolution, their kernels and expansions, LightNL and squeeze-excite."""

from __future__ import annotations

import io
import warnings
from functools import partial
from pathlib import Path

from ..rules import one_line
from ..skeleton import ABSENT, Sample, Skeleton, closest
from ..whole_file import write_whole
from .describe import describe_network, input_text

__all__ = ['draw', 'picture_format']

FORMATS = ('png', 'svg')

# Okabe and Ito's colours, which colour-blind people can tell apart; kernels differ in lightness too, for print in grey.
KERNEL_COLOURS = ('#9fd0f1', '#0072b2', '#08306b')
LIGHTNL, SQUEEZE, OUTSIDE, INK, PALE = '#d55e00', '#009e73', '#d9d9d9', '#222222', '#767676'

INCHES = 0.52
"""Of one column; text has a size of its own, so that it looks the same beside 5 rows and beside 21."""

TRACKS = {'LightNL': 3.55, 'block': 1.75, 'squeeze-excite': 0.2, 'channels': -0.5, 'row': -1.0}
"""Where each thing is, from the bottom up, in columns."""

BLOCK_HEIGHT = 2.3
"""Of the largest expansion."""

MIN_COLUMNS = 10
"""A shorter network's picture is as wide as this, for the legend's sake."""


def picture_format(path: str | Path) -> str:
    """``png`` or ``svg``, by the ending of ``path``.

    Raises:
        ValueError: another ending.
    """
    ending = Path(path).suffix.removeprefix('.').lower()
    if ending not in FORMATS:
        raise ValueError(
            f'{path}: a picture is a .png or a .svg file; {closest(ending, FORMATS)}'
            if ending
            else f'{path}: a picture is a .png or a .svg file, and this name has no ending'
        )
    return ending


def draw(skeleton: Skeleton, sample: Sample, title: str, path: str | Path, input_size: int | None = None) -> None:
    """Writes a picture of a network, whole or not at all.

    A block's height is its expansion, its colour its kernel; a disc over it is LightNL, large for a large channel
    ratio, a ring at a spatial stride above 1; the bar under it is squeeze-excite's ratio. An absent row is dashed.

    Args:
        skeleton, sample: the network.
        title: what it is called; MACs and parameters are put after it.
        path: of the file, ``.png`` or ``.svg``.
        input_size: side of the square input in pixels; the skeleton's own by default.

    Raises:
        ValueError: the sample is not one of the skeleton, or ``path`` is of another format.
        OSError: the file cannot be written.
    """
    kind = picture_format(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    network = describe_network(skeleton, sample, input_size)
    # A salt of its own and no date: the same network gives the same file.
    with (
        rc_context({'svg.hashsalt': 'autonl', 'font.family': 'DejaVu Sans', 'text.parse_math': False}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings('ignore', 'Glyph .* missing')  # of a title in another script, drawn as boxes
        figure = Figure()
        _Picture(figure, network).paint(one_line(title))
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=200, metadata={'Date': None} if kind == 'svg' else {'Software': None})
    write_whole(path, file.getvalue())


class _Picture:
    """The picture of one network on one figure; lengths are in columns."""

    def __init__(self, figure, network: dict):
        self.network, self.rows = network, network['rows']
        body = [row for row in self.rows[1:-1] if row['presence'] != ABSENT]
        self.kernels = sorted({row['kernel'] for row in body})
        self.expansions = sorted({row['expansion'] for row in body})
        self.lightnl = sorted({(row['lightnl']['ratio'], row['lightnl']['stride']) for row in body if row['lightnl']})
        self.squeezes = sorted({row['se'] for row in body if row['se']})
        self.left, self.right, top = -2.75, max(len(self.rows), MIN_COLUMNS) - 0.35, 6.15
        self.legend = self._legend_places()
        bottom = min(y for _, y, *_ in self.legend) - 0.55
        figure.set_size_inches((self.right - self.left) * INCHES, (top - bottom) * INCHES)
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(self.left, self.right), ylim=(bottom, top), aspect='equal')
        self.axes.axis('off')

    def paint(self, title: str) -> None:
        network = self.network
        self._write(self.left + 0.15, 5.72, title, size=13, weight='bold', ha='left')
        facts = f'{network["macs"] / 1e6:.4g}M MACs, {network["params"] / 1e6:.4g}M parameters at {input_text(network)}'
        self._write(self.left + 0.15, 5.15, facts, size=9.5, ha='left')
        self._stages()
        for name, y in TRACKS.items():
            self._write(-0.62, y, name, size=8.5, ha='right', colour=PALE)
        for column, row in enumerate(self.rows):
            if 'presence' in row:
                self._row(column, row)
            else:
                self._outside(column, row)
        for x, y, key, text in self.legend:
            key(x + 0.4, y)
            self._write(x + 0.95, y, text, ha='left')

    def _write(self, x, y, text, size=8.0, colour=INK, ha='center', **kwargs) -> None:
        self.axes.text(x, y, text, fontsize=size, color=colour, ha=ha, va='center', parse_math=False, **kwargs)

    def _box(self, x, y, width, height, facecolor, edgecolor='none', **style) -> None:
        from matplotlib.patches import FancyBboxPatch

        rounding = min(0.1, width / 3, height / 3)
        shape = f'round,pad=0,rounding_size={rounding}'
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=shape,
            facecolor=facecolor,
            edgecolor=edgecolor,
            **style,
        )
        self.axes.add_patch(box)

    def _stages(self) -> None:
        """A band behind the columns of each resolution."""
        from matplotlib.patches import Rectangle

        sides = [row['output'][1] for row in self.rows[:-1]]
        starts = [0, *(i for i in range(1, len(sides)) if sides[i] != sides[i - 1])]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(sides)], strict=True)):
            shade = '#f1f1f1' if number % 2 == 0 else '#fafafa'
            band = Rectangle((start - 0.5, -1.3), end - start, 6.1, facecolor=shade, edgecolor='none', zorder=0)
            self.axes.add_patch(band)
            side = sides[start]
            self._write((start + end - 1) / 2, 4.5, f'{side}×{side}' if end - start > 1 else f'{side}', size=8.5)

    def _outside(self, column: int, row: dict) -> None:
        self._box(column, TRACKS['block'], 0.62, BLOCK_HEIGHT, facecolor=OUTSIDE)
        self._write(column, TRACKS['block'], row['name'], rotation=90)
        channels = row['output'][0]
        self._write(column, TRACKS['channels'], channels, size=7.5)

    def _row(self, column: int, row: dict) -> None:
        self._write(column, TRACKS['row'], str(int(row['name'].removeprefix('row'))), size=7.5, colour=PALE)
        if row['presence'] == ABSENT:
            self._absent(column, TRACKS['block'], 0.74, 1.0)
            return
        self._write(column, TRACKS['channels'], row['output'][0], size=7.5)
        self._block(column, row['kernel'], row['expansion'])
        if row['lightnl']:
            self._lightnl(column, TRACKS['LightNL'], row['lightnl'])
        if row['se']:
            self._squeeze(column, TRACKS['squeeze-excite'], row['se'])

    def _kernel_colour(self, kernel: int) -> str:
        return KERNEL_COLOURS[min(self.kernels.index(kernel), len(KERNEL_COLOURS) - 1)]

    def _height(self, expansion: int) -> float:
        return max(0.5, BLOCK_HEIGHT * expansion / self.expansions[-1])

    def _block(self, column: float, kernel: int, expansion: int) -> None:
        y, colour = TRACKS['block'], self._kernel_colour(kernel)
        self._box(column, y, 0.78, self._height(expansion), facecolor=colour)
        self._write(column, y, f'{kernel}×{kernel}', colour=INK if colour == KERNEL_COLOURS[0] else 'white')

    def _absent(self, x: float, y: float, width: float, height: float) -> None:
        self._box(x, y, width, height, facecolor='none', edgecolor=PALE, linestyle=(0, (2, 2)))

    def _lightnl(self, x: float, y: float, block: dict) -> None:
        from matplotlib.patches import Circle

        radius = 0.36 * (block['ratio'] / self.lightnl[-1][0]) ** 0.5
        filled = LIGHTNL if block['stride'] == 1 else 'white'
        self.axes.add_patch(Circle((x, y), radius, facecolor=filled, edgecolor=LIGHTNL, linewidth=2.2))

    def _squeeze(self, x: float, y: float, ratio: float) -> None:
        self._box(x, y, 0.78, 0.2, facecolor='white', edgecolor=SQUEEZE, linewidth=0.9)
        self._box(x - 0.39 * (1 - ratio), y, 0.78 * ratio, 0.2, facecolor=SQUEEZE)

    def _legend_places(self) -> list[tuple]:
        """What each key of the legend is painted by, where, and what it says; LightNL's are on lines of their own."""
        blocks: list[tuple] = []
        for kernel in self.kernels:
            colour = self._kernel_colour(kernel)
            blocks.append((partial(self._box, width=0.5, height=0.34, facecolor=colour), f'kernel {kernel}×{kernel}'))
        for expansion in self.expansions:
            height = 0.7 * self._height(expansion) / BLOCK_HEIGHT
            blocks.append((partial(self._box, width=0.3, height=height, facecolor=OUTSIDE), f'expansion {expansion}'))
        for ratio in self.squeezes:
            blocks.append((partial(self._squeeze, ratio=ratio), f'squeeze-excite {ratio}'))
        if any(row.get('presence') == ABSENT for row in self.rows):
            blocks.append((partial(self._absent, width=0.5, height=0.34), 'absent row'))
        lightnl = [
            (partial(self._lightnl, block={'ratio': r, 'stride': s}), f'LightNL, ratio {r}, stride {s}')
            for r, s in self.lightnl
        ]
        start, y, places = self.left + 0.15, -1.15, []
        for keys in filter(None, (blocks, lightnl)):
            x, y = start, y - 0.85
            for key, text in keys:
                width = 1.4 + 0.108 * len(text)
                if x + width > self.right and x > start:
                    x, y = start, y - 0.85
                places.append((x, y, key, text))
                x += width
        return places
