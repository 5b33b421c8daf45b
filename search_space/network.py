"""The model space of a skeleton, and the modules that its rows are read into."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import nni
from nni.mutable import Mutable, label_scope
from torch import Tensor, nn

from .cost.macs import macs
from .lightnl.block import LightNL
from .mixed import MixedBiaslessConv2d, MixedLightNL, MixedSqueezeExcite
from .mutable import MutableLightNL, MutableSqueezeExcite, SqueezeExcite
from .nni_nas import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d
from .padding import padding_of, strided_pad
from .skeleton import ABSENT, LAYER_KEYS, PRESENT, Row, Sample, Skeleton, row_name

__all__ = ['InvertedResidual', 'LightNLSpace', 'build']

ACTIVATIONS = {'swish': nn.SiLU, 'relu6': nn.ReLU6}


def row_choice(name: str, key: str, row: Row) -> Any:
    """The row's one value of ``key``, or ``nni.choice`` over its candidates, labelled ``name/key``."""
    candidates = row.candidates(key)
    if len(candidates) == 1:
        return candidates[0]
    with label_scope(name):
        return nni.choice(key, list(candidates))


def _make(mutable_cls: type, fixed_cls: type, **arguments) -> nn.Module:
    """``mutable_cls`` where an argument is a choice, else ``fixed_cls``, which costs a supernet nothing."""
    searched = any(isinstance(value, Mutable) for value in arguments.values())
    return (mutable_cls if searched else fixed_cls)(**arguments)


def _layer_choice(name: str, key: str, row: Row, candidates: dict[str, Any]) -> nn.Module:
    """The module of the row's one value of ``key``, or a ``LayerChoice`` in the order of the row's candidates."""
    names = row.candidates(key)
    if len(names) == 1:
        return candidates[names[0]]()
    modules = OrderedDict((candidate, candidates[candidate]()) for candidate in names)
    with label_scope(name):
        return LayerChoice(modules, label=key)


class InvertedResidual(nn.Module):
    """One row: 1×1 expansion, depthwise convolution, squeeze-excite, 1×1 projection, LightNL, residual sum.

    LightNL sits on the projected features, before the sum; the sum is there when the row keeps its shape.

    Source: the paper's section 3.3, and its released networks.

    Args:
        row: what it is made of.
        in_channels: of its input.
        name: what the labels of its choices start with.
        activation, bn_eps, bn_momentum, lightnl_scale, padding: as :class:`.skeleton.Skeleton` has them, which gives
            them to all of its rows (:meth:`.skeleton.Skeleton.layers`).
    """

    def __init__(
        self,
        row: Row,
        in_channels: int,
        name: str = 'row',
        *,
        activation: str = Skeleton.activation,
        bn_eps: float = Skeleton.bn_eps,
        bn_momentum: float = Skeleton.bn_momentum,
        lightnl_scale: float = Skeleton.lightnl_scale,
        padding: str = Skeleton.padding,
    ):
        super().__init__()
        self.row, self.in_channels, self.name = row, in_channels, name
        values = (activation, bn_eps, bn_momentum, lightnl_scale, padding)
        self.layers = dict(zip(LAYER_KEYS, values, strict=True))
        act, bn = ACTIVATIONS[activation], {'eps': bn_eps, 'momentum': bn_momentum}
        kernel, expansion = row_choice(name, 'kernel', row), row_choice(name, 'expansion', row)
        hidden = in_channels * expansion
        conv = partial(_make, MutableConv2d, nn.Conv2d, bias=False)
        norm = partial(_make, MutableBatchNorm2d, nn.BatchNorm2d, **bn)

        body = OrderedDict()
        if row.candidates('expansion') != (1,):
            body['expand'] = conv(in_channels=in_channels, out_channels=hidden, kernel_size=1)
            body['expand_bn'] = norm(num_features=hidden)
            body['expand_act'] = act()
        pad = strided_pad(padding, row.stride, row.candidates('kernel'))
        body.update(pad)
        body['depthwise'] = conv(
            in_channels=hidden,
            out_channels=hidden,
            kernel_size=kernel,
            stride=row.stride,
            padding=padding_of(kernel, pad),
            groups=hidden,
        )
        body['depthwise_bn'] = norm(num_features=hidden)
        body['depthwise_act'] = act()
        if row.candidates('se') != (0,):
            body['se'] = _make(
                MutableSqueezeExcite,
                SqueezeExcite,
                channels=hidden,
                in_channels=in_channels,
                ratio=row_choice(name, 'se', row),
            )
        body['project'] = conv(in_channels=hidden, out_channels=row.channels, kernel_size=1)
        body['project_bn'] = nn.BatchNorm2d(row.channels, **bn)
        self.body = nn.Sequential(body)
        self.lightnl = _layer_choice(
            name,
            'lightnl',
            row,
            {
                ABSENT: nn.Identity,
                PRESENT: lambda: _make(
                    MutableLightNL,
                    LightNL,
                    channels=row.channels,
                    ratio=row_choice(name, 'lightnl_ratio', row),
                    stride=row_choice(name, 'lightnl_stride', row),
                    scale=lightnl_scale,
                    **bn,
                ),
            },
        )
        self.residual = row.keeps_shape(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        z = self.lightnl(self.body(x))
        return x + z if self.residual else z


class LightNLSpace(ModelSpace):
    """The model space of a skeleton: `(N, 3, H, W)` images to `(N, classes)` logits.

    >>> space = LightNLSpace(load_skeleton('cued'))
    >>> network = space.freeze({label: candidates[0] for label, candidates in space.skeleton.choices().items()})

    ``space.simplify()`` has the labels and candidates of ``skeleton.choices()``.

    Args:
        skeleton: the table of rows.
    """

    def __init__(self, skeleton: Skeleton):
        super().__init__()
        self.skeleton = skeleton
        activation = ACTIVATIONS[skeleton.activation]
        bn = {'eps': skeleton.bn_eps, 'momentum': skeleton.bn_momentum}
        pad = strided_pad(skeleton.padding, skeleton.stem_stride, [3])
        stem = nn.Conv2d(3, skeleton.stem_channels, 3, skeleton.stem_stride, padding=padding_of(3, pad), bias=False)
        layers = (stem, nn.BatchNorm2d(skeleton.stem_channels, **bn), activation())
        self.stem = nn.Sequential(OrderedDict({**pad, **{str(i): layer for i, layer in enumerate(layers)}}))
        rows = OrderedDict()
        for index, row in enumerate(skeleton.rows):
            name = row_name(index)
            make = partial(InvertedResidual, row, skeleton.in_channels(index), name, **skeleton.layers())
            rows[name] = _layer_choice(name, 'presence', row, {ABSENT: nn.Identity, PRESENT: make})
        self.rows = nn.Sequential(rows)
        head = nn.Conv2d(skeleton.rows[-1].channels, skeleton.head_channels, 1, bias=False)
        self.head = nn.Sequential(head, nn.BatchNorm2d(skeleton.head_channels, **bn), activation())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(skeleton.dropout)
        self.classifier = nn.Linear(skeleton.head_channels, skeleton.classes)

    def cost(self):
        """:func:`search_space.macs` of the skeleton: what a search of the space keeps low."""
        return macs(self.skeleton)

    def extra_oneshot_hooks(self, strategy) -> list:
        """Lets NNI's own one-shot strategies search the choices of LightNL, squeeze-excite and the convolutions."""
        return [MixedLightNL.mutate, MixedSqueezeExcite.mutate, MixedBiaslessConv2d.mutate]

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.head(self.rows(self.stem(x))))
        return self.classifier(self.dropout(x.flatten(1)))


def build(skeleton: Skeleton, sample: Sample) -> LightNLSpace:
    """The network of ``sample``, freshly initialised, with nothing left to choose.

    Raises:
        ValueError: as :meth:`Skeleton.check_sample`.
    """
    return LightNLSpace(skeleton.fix(sample))
