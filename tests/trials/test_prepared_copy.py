"""The copy of a folder of images that training reads from."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trials import datasets, prepared_copy
from trials.__main__ import main
from trials.prepared_copy import MANIFEST, prepare

ROOT = Path(__file__).parents[2]


def photograph(file: Path, size: tuple[int, int], seed: int = 0, mode: str = 'RGB') -> None:
    """Smooth colours, as JPEG keeps them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file)


@pytest.fixture
def images(tmp_path) -> Path:
    """ImageNet's folders, with a large, a wide, a small, a grey and a transparent image, and what is no image."""
    folder = tmp_path / 'images'
    for part in ('train', 'val', 'test'):
        for number, size in enumerate([(500, 375), (900, 300), (100, 80)]):
            photograph(folder / part / 'n01' / f'{number}.JPEG', size, number)
            photograph(folder / part / 'n02' / f'{number}.JPEG', size, 9 + number)
        photograph(folder / part / 'n02' / 'grey.jpg', (320, 400), mode='L')
        photograph(folder / part / 'n02' / 'see-through.png', (300, 300), mode='RGBA')
    (folder / 'train' / 'n01' / 'broken.JPEG').write_bytes((folder / 'train' / 'n01' / '0.JPEG').read_bytes()[:500])
    (folder / 'train' / 'n01' / 'notes.txt').write_text('not an image')
    return folder


def test_the_command_makes_a_copy_that_the_data_set_reads_with_the_same_labels(images, tmp_path, capsys):
    out = tmp_path / 'copy'
    assert main(['prepare', 'imagenet', '--folder', str(images), '--out', str(out), '--processes', '2']) == 0
    said = capsys.readouterr()
    assert '24 images, 24 of them made now' in said.out
    assert 'left out, as no image that can be read: 1, such as train/n01/broken.JPEG' in said.out
    assert said.err == ''  # no bar, where it is no terminal
    manifest = json.loads((out / MANIFEST).read_text())
    assert (manifest['complete'], manifest['images'], manifest['unreadable']) == (True, 24, ['train/n01/broken.JPEG'])
    sizes = {file.name: Image.open(file).size for file in (out / 'train' / 'n02').iterdir()}
    assert sizes == {
        '0.JPEG': (341, 256),
        '1.JPEG': (768, 256),
        '2.JPEG': (100, 80),
        'grey.jpg': (256, 320),
        'see-through.png.jpg': (256, 256),
    }
    small = Path('train', 'n02', '2.JPEG')
    assert (out / small).read_bytes() == (images / small).read_bytes()
    loaded = [datasets.load('image-folder', 32, folder=str(folder)) for folder in (images, out)]
    assert loaded[1].test.labels.tolist() == loaded[0].test.labels.tolist()
    assert loaded[1].validation[0][0].shape == (3, 32, 32)


def test_a_copy_that_was_ended_half_way_is_gone_on_with_and_what_is_damaged_is_made_again(images, tmp_path):
    out = tmp_path / 'copy'
    assert prepare(images, out, processes=1).made == 24
    damaged, missing = out / 'train' / 'n01' / '0.JPEG', out / 'val' / 'n01' / '1.JPEG'
    kept = (out / 'val' / 'n02' / '0.JPEG').stat().st_mtime_ns
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    missing.unlink()
    assert prepare(images, out, processes=1).made == 2
    assert damaged.read_bytes() == content
    assert missing.exists()
    assert (out / 'val' / 'n02' / '0.JPEG').stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_killed_command_leaves_whole_files_only(images, tmp_path):
    for number in range(300):
        photograph(images / 'train' / 'n01' / f'more{number}.JPEG', (640, 480), number)
    out = tmp_path / 'copy'
    line = [sys.executable, '-m', 'trials', 'prepare', 'imagenet', '--folder', images, '--out', out, '--processes', '1']
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None and len(list(out.glob('train/n01/*.JPEG'))) < 5:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    files = list(out.glob('train/n01/*.JPEG'))
    assert 5 <= len(files) < 303
    assert json.loads((out / MANIFEST).read_text())['complete'] is False
    for file in files:
        Image.open(file).load()


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(images, tmp_path, monkeypatch):
    usage = prepared_copy.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(prepared_copy.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(ValueError, match=r'25 images need about .* GiB there, and 9.31e-07 GiB are free'):
        prepare(images, tmp_path / 'copy')
    assert not (tmp_path / 'copy').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--folder', '{images}', '--out', '{images}/copy'], 'must not be in the folder that it is made of'),
        (
            ['--folder', '{images}/train', '--out', '{out}'],
            'ImageNet has folders train and val, and train is missing',
        ),
        (['--folder', '{images}', '--out', '{filled}'], 'is neither empty nor a copy that was begun'),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(images, tmp_path, arguments, message, capsys):
    filled = tmp_path / 'filled'
    filled.mkdir()
    (filled / 'something').touch()
    places = {'images': images, 'out': tmp_path / 'copy', 'filled': filled}
    assert main(['prepare', 'imagenet', *(argument.format(**places) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count('\n') == 1
    assert not (tmp_path / 'copy').exists()
    assert [path.name for path in filled.iterdir()] == ['something']


def test_a_side_of_no_pixels_is_one_line(images, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['prepare', 'imagenet', '--folder', str(images), '--out', str(tmp_path / 'copy'), '--side', '0'])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("argument --side: must be a whole number from 1 to 8,192, not '0'")
    assert not (tmp_path / 'copy').exists()


def test_a_copy_of_other_images_or_of_another_size_is_not_gone_on_with(images, tmp_path):
    prepare(images, tmp_path / 'copy', processes=1)
    with pytest.raises(ValueError, match='holds a copy with side: 256, not 128; name another folder'):
        prepare(images, tmp_path / 'copy', side=128)


def test_two_images_that_would_have_one_copy_are_named(tmp_path):
    photograph(tmp_path / 'images' / 'a' / '1.png', (10, 10))
    photograph(tmp_path / 'images' / 'a' / '1.png.jpg', (10, 10))
    with pytest.raises(ValueError, match=r'1\.png and .*1\.png\.jpg would have one copy, 1\.png\.jpg; rename one'):
        prepare(tmp_path / 'images', tmp_path / 'copy')
