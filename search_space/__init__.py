"""Model spaces with LightNL: skeletons, networks and their cost."""

import io
import warnings
from contextlib import redirect_stderr

with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
    # NNI 3.0 warns of every class of torch.nn that is younger than itself. Nothing here uses those. And Gym, where it
    # is installed for NNI's reinforcement learning, says at length that nobody maintains it.
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
