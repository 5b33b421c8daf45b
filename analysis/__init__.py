"""Analysis of experiments: from NNI's records to data frames and tables."""

from .experiment import Experiment, find_experiment
from .tables import comparison, trials

__all__ = ['Experiment', 'comparison', 'find_experiment', 'trials']
