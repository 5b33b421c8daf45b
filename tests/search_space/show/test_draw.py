"""The picture of a network."""

import re
import struct
from itertools import pairwise

import pytest

from search_space import Row, Skeleton, load_network, load_skeleton
from search_space.__main__ import main
from search_space.show.draw import INK, KERNEL_COLOURS, LIGHTNL, SQUEEZE, draw

PNG = b'\x89PNG\r\n\x1a\n'


def svg_of(tmp_path, name, **arguments):
    path = tmp_path / f'{name}.svg'
    draw(*load_network(name), name, path, **arguments)
    return path.read_text()


def texts(svg):
    """What is written in the picture: matplotlib leaves each text as a comment beside its outlines."""
    return re.findall(r'<!-- (.+?) -->', svg)


def test_a_png_is_wide_enough_to_be_read_in_print(tmp_path):
    path = tmp_path / 'autonl-l.png'
    assert main(['draw', 'autonl-l', '--out', str(path)]) == 0
    content = path.read_bytes()
    width, height = struct.unpack('>II', content[16:24])
    assert content.startswith(PNG)
    assert width >= 2400
    assert 2 < width / height < 4


def test_a_title_is_what_it_says_whatever_is_in_it(tmp_path, capfd):
    path = tmp_path / 'x.svg'
    assert main(['draw', 'autonl-s', '--out', str(path), '--title', 'costs $x^{$ \x1b[31m \n 漢']) == 0
    assert capfd.readouterr().err == ''
    assert 'costs $x^{$ \\x1b[31m 漢' in texts(path.read_text())


@pytest.mark.parametrize(('name', 'rows', 'kinds'), [('autonl-s', 7, 2), ('autonl-l', 14, 4), ('mobilenet-v2', 0, 0)])
def test_a_disc_is_over_every_row_with_LightNL_and_in_the_legend_for_every_kind(tmp_path, name, rows, kinds):
    skeleton, sample = load_network(name)
    assert len(skeleton.lightnl_positions(sample)) == rows
    assert svg_of(tmp_path, name).count(f'stroke: {LIGHTNL}') == rows + kinds


def test_a_bar_is_under_every_row_with_squeeze_excite(tmp_path):
    skeleton, sample = load_network('autonl-s')
    with_se = [row for row in skeleton.fix(sample).rows if row.se and row.presence == 'present']
    kinds = {row.se for row in with_se}
    assert svg_of(tmp_path, 'autonl-s').count(f'stroke: {SQUEEZE}') == len(with_se) + len(kinds)


def test_the_picture_says_resolutions_kernels_costs_and_name(tmp_path):
    written = texts(svg_of(tmp_path, 'autonl-s'))
    assert {'autonl-s', '266.9M MACs, 4.389M parameters at 224×224'} <= set(written)
    assert [text for text in written if text in ('112×112', '56×56', '28×28', '14×14', '7×7')] == [
        '112×112', '56×56', '28×28', '14×14', '7×7'
    ]  # fmt: skip
    skeleton, sample = load_network('autonl-s')
    rows = [row for row in skeleton.fix(sample).rows if row.presence == 'present']
    for kernel in (3, 5):
        assert written.count(f'{kernel}×{kernel}') == sum(row.kernel == kernel for row in rows)


def test_the_input_size_is_the_pictures(tmp_path):
    assert '49×49' in texts(svg_of(tmp_path, 'autonl-s', input_size=97))


def test_the_same_network_gives_the_same_file(tmp_path):
    assert svg_of(tmp_path, 'autonl-s') == svg_of(tmp_path, 'autonl-s')


def test_a_short_network_is_drawn_too(tmp_path):
    skeleton = load_skeleton('cued')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    draw(skeleton, sample, 'short', tmp_path / 'short.svg')
    assert (tmp_path / 'short.svg').read_text().count(f'stroke: {LIGHTNL}') == len(skeleton.rows) + 1


def test_a_network_without_any_row_is_drawn_as_absent_ones(tmp_path):
    skeleton = Skeleton('none', 32, 10, 8, 1, 16, (Row(8, presence=('absent', 'present')),) * 2)
    draw(skeleton, dict.fromkeys(skeleton.choices(), 'absent'), 'none', tmp_path / 'none.svg')
    assert (tmp_path / 'none.svg').read_text().count('stroke-dasharray') == 3  # two rows and the legend's


def test_a_title_is_taken_as_it_is_written(tmp_path):
    draw(*load_network('autonl-s'), r'$\frac{1}{2 & <b>', tmp_path / 'odd.svg')
    assert b'</svg>' in (tmp_path / 'odd.svg').read_bytes()


def luminance(colour):
    """Relative luminance of ``#rrggbb``, 0 to 1 (WCAG 2.1)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_kernels_differ_in_lightness_and_what_is_written_on_them_is_legible():
    light, *dark = KERNEL_COLOURS
    assert all(contrast(a, b) >= 2.4 for a, b in pairwise(KERNEL_COLOURS))
    assert contrast(light, INK) >= 4.5
    assert all(contrast(colour, '#ffffff') >= 4.5 for colour in dark)


def test_a_picture_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / 'picture.svg'
    path.write_text('the one before')

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match=r'picture.svg cannot be written: No space left on device'):
        draw(*load_network('autonl-s'), 'autonl-s', path)
    assert path.read_text() == 'the one before'
    assert list(tmp_path.iterdir()) == [path]
