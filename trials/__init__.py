"""Trials: what NNI's experiment manager runs."""
