"""What a training image goes through at random after its crop, by the arguments of a data set of photographs."""

from __future__ import annotations

from collections.abc import Callable

from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from search_space.rules import number, one_of

__all__ = ['AUGMENTATION', 'RANDOM_ERASING', 'augmented']

_OPERATIONS = {
    'none': lambda policy, mode: [],
    'autoaugment': lambda policy, mode: [v2.AutoAugment(policy, mode)],
    'randaugment': lambda policy, mode: [v2.RandAugment(interpolation=mode)],
}

AUGMENTATION = one_of(*_OPERATIONS)
"""``autoaugment``: the policy that was searched on the data set's kind of images (Cubuk et al., "AutoAugment", CVPR
2019); ``randaugment``: two operations of magnitude 9 of 31 (Cubuk et al., "RandAugment", CVPR workshops 2020)."""

RANDOM_ERASING = number(0, 1)
"""Probability that a rectangle of a training image is set to the mean colour (Zhong et al., "Random Erasing", AAAI
2020)."""


def augmented(
    crop: list[Callable],
    same: list[Callable],
    policy: AutoAugmentPolicy,
    augmentation: str,
    random_erasing: float,
    interpolation: str = 'bilinear',
) -> v2.Compose:
    """The steps of a training image: its crop, the augmentation, what images of all parts go through, random erasing.

    Args:
        crop: from an RGB image of Pillow's to one of the input's size.
        same: from that to a normalised tensor.
        policy: AutoAugment's.
        augmentation: one of :data:`AUGMENTATION`.
        random_erasing: one of :data:`RANDOM_ERASING`.
        interpolation: of the augmentation's rotations and shears.
    """
    operations = _OPERATIONS[augmentation](policy, InterpolationMode(interpolation))
    erasing = [v2.RandomErasing(random_erasing)] if random_erasing else []
    return v2.Compose([*crop, *operations, *same, *erasing])
