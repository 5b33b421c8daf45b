"""Search strategies: AutoNL's own, and what lets NNI's strategies share one experiment with it."""

import search_space  # noqa: F401 - first, for the order in which it imports NNI

from .autonl import AutoNL

__all__ = ['AutoNL']
