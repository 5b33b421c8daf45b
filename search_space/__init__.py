"""Model spaces with LightNL: skeletons, networks and their cost."""

import warnings

with warnings.catch_warnings():
    # NNI 3.0 warns of every class of torch.nn that is younger than itself. Nothing here uses those.
    warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module', category=RuntimeWarning)
    import nni.nas.nn.pytorch
    import nni.nas.strategy  # noqa: F401 - before nni.nas.oneshot, which would leave it without its one-shot strategies

from .backbones import BackboneSpace
from .cost import Cost, macs, params
from .lightnl import LightNL, NonLocal
from .named_networks import load_network, named_networks
from .network import LightNLSpace, build
from .skeleton import ABSENT, PRESENT, Row, Skeleton, load_skeleton, nni_search_space, shipped_skeletons

__all__ = [
    'ABSENT',
    'PRESENT',
    'BackboneSpace',
    'Cost',
    'LightNL',
    'LightNLSpace',
    'NonLocal',
    'Row',
    'Skeleton',
    'build',
    'load_network',
    'load_skeleton',
    'macs',
    'named_networks',
    'nni_search_space',
    'params',
    'shipped_skeletons',
]
