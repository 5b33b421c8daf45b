"""Seeds of everything that is random in an experiment, derived from the one that its user gives."""

from __future__ import annotations

import hashlib

from search_space.rules import Rule, whole

__all__ = ['SEED', 'derived_seed']

SEED = Rule(whole(0, 2**63).valid, 'a whole number from 0 to 2**63')
"""What a user may give."""


def derived_seed(seed: int, stage: str, index: int = 0) -> int:
    """The seed of the ``index``-th thing of a ``stage``, from 0 to 2³² − 1: a hash, so that no two stages' seeds meet.

    2³² − 1 is the largest seed that NumPy's legacy generator, and so NNI's strategies, take.
    """
    content = f'{seed}/{stage}/{index}'.encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], 'big')
