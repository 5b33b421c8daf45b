"""The main job at a small budget, and what every test needs."""

from __future__ import annotations

import gc
import logging
import os
import signal

import pytest
import torch
import yaml
from nnictl_experiment import ROOT

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # before Triton is imported: kernels for GPUs are tested in its interpreter

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # until all tests are collected: what they import is no garbage
logging.raiseExceptions = False  # a strategy's thread may outlive its test, and the stream that the test's log went to


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope='session')
def configuration() -> dict:
    """``experiment.yaml`` at the smallest budget that has every stage of every strategy."""
    configuration = yaml.safe_load((ROOT / 'experiment.yaml').read_text())
    arguments = configuration['tuner']['classArgs']
    for recipe in ('search', 'retrain'):
        arguments[recipe].update({'epochs': 1, 'dataset/canvases': 640})
    arguments['strategies']['autonl']['warmup_epochs'] = 0
    arguments['strategies']['autonl'] = arguments['strategies'].pop('autonl')  # last: its search is not trial 0
    arguments.update(budget=2.6, test_runs=1)  # a search of 1.6 epochs and a retraining of 1
    return configuration
