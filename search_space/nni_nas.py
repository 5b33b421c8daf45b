"""What of NNI's NAS this project uses, imported quietly, and in the order that NNI itself needs.

The only file that imports from ``nni.nas``: whoever needs a name of it takes it from here.
"""

import io
import warnings
from contextlib import redirect_stderr

with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
    # NNI 3.0 warns of every class of torch.nn that is younger than itself. Nothing here uses those. And Gym, where it
    # is installed for NNI's reinforcement learning, says at length that nobody maintains it.
    warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module', category=RuntimeWarning)
    import nni.nas.strategy  # noqa: F401 - before nni.nas.oneshot, which would leave it without its one-shot strategies
    from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
    from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, ModelEvent, TrainingEndEvent
    from nni.nas.nn.pytorch import (
        LayerChoice,
        ModelSpace,
        MutableBatchNorm2d,
        MutableConv2d,
        MutableModule,
        ParametrizedModule,
    )
    from nni.nas.nn.pytorch.base import recursive_freeze
    from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
    from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
    from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet, no_default_hook
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedConv2d, MixedOperation
    from nni.nas.profiler import Profiler
    from nni.nas.space import ExecutableModelSpace, ModelStatus, RawFormatModelSpace, SimplifiedModelSpace
    from nni.nas.strategy import DARTS, GumbelDARTS, RandomOneShot, RegularizedEvolution
    from nni.nas.strategy.base import Strategy

__all__ = [
    'DARTS',
    'BaseSuperNetModule',
    'DartsLightningModule',
    'DataLoader',
    'ExecutableModelSpace',
    'ExecutionEngine',
    'ExpectationProfilerPenalty',
    'FinalMetricEvent',
    'GumbelDARTS',
    'LayerChoice',
    'Lightning',
    'LightningModule',
    'MixedConv2d',
    'MixedOperation',
    'ModelEvent',
    'ModelSpace',
    'ModelStatus',
    'MutableBatchNorm2d',
    'MutableConv2d',
    'MutableModule',
    'OneShotStrategy',
    'ParametrizedModule',
    'Profiler',
    'RandomOneShot',
    'RawFormatModelSpace',
    'RegularizedEvolution',
    'SequentialExecutionEngine',
    'SimplifiedModelSpace',
    'Strategy',
    'Trainer',
    'TrainingEndEvent',
    'is_supernet',
    'no_default_hook',
    'recursive_freeze',
]
