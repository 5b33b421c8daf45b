"""Search strategies: AutoNL's own, and what lets NNI's strategies share one experiment with it."""

__all__ = ['AutoNL', 'Course']


def __getattr__(name: str):
    if name in __all__:  # not at import: the tuner has to start without torch and Lightning
        from .autonl.history import Course
        from .autonl.strategy import AutoNL

        return {'AutoNL': AutoNL, 'Course': Course}[name]
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
