"""Model spaces with LightNL: skeletons, networks and their cost."""

from importlib import import_module

from .cost.macs import Cost, macs, params
from .named_networks import load_network, named_networks
from .skeleton import ABSENT, PRESENT, Row, Skeleton, nni_search_space
from .skeleton_file import load_skeleton, parse_skeleton, shipped_skeletons

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
    'parse_skeleton',
    'shipped_skeletons',
]

_MODULES = {
    'BackboneSpace': 'backbones',
    'LightNL': 'lightnl.block',
    'LightNLSpace': 'network',
    'NonLocal': 'lightnl.block',
    'build': 'network',
}
"""Where the names are that need torch and NNI: imported on first use, so that what needs neither starts at once."""


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULES[name]}', __name__), name)
