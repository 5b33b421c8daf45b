"""Image files in folders, one folder a class: which are images of the data set, what is left out and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from search_space.rules import one_line

from .image_file import SUFFIXES, read_image

__all__ = ['ClassFolders', 'FilesSeen', 'folders_in']

_SYSTEM = frozenset({
    *('__macosx', 'network trash folder', 'temporary items'),
    *('@eadir', '@recycle', '@recently-snapshot', '#recycle', '#snapshot'),
    *('$recycle.bin', 'recycler', 'system volume information', 'lost+found', '__pycache__'),
})  # fmt: skip
"""What operating systems, disk stations and Python leave in folders, in lower case."""
_REASONS = 8
"""That one line says, before it sums up the others."""


class FilesSeen:
    """The files and folders of a data set that were met, for none to be an image twice, whatever links there are.

    Args:
        roots: folders that are no class's; a link to one of them leads back to where the reading began.
    """

    def __init__(self, *roots: Path):
        self.roots = {_key(root.stat()) for root in roots}
        self.folders: set[int] = set()
        self.files: set[int] = set()


class ClassFolders(Dataset):
    """The images of ``folder/CLASS``, folders in it included, in the order of their paths.

    Args:
        folder: the folder of the classes' folders.
        seen: of the data set that these images are a part of.

    Attributes:
        folder: the same.
        classes: their names, sorted.
        samples: of each image its file and the number of its class.
        targets: of each image the number of its class.
        left_out: what is no image of this part: why, to how many files and folders.

    Raises:
        ValueError: there are no classes, or one has no images.
    """

    def __init__(self, folder: Path, seen: FilesSeen):
        self.folder, self.left_out = folder, Counter()
        classes = folders_in(folder)
        for entry in _entries(folder):
            if _is_hidden(entry):
                self.left_out['hidden'] += 1
            elif not _is_folder(entry):
                self.left_out['beside the folders of classes'] += 1
        own = {_key(path.stat()) for path in classes}
        self.classes = [path.name for path in classes]
        self.samples = [(file, label) for label, path in enumerate(classes) for file in self._files(path, own, seen)]
        self.targets = [label for _, label in self.samples]
        empty = sorted(set(range(len(classes))) - set(self.targets))
        if not classes or empty:
            why = f'{self.classes[empty[0]]!r} has none' if empty else 'it has no folders'
            raise ValueError(f'{folder} must hold a folder of images for each class: {why}{self.left_out_text()}')

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.samples[index]
        return read_image(file), label

    def left_out_text(self) -> str:
        """``; left out: 2 hidden, 1 .txt``, the most frequent first; empty where nothing is."""
        counts = (+self.left_out).most_common()
        shown = [f'{count} {why}' for why, count in counts[:_REASONS]]
        if len(counts) > _REASONS:
            shown.append(f'{sum(count for _, count in counts[_REASONS:])} of {len(counts) - _REASONS} other kinds')
        return f'; left out: {", ".join(shown)}' if shown else ''

    def _files(self, of_class: Path, classes: set[int], seen: FilesSeen) -> Iterator[str]:
        folders = [str(of_class)]
        while folders:
            folder = folders.pop()
            status = os.stat(folder)
            key = _key(status)
            elsewhere = key in classes and folder != str(of_class)
            if elsewhere or key in seen.folders or key in seen.roots:
                self.left_out['links to a folder that is read elsewhere'] += 1
                continue
            seen.folders.add(key)
            inner = []
            for entry in _entries(folder):
                if _is_hidden(entry):
                    self.left_out['hidden'] += 1
                elif _is_folder(entry):
                    inner.append(entry.path)
                elif (suffix := os.path.splitext(entry.name)[1].lower()) not in SUFFIXES:
                    self.left_out[one_line(suffix) or 'without a suffix'] += 1
                elif (key := _file_key(entry, status.st_dev)) is None:
                    self.left_out['broken links or no files'] += 1
                elif key in seen.files:
                    self.left_out['the same file as another'] += 1
                else:
                    seen.files.add(key)
                    yield entry.path
            folders += reversed(inner)


def folders_in(folder: Path) -> list[Path]:
    """The folders in ``folder`` that are not hidden, sorted by name."""
    return [Path(entry.path) for entry in _entries(folder) if _is_folder(entry) and not _is_hidden(entry)]


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """Sorted by name.

    Raises:
        ValueError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f'{folder} cannot be read: {error.strerror}') from None


def _is_hidden(entry: os.DirEntry) -> bool:
    return entry.name.startswith('.') or entry.name.lower() in _SYSTEM


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file_key(entry: os.DirEntry, disk: int) -> int | None:
    """The same for all links to a file; None where it is none, as a broken link or a pipe.

    Of what is no link it is known from the folder: nothing is asked of the disk for each of a million files.
    """
    try:
        if not entry.is_file():
            return None
        return _key(entry.stat()) if entry.is_symlink() else disk << 64 | entry.inode()
    except OSError:
        return None


def _key(status: os.stat_result) -> int:
    """Disk and number of a file or folder, in one number: a set of pairs would take three times the memory."""
    return status.st_dev << 64 | status.st_ino
