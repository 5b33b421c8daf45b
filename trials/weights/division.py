"""By what LightNL's product was divided where weights were trained.

The formula divides by ``H·W``. One program has it written as ``f / H * W``, which divides by the height and multiplies
by the width: ``W²`` times the formula's value on a square map. The convolution after it is linear, so a network that
was trained so is the formula's when its kernels are multiplied by ``W²``, exactly. W is the width of the map at the
resolution of the training.

Which of the two it was shows in the file: BN has recorded the variance of what that convolution gave in training.
"""

from __future__ import annotations

import copy
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from search_space import LightNL
from search_space.cost.macs import row_sizes
from search_space.skeleton import Skeleton, row_name

from ..random_images import random_images

__all__ = ['AS_WRITTEN', 'FORMULA', 'divide_by_formula', 'division_of']

FORMULA, AS_WRITTEN = 'formula', 'as-written'

_FAR = 100
"""A ratio of variances further than this from 1 is that of the wrong division: it is off by W⁴, 2,401 at 7 pixels."""
_SMALLEST = 1e-30


def _blocks(network: nn.Module, skeleton: Skeleton) -> dict[LightNL, int]:
    """LightNL blocks to the width of the maps that they see."""
    widths = {f'rows.{row_name(index)}.lightnl': size for index, size in enumerate(row_sizes(skeleton)[1:])}
    return {module: widths[name] for name, module in network.named_modules() if isinstance(module, LightNL)}


@torch.no_grad()
def divide_by_formula(network: nn.Module, skeleton: Skeleton) -> None:
    """Turns the weights of a network that was trained with ``f / H * W`` into those of the formula.

    Args:
        network: of ``skeleton``.
        skeleton: with nothing left to choose, of the resolution of the training.
    """
    for block, width in _blocks(network, skeleton).items():
        block.conv.weight.mul_(width**2)


def division_of(network: nn.Module, skeleton: Skeleton, file: Path) -> tuple[str, str]:
    """Which division the weights were trained with, and in words how that was seen.

    On random images, with BN as in training: then what a block gives is the same however its product is divided, and
    its input is as the training's was. The ratio of the variance of each LightNL convolution's output to the one that
    its BN has recorded, as geometric mean over channels and median over blocks, is near 1 with the right division.

    Args:
        network: with the weights as they are in the file.
        skeleton: as of :func:`divide_by_formula`.
        file: what errors call it.

    Raises:
        ValueError: neither ratio is near 1.
    """
    by_formula = _variances_over_recorded(network, skeleton)
    if not by_formula:
        return FORMULA, ''
    ratios = {
        FORMULA: math.exp(statistics.median(math.log(ratio) for ratio, _ in by_formula)),
        AS_WRITTEN: math.exp(statistics.median(math.log(ratio * width**4) for ratio, width in by_formula)),
    }
    division = min(ratios, key=lambda name: abs(math.log(ratios[name])))
    seen = ', '.join(f'{ratio:.1e} if {name}' for name, ratio in ratios.items())
    if not 1 / _FAR < ratios[division] < _FAR:
        raise ValueError(
            f"{file}: it does not show by what LightNL's product was divided (variances over those recorded: {seen}); "
            f'say it with --division {FORMULA} or --division {AS_WRITTEN}'
        )
    return division, f"division of LightNL's product: {division} (variances over those recorded: {seen})"


@torch.no_grad()
def _variances_over_recorded(network: nn.Module, skeleton: Skeleton) -> list[tuple[float, int]]:
    """Of each block, the ratio where the formula divides, and the width of its map."""
    network, found = copy.deepcopy(network), []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 0.0

    def compare(block: LightNL, width: int, output: Tensor) -> None:
        ratios = output.double().var((0, 2, 3)) / block.bn.running_var.double().clamp_min(_SMALLEST)
        found.append((math.exp(float(ratios.clamp(_SMALLEST, 1 / _SMALLEST).log().mean())), width))

    for block, width in _blocks(network, skeleton).items():
        block.conv.register_forward_hook(lambda _, __, output, b=block, w=width: compare(b, w, output))
    network(random_images(4, skeleton.input_size, torch.Generator().manual_seed(0)))
    return found
