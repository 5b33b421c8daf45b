"""LightNL offered at named points of a torchvision classification network."""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import nni
import torch
import torchvision
from nni.mutable import label_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import convnext, efficientnet, mnasnet, mobilenetv2, mobilenetv3, regnet, resnet, shufflenetv2

from .cost.macs import Cost, CostTable
from .lightnl.block import LightNL
from .lightnl.macs import lightnl_macs
from .mixed import MixedLightNL
from .mutable import MutableLightNL
from .nni_nas import LayerChoice, ModelSpace
from .skeleton import ABSENT, PRESENT, closest

__all__ = ['BackboneSpace', 'block_points', 'point_label', 'shipped_backbones']

BLOCKS = (
    convnext.CNBlock,
    efficientnet.FusedMBConv,
    efficientnet.MBConv,
    mnasnet._InvertedResidual,
    mobilenetv2.InvertedResidual,
    mobilenetv3.InvertedResidual,
    regnet.ResBottleneckBlock,
    resnet.BasicBlock,
    resnet.Bottleneck,
    shufflenetv2.InvertedResidual,
)
"""What the default points come after: torchvision's classes of a network's repeated block."""

ARGUMENTS = {name: {'aux_logits': False, 'init_weights': False} for name in ('googlenet', 'inception_v3')}
"""Of networks that, unless told not to, put out more than logits in training, and initialise for a minute."""


def shipped_backbones() -> list[str]:
    """Names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def block_points(network: nn.Module) -> list[str]:
    """Names of the blocks of a torchvision network, in order; none where it has no block of :data:`BLOCKS`."""
    return [name for name, module in network.named_modules() if isinstance(module, BLOCKS)]


def point_label(point: str, key: str) -> str:
    """The label of the choice of ``key`` at ``point``: ``layer1/0/lightnl``.

    A slash for each dot of the module's name: NNI's differentiable strategies cannot search a label with a dot.
    """
    return f'{point.replace(".", "/")}/{key}'


class BackboneSpace(ModelSpace):
    """A torchvision classification network with LightNL offered after named modules of it.

    At each point there are the choices that a row of a skeleton has: insertion (``layer1/0/lightnl`` at the point
    ``layer1.0``), channel ratio (``layer1/0/lightnl_ratio``) and spatial stride (``layer1/0/lightnl_stride``). A fresh
    LightNL is the identity, so with :meth:`load_backbone` every network of the space starts from what the plain one has
    learned.

    >>> space = BackboneSpace('resnet18', points=['layer1.1', 'layer2.1'])
    >>> network = space.freeze({label: candidates[0] for label, candidates in space.choices().items()})

    The modules of torchvision's network keep their names, but for one that LightNL follows: what was ``layer1.1`` is
    ``layer1.1.block``, beside ``layer1.1.lightnl``. Nothing is downloaded; weights are random until loaded.

    Args:
        backbone: name of a torchvision classification network, such as ``resnet18``.
        points: names of its modules, in :meth:`~torch.nn.Module.named_modules`' sense, whose output is a feature map
            `(N, C, H, W)`; after each repeated block by default.
        classes: outputs of the network.
        input_size: side of the square input in pixels, which the cost is of.
        ratios, strides: candidates of LightNL's channel ratio and spatial stride; a single one is fixed.

    Raises:
        ValueError: no such network or module, or a module whose output is not a feature map.
    """

    def __init__(
        self,
        backbone: str,
        points: Sequence[str] | None = None,
        classes: int = 1000,
        input_size: int = 224,
        ratios: Sequence[float] = (0.125, 0.25),
        strides: Sequence[int] = (1, 2),
    ):
        super().__init__()
        if backbone not in shipped_backbones():
            raise ValueError(f'no torchvision backbone {backbone!r}; {closest(backbone, shipped_backbones())}')
        self.network = torchvision.models.get_model(
            backbone, weights=None, num_classes=classes, **ARGUMENTS.get(backbone, {})
        )
        self.backbone, self.classes, self.input_size = backbone, classes, input_size
        self.ratios, self.strides = tuple(ratios), tuple(strides)
        if points is None:
            points = block_points(self.network)
            if not points:
                raise ValueError(f'{backbone} has no block that is known here; name the points that LightNL may follow')
        self.points = tuple(points)
        self._check_arguments()
        maps, self.backbone_macs = trace(self.network, self.points, input_size)
        self.maps = {point: _feature_map(backbone, point, maps.get(point)) for point in self.points}
        # From the innermost outwards: wrapping a module moves the names of what is inside it.
        for point in self._inside_out():
            block = self.network.get_submodule(point)
            self.network.set_submodule(point, nn.Sequential(OrderedDict(block=block, lightnl=self._insertion(point))))

    def _check_arguments(self) -> None:
        for name in ('points', 'ratios', 'strides'):
            if not getattr(self, name):
                raise ValueError(f'{self.backbone}: {name} needs at least one')
        known = [name for name, _ in self.network.named_modules() if name]
        for point in self.points:
            if point not in known:
                raise ValueError(f'{self.backbone} has no module {point!r}; {closest(point, known)}')
            if self.points.count(point) > 1:
                raise ValueError(f'{self.backbone}: the point {point!r} is there twice')
        for ratio, stride in itertools.product(self.ratios, self.strides):
            LightNL(1, ratio, stride)  # says what is wrong with them, if anything is

    def _inside_out(self) -> list[str]:
        return sorted(self.points, key=lambda point: -point.count('.'))

    def _choices_at(self, point: str) -> dict[str, tuple]:
        """What is searched at ``point``: key, as in :class:`Row`, to candidates."""
        keys = {'lightnl': (ABSENT, PRESENT), 'lightnl_ratio': self.ratios, 'lightnl_stride': self.strides}
        return {key: candidates for key, candidates in keys.items() if len(candidates) > 1}

    def _insertion(self, point: str) -> nn.Module:
        with ExitStack() as scopes:
            for name in point.split('.'):
                scopes.enter_context(label_scope(name))
            ratio, stride = (
                nni.choice(key, list(candidates)) if len(candidates) > 1 else candidates[0]
                for key, candidates in (('lightnl_ratio', self.ratios), ('lightnl_stride', self.strides))
            )
            candidates = OrderedDict(
                ((ABSENT, nn.Identity()), (PRESENT, MutableLightNL(self.maps[point][0], ratio, stride)))
            )
            return LayerChoice(candidates, label='lightnl')

    def choices(self) -> dict[str, tuple]:
        """Label to candidates, as :meth:`Skeleton.choices`."""
        return {point_label(p, key): values for p in self.points for key, values in self._choices_at(p).items()}

    def cost(self) -> Cost:
        """Multiply-accumulates of the space's networks, counted as :func:`search_space.macs` counts them."""
        return Cost([self._table(point) for point in self.points], self.backbone_macs)

    def _table(self, point: str) -> CostTable:
        choices = self._choices_at(point)
        fixed = {'lightnl_ratio': self.ratios[0], 'lightnl_stride': self.strides[0]}

        def cost(*values):
            chosen = {**fixed, **dict(zip(choices, values, strict=True))}
            if chosen['lightnl'] == ABSENT:
                return 0
            return lightnl_macs(*self.maps[point], chosen['lightnl_ratio'], chosen['lightnl_stride'])

        return CostTable.of({point_label(point, key): values for key, values in choices.items()}, cost)

    def load_backbone(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        """Loads the weights of torchvision's own network; those of LightNL stay as they are.

        Weights for another number of classes are loaded but for the last layer, which stays as it is.

        Args:
            state_dict: of the network without LightNL.

        Returns:
            Names of the last layer's parameters, as torchvision has them, where they are of another number of classes.

        Raises:
            RuntimeError: as :meth:`~torch.nn.Module.load_state_dict`, strictly.
        """
        own_classes, other_classes = (self._plain_shapes(classes) for classes in (self.classes, self.classes + 1))
        left = [
            name
            for name, weight in state_dict.items()
            if own_classes.get(name) != other_classes.get(name) and weight.shape != own_classes[name]
        ]
        weights = {name: weight for name, weight in state_dict.items() if name not in left}
        own = self.network.state_dict()
        kept = {name for name in own if '.lightnl.' in name}
        for point in self._inside_out():
            inside = f'{point}.'
            weights = {
                f'{inside}block.{name[len(inside) :]}' if name.startswith(inside) else name: weight
                for name, weight in weights.items()
            }
        kept |= {name for name in left if name in own}
        self.network.load_state_dict({**weights, **{name: own[name] for name in kept}})
        return left

    def _plain_shapes(self, classes: int) -> dict[str, torch.Size]:
        """Shapes of the weights of torchvision's network with that many classes, by name."""
        with torch.device('meta'):
            network = torchvision.models.get_model(
                self.backbone, weights=None, num_classes=classes, **ARGUMENTS.get(self.backbone, {})
            )
        return {name: weight.shape for name, weight in network.state_dict().items()}

    def extra_oneshot_hooks(self, strategy) -> list:
        """Lets NNI's own one-shot strategies search LightNL's choices."""
        return [MixedLightNL.mutate]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def trace(network: nn.Module, points: Sequence[str], input_size: int) -> tuple[dict[str, list], int]:
    """What the modules ``points`` of ``network`` put out, and the network's MACs; nothing is computed for it.

    Counted: convolutions, matrix products, means over positions (squeeze-excite's pooling, the global pool).

    Returns:
        Name to the shapes of its module's outputs, None where one is not a tensor, for the modules that are run; MACs.
    """
    network = copy.deepcopy(network).to('meta').eval()
    outputs: dict[str, list] = {}
    for point in points:

        def keep(module, args, output, point=point):
            outputs.setdefault(point, []).append(output.shape if isinstance(output, Tensor) else None)

        network.get_submodule(point).register_forward_hook(keep)
    with FlopCounterMode(display=False, custom_mapping=POOLING) as counter, torch.no_grad():
        network(torch.empty(1, 3, input_size, input_size, device='meta'))
    return outputs, counter.get_total_flops() // 2


def _pooling_flops(input_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(input_shape)  # PyTorch counts two operations to a multiply-accumulate


POOLING = {torch.ops.aten.mean: _pooling_flops, torch.ops.aten._adaptive_avg_pool2d: _pooling_flops}


def _feature_map(backbone: str, point: str, outputs: list | None) -> tuple[int, int, int]:
    """``(C, H, W)`` of the one output of the module at ``point``."""
    if outputs is None or len(outputs) > 1:
        times = 'never' if outputs is None else f'{len(outputs)} times'
        raise ValueError(f'{backbone}: LightNL cannot follow {point!r}, which runs {times} in a forward pass, not once')
    shape = outputs[0]
    if shape is None or len(shape) != 4:
        what = 'is not a tensor' if shape is None else f'has the shape {tuple(shape)}'
        raise ValueError(f'{backbone}: LightNL cannot follow {point!r}, whose output {what}, not (N, C, H, W)')
    return tuple(shape[1:])
