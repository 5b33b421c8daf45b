"""How a benchmark says what became of a goal."""

__all__ = ['met']


def met(is_met: bool) -> str:
    return 'met' if is_met else 'missed'
