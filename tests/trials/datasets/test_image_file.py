"""An image file is read as a person sees it, whatever its format and mode."""

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from trials.datasets.image_file import SUFFIXES, as_seen, read_image

GREYS = np.tile(np.array([0, 30, 128, 255], np.uint8), (3, 1))
COLOURS = np.stack([GREYS, GREYS[:, ::-1], np.full_like(GREYS, 60)], axis=-1)
ALPHA = np.array([[0, 255, 128, 255]] * 3, np.uint8)
OVER_WHITE = np.round(GREYS * (ALPHA / 255.0) + 255 * (1 - ALPHA / 255.0))


def grey_in(mode: str) -> Image.Image:
    grey = Image.fromarray(GREYS)
    if mode == 'F':
        return Image.fromarray((GREYS / 255).astype(np.float32))
    if mode.startswith('I;16'):
        image = Image.frombytes(mode, grey.size, (GREYS.astype('>u2' if mode == 'I;16B' else '<u2') * 257).tobytes())
        assert image.mode == mode
        return image
    if mode == 'LAB':
        from PIL import ImageCms

        profiles = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
        return ImageCms.profileToProfile(grey.convert('RGB'), *profiles, outputMode='LAB')
    through = {'PA': 'P', 'La': 'LA', 'RGBa': 'RGBA', 'LAB': 'RGB', 'HSV': 'RGB'}.get(mode)
    return (grey.convert(through) if through else grey).convert(mode)


@pytest.mark.parametrize('mode', [
    *('L', 'P', 'LA', 'La', 'PA', 'RGB', 'RGBA', 'RGBa', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB'),
    *('F', 'I;16', 'I;16L', 'I;16B'),
])  # fmt: skip
def test_a_picture_is_the_same_in_every_mode(mode):
    seen = as_seen(grey_in(mode))
    assert seen.mode == 'RGB'
    near = 26 if mode in ('P', 'PA') else 3  # the palette has every 51st level
    assert np.abs(np.asarray(seen).astype(int) - GREYS[..., None]).max() <= near


def test_black_and_white_are_so():
    dots = Image.fromarray(GREYS > 100)
    assert dots.mode == '1'
    assert np.array_equal(np.asarray(as_seen(dots))[..., 1], np.where(GREYS > 100, 255, 0))


def png_of_16_bits(pixels: np.ndarray, colour_type: int, transparent: bytes = b'') -> bytes:
    """As the standard has it; Pillow writes grey ones only. ``pixels`` `(height, width, channels)`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    through = chunk(b'tRNS', transparent) if transparent else b''
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + through
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6


@pytest.mark.parametrize('colour_type', [GREY, RGB, GREY_ALPHA, RGB_ALPHA])
def test_png_of_16_bits_is_scaled_by_its_range(colour_type, tmp_path):
    grey = GREYS[..., None].astype(np.uint16) * 257
    alpha = ALPHA[..., None].astype(np.uint16) * 257
    channels = [grey] * (1 if colour_type in (GREY, GREY_ALPHA) else 3)
    channels += [alpha] if colour_type in (GREY_ALPHA, RGB_ALPHA) else []
    file = tmp_path / 'deep.png'
    file.write_bytes(png_of_16_bits(np.concatenate(channels, axis=-1), colour_type))
    expected = GREYS if colour_type in (GREY, RGB) else OVER_WHITE
    assert np.abs(np.asarray(read_image(file)).astype(int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ('colour_type', 'transparent'),
    [(GREY, struct.pack('>H', 128 * 257)), (RGB, struct.pack('>HHH', *[128 * 257] * 3))],
)
def test_the_one_transparent_colour_of_a_png_of_16_bits_is_white(colour_type, transparent, tmp_path):
    file = tmp_path / 'deep.png'
    pixels = np.repeat(GREYS[..., None].astype(np.uint16) * 257, 3 if colour_type == RGB else 1, axis=-1)
    file.write_bytes(png_of_16_bits(pixels, colour_type, transparent))
    assert np.array_equal(np.asarray(read_image(file))[..., 0], np.where(GREYS == 128, 255, GREYS))


TIFFS = {
    '16 bits': (GREYS.astype(np.uint16) * 257, {}),
    '16 bits, zeros white': ((255 - GREYS).astype(np.uint16) * 257, {262: 0}),
    'fractions': ((GREYS / 255).astype(np.float32), {}),
    '8 bits': (GREYS, {}),
}


@pytest.mark.parametrize('kind', TIFFS)
def test_tiff_is_scaled_by_its_range(kind, tmp_path):
    pixels, tags = TIFFS[kind]
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd[tag] = value
    Image.fromarray(pixels).save(tmp_path / 'a.tif', tiffinfo=ifd)
    assert np.array_equal(np.asarray(read_image(tmp_path / 'a.tif')), np.repeat(GREYS[..., None], 3, axis=-1))


def test_tiff_of_12_bits_is_scaled_by_4095(tmp_path):
    values = [0, 4095, 2048, 1024]
    packed = bytes([0, 0x0F, 0xFF, 0x80, 0x04, 0x00])  # 000 FFF 800 400
    tags = [(256, 4, 4), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 1)]
    tags.append((279, 4, 6))
    ifd = struct.pack('<H', len(tags)) + b''.join(
        struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags
    )
    (tmp_path / 'a.tif').write_bytes(b'II*\0' + struct.pack('<I', 14) + packed + ifd + bytes(4))
    assert np.asarray(read_image(tmp_path / 'a.tif'))[0, :, 0].tolist() == [round(v / 4095 * 255) for v in values]


def test_pgm_of_16_bits_is_scaled_by_its_range(tmp_path):
    (tmp_path / 'a.pgm').write_bytes(b'P5 4 3 65535\n' + (GREYS.astype('>u2') * 257).tobytes())
    assert np.array_equal(np.asarray(read_image(tmp_path / 'a.pgm'))[..., 0], GREYS)


@pytest.mark.parametrize(
    ('pixels', 'why'),
    [
        (np.array([[0.0, 812]], np.float32), 'from 0 to 1, and are from 0 to 812'),
        (np.array([[-0.5, 1]], np.float32), 'from 0 to 1, and are from -0.5 to 1'),
        (np.array([[np.nan, 1]], np.float32), 'from 0 to 1, and are from nan'),
        (np.array([[0, 70_000]], np.int32), 'no range that is known'),
    ],
)
def test_pixels_of_an_unknown_range_are_refused_and_not_destroyed(pixels, why, tmp_path):
    Image.fromarray(pixels).save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match=why):
        read_image(tmp_path / 'a.tif')


def test_colours_of_16_bits_in_planes_of_their_own_are_refused_and_not_destroyed(tmp_path):
    planes = np.stack([GREYS, GREYS[:, ::-1], GREYS]).astype('<u2') * 257
    size = planes[0].nbytes
    tags = [(256, 4, [4]), (257, 4, [3]), (258, 3, [16] * 3), (259, 3, [1]), (262, 3, [2])]
    tags += [(273, 4, [8, 8 + size, 8 + 2 * size]), (277, 3, [3]), (278, 4, [3]), (279, 4, [size] * 3), (284, 3, [2])]
    beside, entries = 8 + 3 * size, b''
    values = b''
    for tag, kind, numbers in tags:
        value = struct.pack(f'<{len(numbers)}{"H" if kind == 3 else "I"}', *numbers)
        if len(value) > 4:
            value, values = struct.pack('<I', beside + len(values)), values + value
        entries += struct.pack('<HHI', tag, kind, len(numbers)) + value.ljust(4, b'\0')
    ifd = struct.pack('<H', len(tags)) + entries + bytes(4)
    start = struct.pack('<I', beside + len(values))
    (tmp_path / 'a.tif').write_bytes(b'II*\0' + start + planes.tobytes() + values + ifd)
    with pytest.raises(ValueError, match=r'^its colours of 16 bits lie each in a plane of its own$'):
        read_image(tmp_path / 'a.tif')


def test_signed_pixels_of_8_bits_are_refused_as_of_16(tmp_path):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[339] = 2
    Image.fromarray(GREYS).save(tmp_path / 'a.tif', tiffinfo=ifd)
    with pytest.raises(ValueError, match='signed whole numbers, which have no range'):
        read_image(tmp_path / 'a.tif')


TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.webp', *{'.avif'} & SUFFIXES])
def test_an_image_stands_as_its_exif_orientation_says(suffix, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, turned = tmp_path / f'plain{suffix}', tmp_path / f'turned{suffix}'
    how = {'lossless': True} if suffix == '.webp' else {}
    Image.fromarray(np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))).save(plain, **how)
    Image.open(plain).save(turned, exif=exif, **how)
    pixels = np.asarray(read_image(plain))
    expected = TURNS[orientation](pixels)
    assert np.asarray(read_image(turned)).shape == expected.shape
    assert np.abs(np.asarray(read_image(turned)).astype(int) - expected).mean() < 5  # JPEG's own loss


def test_a_deep_image_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(tmp_path / 'a.png', exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / 'a.png'))[..., 0], np.rot90(GREYS, -1))


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', 'I;16', 'F', '1'])
def test_a_tiff_of_any_mode_is_turned_whole(mode, tmp_path):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[0x0112] = 6
    image = Image.fromarray(GREYS.astype(np.uint16) * 257) if mode == 'I;16' else grey_in(mode)
    image.save(tmp_path / 'plain.tif')
    image.save(tmp_path / 'turned.tif', tiffinfo=ifd)
    plain, turned = (np.asarray(read_image(tmp_path / name)) for name in ('plain.tif', 'turned.tif'))
    assert np.array_equal(turned, np.rot90(plain, -1))


def test_a_line_that_would_fill_memory_once_it_is_resized_is_refused(tmp_path):
    for name, length in (('long.png', 60_000), ('fair.png', 100)):
        Image.new('L', (1, length)).save(tmp_path / name)
    assert read_image(tmp_path / 'fair.png').size == (1, 100)
    with pytest.raises(ValueError, match=r'^its sides are 1 and 60000 pixels, over 100 to 1$'):
        read_image(tmp_path / 'long.png')


def test_a_file_that_another_program_would_read_is_not_given_to_it(tmp_path, monkeypatch):
    ran = tmp_path / 'ran'
    (tmp_path / 'gs').write_text(f'#!/bin/sh\ntouch {ran}\n')  # Ghostscript, which Pillow starts
    (tmp_path / 'gs').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)
    (tmp_path / 'a.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')
    with pytest.raises(UnidentifiedImageError):
        read_image(tmp_path / 'a.png')
    assert not ran.exists()


def test_damaged_exif_data_is_no_reason_to_leave_an_image_out(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / 'a.png', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff')
    assert np.array_equal(np.asarray(read_image(tmp_path / 'a.png')), COLOURS)


@pytest.mark.parametrize('suffix', ['.png', '.webp', '.tif', '.gif'])
def test_what_is_transparent_is_laid_over_white(suffix, tmp_path):
    rgba = np.dstack([COLOURS, np.where(ALPHA > 0, 255, 0).astype(np.uint8)])  # GIF has no other transparency
    how = {'lossless': True, 'exact': True} if suffix == '.webp' else {}
    Image.fromarray(rgba).save(tmp_path / f'a{suffix}', **how)
    seen = np.asarray(read_image(tmp_path / f'a{suffix}'))
    assert (seen[ALPHA == 0] == 255).all()
    assert np.abs(seen[ALPHA > 0].astype(int) - COLOURS[ALPHA > 0]).max() <= 3


def test_half_transparent_pixels_are_half_white():
    seen = as_seen(Image.fromarray(np.dstack([GREYS, ALPHA])))
    assert np.abs(np.asarray(seen)[..., 0].astype(float) - OVER_WHITE).max() <= 1


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = (Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (200, 20))
    first.save(tmp_path / 'a.gif', save_all=True, append_images=[second])
    assert np.asarray(read_image(tmp_path / 'a.gif')).min() > 190


@pytest.mark.parametrize('suffix', sorted(SUFFIXES))
def test_a_file_of_every_suffix_that_is_taken_can_be_read(suffix, tmp_path):
    image = Image.fromarray(GREYS > 100) if suffix == '.pbm' else Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    (image.convert('L') if suffix == '.pgm' else image).save(tmp_path / f'a{suffix}')
    assert read_image(tmp_path / f'a{suffix}').mode == 'RGB'


def test_the_page_about_data_has_every_suffix():
    page = (Path(__file__).parents[3] / 'docs' / 'data.md').read_text('utf-8')
    assert set(re.findall(r'`(\.\w+)`', page.partition('Images are files that end in')[2])) >= SUFFIXES
