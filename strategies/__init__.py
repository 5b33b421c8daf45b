"""Search strategies: AutoNL's own, and what lets NNI's strategies share one experiment with it."""

__all__ = ['AutoNL', 'History']
EARLIER = {'Course': 'History'}
"""Names of 0.1, and what they are called now."""


def __getattr__(name: str):
    if EARLIER.get(name, name) in __all__:  # not at import: the tuner has to start without torch and Lightning
        from .autonl.history import History
        from .autonl.strategy import AutoNL

        return {'AutoNL': AutoNL, 'History': History}[EARLIER.get(name, name)]
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
