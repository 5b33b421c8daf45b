"""Imports NNI's NAS, once and before anything that needs it: quietly, and in the order that NNI itself needs."""

import io
import warnings
from contextlib import redirect_stderr

with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
    # NNI 3.0 warns of every class of torch.nn that is younger than itself. Nothing here uses those. And Gym, where it
    # is installed for NNI's reinforcement learning, says at length that nobody maintains it.
    warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module', category=RuntimeWarning)
    import nni.nas.nn.pytorch
    import nni.nas.strategy  # noqa: F401 - before nni.nas.oneshot, which would leave it without its one-shot strategies
