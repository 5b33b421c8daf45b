"""Photographs in folders, one folder a class: ImageNet, and anybody's own."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from .image_part import ImagePart
from .parts import DataParts, cut, data_folder

__all__ = ['CUT', 'IMAGENET_VALIDATION', 'NORMALISATION', 'class_names', 'load', 'load_imagenet']

CUT = 0.1
"""Fraction of the training images that a validation or test part is which has no folder of its own."""
IMAGENET_VALIDATION = 0.04
"""Fraction of ImageNet's training images that is the validation part: 51,247, about as many as the test part."""
NORMALISATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the channels, of ImageNet's pixels in [0, 1]."""


def load_imagenet(*, folder: str = 'data', input_size: int = 224) -> DataParts:
    """ImageNet 2012 from ``folder/train/CLASS`` and ``folder/val/CLASS``.

    The published validation images are the test part, as everywhere in the literature; the validation part is cut from
    the training images.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015).

    Raises:
        ValueError: a folder is missing, or has no images.
    """
    root = data_folder('imagenet', folder)
    for part in ('train', 'val'):
        if not (root / part).is_dir():
            raise ValueError(
                f'data set imagenet: {root / part} is missing; download ILSVRC2012_img_train.tar, '
                f'ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org to {root} and unpack them '
                f"with torchvision.datasets.ImageNet('{root}', part) for the parts 'train' and 'val', or name another "
                'folder with dataset/folder'
            )
    learnt, test = _read('imagenet', root / 'train'), _read('imagenet', root / 'val')
    _check_classes('imagenet', root, learnt, 'val', test)
    train, validation = cut(learnt.targets, IMAGENET_VALIDATION, 'data set imagenet: the validation part')
    return _parts(learnt, train, (learnt, validation), (test, range(len(test))), input_size)


def load(*, folder: str = 'data', input_size: int = 224) -> DataParts:
    """The images of ``folder``, in one of two forms.

    - ``folder/train/CLASS``, and where they are there ``folder/val/CLASS`` and ``folder/test/CLASS``;
    - ``folder/CLASS``.

    What has no folder of its own is cut from the training images: a tenth of them for the test part, a tenth of what is
    left for the validation part.

    Raises:
        ValueError: there are no such folders or images, or not the same classes in all parts.
    """
    root, learnt = _read_own(folder)
    train, parts = range(len(learnt)), {}
    for part in ('test', 'val'):
        if (root / 'train').is_dir() and (root / part).is_dir():
            own = _read('image-folder', root / part)
            _check_classes('image-folder', root, learnt, part, own)
            parts[part] = own, range(len(own))
        else:
            left = torch.as_tensor(train)
            kept, taken = cut(torch.as_tensor(learnt.targets)[left], CUT, f'data set image-folder: the {part} part')
            train, parts[part] = left[kept], (learnt, left[taken])
    return _parts(learnt, train, parts['val'], parts['test'], input_size)


def class_names(*, folder: str = 'data') -> tuple[str, ...]:
    """What the classes of the images of ``folder`` are called: as their folders.

    Raises:
        ValueError: there are no such folders or images.
    """
    return tuple(_read_own(folder)[1].classes)


def _read_own(folder: str) -> tuple[Path, ImageFolder]:
    """``folder``, and the images in it that a network learns from."""
    root = data_folder('image-folder', folder)
    if not root.is_dir():
        raise ValueError(
            f'data set image-folder: {root} is missing; put images there as train/CLASS/IMAGE or CLASS/IMAGE, or name '
            'another folder with dataset/folder'
        )
    return root, _read('image-folder', root / 'train' if (root / 'train').is_dir() else root)


def _read(name: str, folder: Path) -> ImageFolder:
    try:
        return ImageFolder(folder)
    except FileNotFoundError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f'data set {name}: {folder} must hold a folder of images for each class: {why}') from None


def _check_classes(name: str, root: Path, train: ImageFolder, part: str, other: ImageFolder) -> None:
    odd = sorted(set(train.classes) ^ set(other.classes))
    if odd:
        where, missing = (part, 'train') if odd[0] in other.classes else ('train', part)
        raise ValueError(
            f'data set {name}: every part has the same classes, but {odd[0]!r} is in {root / where} and not in '
            f'{root / missing}'
        )


def _parts(learnt: ImageFolder, train, validation: tuple, test: tuple, input_size: int) -> DataParts:
    """The parts, images cropped to ``input_size``.

    In the training part at random, and mirrored (Szegedy et al., "Going Deeper with Convolutions", 2015); in the others
    the middle: 224 of 256 pixels, other sizes at that ratio.
    """
    same = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALISATION)]
    augmented = v2.Compose([v2.RandomResizedCrop(input_size), v2.RandomHorizontalFlip(), *same])
    middle = v2.Compose([v2.Resize(round(input_size * 256 / 224)), v2.CenterCrop(input_size), *same])
    return DataParts(
        ImagePart(learnt, train, augmented),
        ImagePart(*validation, middle),
        ImagePart(*test, middle),
        len(learnt.classes),
        input_size,
    )
