"""Photographs in folders, one folder a class: ImageNet, and anybody's own."""

from __future__ import annotations

import difflib
import logging
import re
from pathlib import Path

import torch
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from search_space.rules import one_line
from strategies.autonl.processes import process_rank

from .augmentation import AUGMENTATION, RANDOM_ERASING, augmented
from .class_folders import ClassFolders, FilesSeen, folders_in
from .crop import CROP, INTERPOLATION, middle
from .data_set import DataSet, always
from .image_part import ImagePart
from .parts import DataParts, cut, data_folder

__all__ = ['CUT', 'IMAGENET', 'IMAGENET_VALIDATION', 'IMAGE_FOLDER']

CUT = 0.1
"""Fraction of the training images that a validation or test part is which has no folder of its own."""
IMAGENET_VALIDATION = 0.04
"""Fraction of ImageNet's training images that is the validation part: 51,247, about as many as the test part."""
_NORMALISATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the channels, of ImageNet's pixels in [0, 1]."""
_FOLDERS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
"""What the folder of a part may be called, in capitals too."""
_RULES = {
    'crop': CROP,
    'interpolation': INTERPOLATION,
    'augmentation': AUGMENTATION,
    'random_erasing': RANDOM_ERASING,
}
_NAMES_SHOWN = 5

_logger = logging.getLogger(__name__)


def _load_imagenet(
    *,
    folder: str = 'data',
    crop: str = 'resize',
    interpolation: str = 'bilinear',
    augmentation: str = 'none',
    random_erasing: float = 0.0,
    input_size: int = 224,
) -> DataParts:
    """ImageNet 2012 from ``folder/train/CLASS`` and ``folder/val/CLASS``.

    The published validation images are the test part, as everywhere in the literature; the validation part is cut from
    the training images.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015).

    Raises:
        ValueError: a folder is missing, or has no images.
    """
    root, folders = _imagenet_folders(folder, 'train', 'val')
    read = _read('imagenet', root, folders)
    learnt, test = read['train'], read['val']
    train, validation = cut(learnt.targets, IMAGENET_VALIDATION, 'data set imagenet: the validation part')
    parts = {'train': (learnt, train), 'validation': (learnt, validation), 'test': (test, range(len(test)))}
    _say('imagenet', parts, learnt, _not_used(root, folders))
    return _parts(parts, input_size, crop, interpolation, augmentation, random_erasing)


def _load_imagenet_test(
    *, folder: str = 'data', crop: str = 'resize', interpolation: str = 'bilinear', input_size: int = 224, **_
) -> DataParts:
    """The test part of ImageNet, for which ``folder/val`` is enough, with None for the other parts.

    Raises:
        ValueError: as :func:`_load_imagenet`.
    """
    root, folders = _imagenet_folders(folder, 'val')
    images = _read('imagenet', root, {'train': folders['val']})['train']
    evaluated = _evaluated(input_size, crop, interpolation)
    return DataParts(None, None, ImagePart(images, range(len(images)), evaluated), len(images.classes), input_size)


def _imagenet_folders(folder: str, *parts: str) -> tuple[Path, dict[str, Path]]:
    root = data_folder('imagenet', folder)
    for part in parts:
        if not (root / part).is_dir():
            raise ValueError(
                f'data set imagenet: {root / part} is missing; download ILSVRC2012_img_train.tar, '
                f'ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org to {root} and unpack them '
                f"with torchvision.datasets.ImageNet('{root}', part) for the parts 'train' and 'val', or name another "
                'folder with dataset/folder'
            )
    return root, {part: root / part for part in parts}


def _load(
    *,
    folder: str = 'data',
    crop: str = 'resize',
    interpolation: str = 'bilinear',
    augmentation: str = 'none',
    random_erasing: float = 0.0,
    input_size: int = 224,
) -> DataParts:
    """The images of ``folder``, in one of two forms.

    - ``folder/train/CLASS``, and where they are there ``folder/val/CLASS`` and ``folder/test/CLASS``;
    - ``folder/CLASS``.

    What has no folder of its own is cut from the training images: a tenth of them for the test part, a tenth of what is
    left for the validation part.

    Raises:
        ValueError: there are no such folders or images, or not the same classes in all parts.
    """
    root, folders = _own_folders(folder)
    read = _read('image-folder', root, folders)
    learnt = read['train']
    train, parts = range(len(learnt)), {}
    for part, called in (('test', 'test'), ('val', 'validation')):
        if part in read:
            parts[called] = read[part], range(len(read[part]))
        else:
            left = torch.as_tensor(train)
            kept, taken = cut(torch.as_tensor(learnt.targets)[left], CUT, f'data set image-folder: the {called} part')
            train, parts[called] = left[kept], (learnt, left[taken])
    parts = {'train': (learnt, train), 'validation': parts['validation'], 'test': parts['test']}
    _say('image-folder', parts, learnt, _not_used(root, folders) if folders['train'] != root else '')
    return _parts(parts, input_size, crop, interpolation, augmentation, random_erasing)


def _class_names(*, folder: str = 'data', **_) -> tuple[str, ...]:
    """What the classes of the images of ``folder`` are called: as their folders.

    Raises:
        ValueError: there are no such folders or images.
    """
    root, folders = _own_folders(folder)
    return tuple(_read('image-folder', root, {'train': folders['train']})['train'].classes)


def _own_folders(folder: str) -> tuple[Path, dict[str, Path]]:
    """``folder``, and part to its folder; ``folder`` itself is the training part's where it has no parts.

    Raises:
        ValueError: it is not there, or what its folders are for cannot be told from their names.
    """
    root = data_folder('image-folder', folder)
    name = f'data set image-folder: {root}'
    if not root.is_dir():
        raise ValueError(
            f'{name} is missing; put images there as train/CLASS/IMAGE or CLASS/IMAGE, or name '
            'another folder with dataset/folder'
        )
    if root.parent == root:
        raise ValueError(f'{name} is the whole machine; name the folder of the images with dataset/folder')
    inside = folders_in(root)
    parts = {part: [path for path in inside if path.name.lower() in names] for part, names in _FOLDERS.items()}
    for part, paths in parts.items():
        if len(paths) > 1:
            found = ' and '.join(f'{path.name}/' for path in paths)
            raise ValueError(f'{name} has {found}, which are all the {part} part; keep one')
    others = [path for path in inside if not any(path in paths for paths in parts.values())]
    holding = [path for path in inside if folders_in(path)]  # a class of that name holds images
    if parts['train'] and (parts['train'][0] in holding or not others):
        known = {alias: part for part, names in _FOLDERS.items() for alias in names if not parts[part]}
        for path in others:
            if near := difflib.get_close_matches(path.name.lower(), known, n=1, cutoff=0.7):
                raise ValueError(
                    f'{name}: {path.name}/ is perhaps the {known[near[0]]} part; call it {known[near[0]]}/, or take '
                    'it away'
                )
        return root, {part: paths[0] for part, paths in parts.items() if paths}
    for path in holding:
        if any(word.startswith(tuple(_FOLDERS)) for word in re.findall('[a-z]+', path.name.lower())):
            raise ValueError(
                f'{name}: {path.name}/ holds folders, as a part does, and there is no train/ that does; call the '
                'folders of parts train, val and test, and those of classes otherwise'
            )
    return root, {'train': root}


def _read(name: str, root: Path, folders: dict[str, Path]) -> dict[str, ClassFolders]:
    """Part to its images; no file is in two of them. The test part has those that links put into several.

    Raises:
        ValueError: a part has no images, or they have not the same classes.
    """
    seen = FilesSeen(root, *folders.values())
    try:
        read = {part: ClassFolders(folders[part], seen) for part in ('test', 'val', 'train') if part in folders}
    except ValueError as error:
        raise ValueError(f'data set {name}: {error}') from None
    for part, images in read.items():
        odd = sorted(set(read['train'].classes) ^ set(images.classes))
        if odd:
            where, missing = (part, 'train') if odd[0] in images.classes else ('train', part)
            raise ValueError(
                f'data set {name}: every part has the same classes, but {odd[0]!r} is in {folders[where]} and not in '
                f'{folders[missing]}'
            )
    return read


def _not_used(root: Path, folders: dict[str, Path]) -> str:
    others = [one_line(f'{path.name}/', 100) for path in folders_in(root) if path not in folders.values()]
    if files := sum(file.is_file() and not file.name.startswith('.') for file in root.iterdir()):
        others.append('1 file' if files == 1 else f'{files:,} files')
    return f'; not used: {", ".join(others)}' if others else ''


def _say(name: str, parts: dict[str, tuple], learnt: ClassFolders, not_used: str) -> None:
    """Log a line for each part: how many images and classes, where they are from, what is left out and why."""
    if process_rank():
        return
    for part, (images, indices) in parts.items():
        classes = len(set(torch.as_tensor(images.targets)[torch.as_tensor(indices)].tolist()))
        shown = f' ({", ".join(map(one_line, images.classes))})' if len(images.classes) <= _NAMES_SHOWN else ''
        text = f'{part}: {len(indices):,} images of {classes:,} classes{shown}'
        if images is learnt and part != 'train':
            text += ', cut from the training images'
        else:
            text += f', from {images.folder}{images.left_out_text()}'
        _logger.info('data set %s: %s%s', name, text, not_used if part == 'train' else '')


def _parts(
    parts: dict[str, tuple],
    input_size: int,
    crop: str,
    interpolation: str,
    augmentation: str,
    random_erasing: float,
) -> DataParts:
    """The parts, images cropped to ``input_size``.

    In the training part at random, and mirrored (Szegedy et al., "Going Deeper with Convolutions", 2015), then as
    :func:`.augmentation.augmented`; in the others as :func:`.crop.middle` does.
    """
    same = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_NORMALISATION)]
    at_random = v2.RandomResizedCrop(input_size, interpolation=InterpolationMode(interpolation))
    learnt = augmented(
        [at_random, v2.RandomHorizontalFlip()],
        same,
        AutoAugmentPolicy.IMAGENET,
        augmentation,
        random_erasing,
        interpolation,
    )
    evaluated = _evaluated(input_size, crop, interpolation)
    return DataParts(
        ImagePart(*parts['train'], learnt),
        ImagePart(*parts['validation'], evaluated),
        ImagePart(*parts['test'], evaluated),
        len(parts['train'][0].classes),
        input_size,
    )


def _evaluated(input_size: int, crop: str, interpolation: str) -> v2.Compose:
    return v2.Compose([*middle(input_size, crop, interpolation), v2.Normalize(*_NORMALISATION)])


def _check(name: str):
    def check(*, folder: str = 'data', **others) -> None:
        data_folder(name, folder)
        for key in _RULES.keys() & others:
            _RULES[key].check(f'data set {name}: {key}', others[key])

    return check


def _find_imagenet(*, folder: str = 'data', **_) -> None:
    _find_classes('imagenet', *_imagenet_folders(folder, 'train', 'val')[1].values())


def _find(*, folder: str = 'data', **_) -> None:
    _find_classes('image-folder', *_own_folders(folder)[1].values())


def _find_classes(name: str, *folders: Path) -> None:
    for folder in folders:
        if not folders_in(folder):
            raise ValueError(
                f'data set {name}: {folder} must hold a folder of images for each class: it has no folders'
            )


IMAGENET = DataSet(
    _load_imagenet,
    _check('imagenet'),
    always(_NORMALISATION),
    always(tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta['categories'])),
    _load_imagenet_test,
    _find_imagenet,
)
IMAGE_FOLDER = DataSet(_load, _check('image-folder'), always(_NORMALISATION), _class_names, find=_find)
