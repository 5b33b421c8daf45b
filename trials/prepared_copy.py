"""A copy of a folder of images to train from: each image once, as JPEG, its shorter side at a given number of pixels.

Reading a photograph is mostly decoding it, and most of what is decoded is thrown away: an image of 500×375 pixels that
is brought to 224 anyway. A copy is made once, and read in every epoch of every trial.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from search_space.progress import progress
from search_space.whole_file import check_folder, write_whole

from .datasets.image_file import SUFFIXES, read_image

__all__ = ['MANIFEST', 'Copied', 'prepare', 'summary']

MANIFEST = 'prepared.json'
"""In the copy: of what it is a copy, how it was made, and whether all of it is there."""

SAMPLE = 64
"""Images whose copies tell how large all copies are."""
RESERVE = 1.05
"""The sample's estimate times this must be free on the disk."""


@dataclass(frozen=True)
class Copied:
    """What a copy has.

    Attributes:
        images: in the copy, those that were there before included.
        made: by this call.
        bytes: of what was made.
        unreadable: files of the source that are no images, relative to it; the copy is without them.
    """

    images: int
    made: int
    bytes: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """One image: the file, the file of its copy, and how the copy is made."""

    source: Path
    copy: Path
    side: int
    quality: int


def prepare(folder: Path, out: Path, *, side: int = 256, quality: int = 90, processes: int | None = None) -> Copied:
    """Copies the images of ``folder``, whatever folders they are in, to the same folders of ``out``.

    An image whose shorter side is larger than ``side`` is brought to it. None is enlarged, and a JPEG file that is
    small enough is copied as it is. A copy that was ended half way is gone on with: what is there is decoded and, if it
    is sound, kept.

    Args:
        folder: the images.
        out: where the copy goes; it is made if it is not there.
        side: pixels of a copy's shorter side.
        quality: of the JPEG files, 1 to 95.
        processes: that read and write at a time; by default one for each CPU.

    Raises:
        ValueError: there are no images, ``out`` is in ``folder`` or holds something else, or the disk is too small.
        OSError: something cannot be written.
    """
    folder, out = folder.resolve(), check_folder(out)
    _check_folders(folder, out)
    settings = {'source': str(folder), 'side': side, 'quality': quality}
    _check_manifest(out, settings)
    tasks = [_Task(source, _copy_of(source, folder, out), side, quality) for source in _images(folder)]
    if not tasks:
        raise ValueError(f'{folder} has no images: files that end in {", ".join(sorted(SUFFIXES))}')
    _check_names(tasks)
    _check_disk([task for task in tasks if not task.copy.exists()], out)
    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, settings | {'complete': False})
    for parent in sorted({task.copy.parent for task in tasks}):
        parent.mkdir(parents=True, exist_ok=True)
    made, size, unreadable = 0, 0, []
    with multiprocessing.get_context('fork').Pool(processes or os.cpu_count()) as pool:
        results = pool.imap_unordered(_make, tasks, chunksize=8)
        for task, bytes_made in progress(results, 'images prepared', len(tasks)):
            if bytes_made is None:
                unreadable.append(str(task.source.relative_to(folder)))
            else:
                made += bytes_made > 0
                size += bytes_made
    os.sync()
    copied = Copied(len(tasks) - len(unreadable), made, size, tuple(sorted(unreadable)))
    found = {'complete': True, 'images': copied.images, 'unreadable': list(copied.unreadable)}
    _write_manifest(out, settings | found)
    return copied


def _check_folders(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f'{folder} is no folder; it must be one with images in it')
    if out.is_relative_to(folder) or folder.is_relative_to(out):
        raise ValueError(f'--out {out}: the copy must not be in the folder that it is made of, {folder}, nor around it')


def _check_manifest(out: Path, settings: dict) -> None:
    try:
        earlier = json.loads((out / MANIFEST).read_text('utf-8'))
    except FileNotFoundError:
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f'--out {out} is neither empty nor a copy that was begun; name another folder') from None
        return
    except (OSError, ValueError):
        raise ValueError(f'{out / MANIFEST} cannot be read; name another folder with --out') from None
    earlier = earlier if isinstance(earlier, dict) else {}
    for key, value in settings.items():
        if earlier.get(key) != value:
            raise ValueError(
                f'--out {out} holds a copy with {key}: {earlier.get(key)}, not {value}; name another folder'
            )


def _write_manifest(out: Path, content: dict) -> None:
    write_whole(out / MANIFEST, json.dumps(content, indent=2).encode())


def _images(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)


def _copy_of(source: Path, folder: Path, out: Path) -> Path:
    """Under the same name, with ``.jpg`` after that of another format: a.png and a.jpg may be beside each other."""
    copy = out / source.relative_to(folder)
    return copy if _is_jpeg(source) else copy.with_name(f'{copy.name}.jpg')


def _is_jpeg(file: Path) -> bool:
    return file.suffix.lower() in ('.jpeg', '.jpg')


def _check_names(tasks: list[_Task]) -> None:
    seen: dict[Path, Path] = {}
    for task in tasks:
        other = seen.setdefault(task.copy, task.source)
        if other != task.source:
            raise ValueError(f'{other} and {task.source} would have one copy, {task.copy.name}; rename one of them')


def _check_disk(tasks: list[_Task], out: Path) -> None:
    """
    Raises:
        ValueError: the copies would not fit, by the size of those of a sample.
    """
    sizes = [
        len(copy)
        for task in random.Random(0).sample(tasks, min(SAMPLE, len(tasks)))
        if (copy := _encoded(task)) is not None
    ]
    if not sizes:
        return
    needed = RESERVE * len(tasks) * sum(sizes) / len(sizes)
    there = out
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f'--out {out}: {len(tasks)} images need about {needed / 2**30:.3g} GiB there, and {free / 2**30:.3g} GiB '
            'are free'
        )


def _make(task: _Task) -> tuple[_Task, int | None]:
    """The task, and the bytes of the copy that was made: 0 where it was there, None where the image cannot be read."""
    if _is_sound(task):
        return task, 0
    content = _encoded(task)
    if content is None:
        task.copy.unlink(missing_ok=True)
        return task, None
    beside = task.copy.with_name(f'.{task.copy.name}.{os.getpid()}')
    try:
        beside.write_bytes(content)
        beside.replace(task.copy)
    except OSError as error:
        raise OSError(f'{task.copy} cannot be written: {error.strerror}; the copy can be gone on with') from None
    finally:
        beside.unlink(missing_ok=True)
    return task, len(content)


def _is_sound(task: _Task) -> bool:
    """Whether the copy is there, can be decoded to its end and is not too large."""
    try:
        with Image.open(task.copy) as image:
            image.load()
            return image.format == 'JPEG' and min(image.size) <= task.side
    except Exception:  # as in _encoded
        return False


def _encoded(task: _Task) -> bytes | None:
    """The copy's content; None where the image cannot be read."""
    try:
        image = read_image(task.source)
        scale = task.side / min(image.size)
        if scale >= 1 and _is_jpeg(task.source):
            return task.source.read_bytes()
        if scale < 1:
            size = tuple(max(task.side, round(length * scale)) for length in image.size)
            image = image.resize(size, Image.Resampling.BILINEAR)
        content = io.BytesIO()
        image.save(content, 'JPEG', quality=task.quality)
        return content.getvalue()
    except Exception:  # what Pillow's readers raise on damaged files is of many types
        return None


def summary(copied: Copied, out: Path) -> str:
    """What the command says at the end."""
    text = f'{out}: {copied.images} images, {copied.made} of them made now ({copied.bytes / 2**20:.1f} MiB)'
    if copied.unreadable:
        text += f'; left out, as no image that can be read: {len(copied.unreadable)}, such as {copied.unreadable[0]}'
    return text
