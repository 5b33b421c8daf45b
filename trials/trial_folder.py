"""What the files that a trial leaves in its folder are called."""

from __future__ import annotations

__all__ = ['FAILURE', 'RECORD', 'SKELETON', 'WEIGHTS']

RECORD = 'trial.json'
"""Of a trial that has ended: its ``parameters`` and its ``result``."""

WEIGHTS = 'network.pt'
"""The ``state_dict`` of the network that it trained or found."""

SKELETON = 'skeleton.yaml'
"""The skeleton of the network, where the folder holds it itself."""

FAILURE = 'failure.json'
"""Why a trial failed: ``type`` of the error, and ``error``, one line."""
