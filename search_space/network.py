"""The model space of a skeleton, and the modules that its rows are read into."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import nni
import torch
from nni.mutable import Mutable, label_scope
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    ParametrizedModule,
)
from torch import Tensor, nn

from .lightnl.block import LightNL
from .lightnl.macs import squeeze_channels
from .padding import padding_of, strided_pad
from .skeleton import ABSENT, PRESENT, Row, Sample, Skeleton, row_name

__all__ = ['InvertedResidual', 'LightNLSpace', 'MutableLightNL', 'MutableSqueezeExcite', 'SqueezeExcite', 'build']

ACTIVATIONS = {'swish': nn.SiLU, 'relu6': nn.ReLU6}


class MutableLightNL(ParametrizedModule, LightNL, wraps=LightNL):
    """:class:`LightNL` whose ``ratio`` and ``stride`` may be choices (``nni.choice``, NNI 3's ``ValueChoice``)."""


class SqueezeExcite(nn.Module):
    """``x · σ(W₂ swish(W₁ mean(x) + b₁) + b₂)``, `(N, C, H, W)` to the same; the identity at ratio 0.

    Source: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018).

    Args:
        channels: C.
        in_channels: what ``ratio`` is taken of: the input channels of the row, not C.
        ratio: hidden channels are ``round(ratio · in_channels)``, at least 1; at 0 there is no squeeze-excite.
    """

    def __init__(self, channels: int, in_channels: int, ratio: float):
        super().__init__()
        self.channels, self.hidden = channels, squeeze_channels(in_channels, ratio)
        if self.hidden:
            self.reduce = nn.Conv2d(channels, self.hidden, 1)
            self.expand = nn.Conv2d(self.hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.hidden:
            return x
        return x * self.scale(x.mean((2, 3), keepdim=True))

    def scale(self, mean: Tensor) -> Tensor:
        """What ``x`` is multiplied by, given its mean; both are `(N, C, 1, 1)`."""
        return torch.sigmoid(self.expand(nn.functional.silu(self.reduce(mean))))

    def extra_repr(self) -> str:
        return f'{self.channels}, hidden={self.hidden}'


class MutableSqueezeExcite(ParametrizedModule, SqueezeExcite, wraps=SqueezeExcite):
    """:class:`SqueezeExcite` whose ``channels`` and ``ratio`` may be choices."""


def row_choice(index: int, key: str, row: Row) -> Any:
    """The row's one value of ``key``, or ``nni.choice`` over its candidates."""
    candidates = row.candidates(key)
    if len(candidates) == 1:
        return candidates[0]
    with label_scope(row_name(index)):
        return nni.choice(key, list(candidates))


def _make(mutable_cls: type, fixed_cls: type, **arguments) -> nn.Module:
    """``mutable_cls`` where an argument is a choice, else ``fixed_cls``, which costs a supernet nothing."""
    searched = any(isinstance(value, Mutable) for value in arguments.values())
    return (mutable_cls if searched else fixed_cls)(**arguments)


def _layer_choice(index: int, key: str, row: Row, candidates: dict[str, Any]) -> nn.Module:
    """The module of the row's one value of ``key``, or a ``LayerChoice`` in the order of the row's candidates."""
    names = row.candidates(key)
    if len(names) == 1:
        return candidates[names[0]]()
    modules = OrderedDict((name, candidates[name]()) for name in names)
    with label_scope(row_name(index)):
        return LayerChoice(modules, label=key)


class InvertedResidual(nn.Module):
    """One row: 1×1 expansion, depthwise convolution, squeeze-excite, 1×1 projection, LightNL, residual sum.

    LightNL sits on the projected features, before the sum; the sum is there when the row keeps its shape.

    Source: the paper's section 3.3, and its released networks.

    Args:
        skeleton: that the row is of.
        index: which row, from 0.
    """

    def __init__(self, skeleton: Skeleton, index: int):
        super().__init__()
        self.skeleton, self.index = skeleton, index
        row, in_channels = skeleton.rows[index], skeleton.in_channels(index)
        activation = ACTIVATIONS[skeleton.activation]
        bn = {'eps': skeleton.bn_eps, 'momentum': skeleton.bn_momentum}
        kernel, expansion = row_choice(index, 'kernel', row), row_choice(index, 'expansion', row)
        hidden = in_channels * expansion
        conv = partial(_make, MutableConv2d, nn.Conv2d, bias=False)
        norm = partial(_make, MutableBatchNorm2d, nn.BatchNorm2d, **bn)

        body = OrderedDict()
        if row.candidates('expansion') != (1,):
            body['expand'] = conv(in_channels=in_channels, out_channels=hidden, kernel_size=1)
            body['expand_bn'] = norm(num_features=hidden)
            body['expand_act'] = activation()
        pad = strided_pad(skeleton, row.stride, row.candidates('kernel'))
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
        body['depthwise_act'] = activation()
        if row.candidates('se') != (0,):
            body['se'] = _make(
                MutableSqueezeExcite,
                SqueezeExcite,
                channels=hidden,
                in_channels=in_channels,
                ratio=row_choice(index, 'se', row),
            )
        body['project'] = conv(in_channels=hidden, out_channels=row.channels, kernel_size=1)
        body['project_bn'] = nn.BatchNorm2d(row.channels, **bn)
        self.body = nn.Sequential(body)
        self.lightnl = _layer_choice(
            index,
            'lightnl',
            row,
            {
                ABSENT: nn.Identity,
                PRESENT: lambda: _make(
                    MutableLightNL,
                    LightNL,
                    channels=row.channels,
                    ratio=row_choice(index, 'lightnl_ratio', row),
                    stride=row_choice(index, 'lightnl_stride', row),
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
        pad = strided_pad(skeleton, skeleton.stem_stride, [3])
        stem = nn.Conv2d(3, skeleton.stem_channels, 3, skeleton.stem_stride, padding=padding_of(3, pad), bias=False)
        layers = (stem, nn.BatchNorm2d(skeleton.stem_channels, **bn), activation())
        self.stem = nn.Sequential(OrderedDict({**pad, **{str(i): layer for i, layer in enumerate(layers)}}))
        self.rows = nn.Sequential(
            OrderedDict(
                (
                    row_name(index),
                    _layer_choice(
                        index,
                        'presence',
                        row,
                        {ABSENT: nn.Identity, PRESENT: partial(InvertedResidual, skeleton, index)},
                    ),
                )
                for index, row in enumerate(skeleton.rows)
            )
        )
        head = nn.Conv2d(skeleton.rows[-1].channels, skeleton.head_channels, 1, bias=False)
        self.head = nn.Sequential(head, nn.BatchNorm2d(skeleton.head_channels, **bn), activation())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(skeleton.dropout)
        self.classifier = nn.Linear(skeleton.head_channels, skeleton.classes)

    def cost(self):
        """:func:`search_space.macs` of the skeleton: what a search of the space keeps low."""
        from .cost.macs import macs

        return macs(self.skeleton)

    def extra_oneshot_hooks(self, strategy) -> list:
        """Lets NNI's own one-shot strategies search the choices of LightNL, squeeze-excite and the convolutions."""
        from .mixed import MixedBiaslessConv2d, MixedLightNL, MixedSqueezeExcite

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
