"""Search strategies: AutoNL's own, and what lets NNI's strategies share one experiment with it."""

from .autonl import AutoNL

__all__ = ['AutoNL']
