"""One trial on several devices: a process for each, on its part of every batch, the first of which is the trial's own.

Lightning's DDP averages the gradients. What else depends on the whole batch is averaged here (batch normalization) and
in :mod:`strategies.gated_lightnl` (the norms of a search), so that the result is that of one process up to numerical
noise. That holds where nothing is drawn at random within a step: dropout draws other numbers in each process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from strategies.processes import mean_over_processes, process_count

from .checkpoint import EpochCheckpoint

__all__ = ['SyncedBatchNorm', 'devices_of_trainer', 'other_processes']


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the batch of all processes, which must have parts of one size.

    With weight, bias and momentum. What :class:`torch.nn.SyncBatchNorm` does on GPUs; it has no kernel for CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or process_count() == 1:
            return super().forward(x)
        precise = x.to(self.running_mean.dtype)  # in mixed precision it comes in the lower one
        mean = mean_over_processes(precise.mean((0, 2, 3)))
        centred = precise - mean[:, None, None]
        variance = mean_over_processes(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            count = process_count() * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _SyncBatchNormOnCpu(LayerSync):
    """Batch normalizations stay the modules that they are, with another forward pass."""

    def apply(self, model):
        return self._as(model, nn.BatchNorm2d, SyncedBatchNorm)

    def revert(self, model):
        return self._as(model, SyncedBatchNorm, nn.BatchNorm2d)

    def _as(self, model, old, new):
        for module in model.modules():
            if type(module) is old:
                module.__class__ = new
        return model


def devices_of_trainer(devices: int, all_weights_in_every_step: bool) -> dict[str, Any]:
    """Arguments of Lightning's ``Trainer``: GPUs where there are, otherwise processes.

    Args:
        devices: how many.
        all_weights_in_every_step: has every backward pass a gradient for every weight? In a search it has not.

    Raises:
        ValueError: there are GPUs, but not as many.
    """
    if devices == 1:
        return {'accelerator': 'auto', 'devices': 1}
    on_gpu = torch.cuda.is_available()
    if on_gpu and torch.cuda.device_count() < devices:
        raise ValueError(f'trial parameter devices is {devices}, but the GPUs here are {torch.cuda.device_count()}')
    return {
        'accelerator': 'gpu' if on_gpu else 'cpu',
        'devices': devices,
        # Buffers are the same in all processes: what they are made of is averaged.
        'strategy': DDPStrategy(find_unused_parameters=not all_weights_in_every_step, broadcast_buffers=False),
        'use_distributed_sampler': False,
        'sync_batchnorm': on_gpu,
        'plugins': [LightningEnvironment(), *([] if on_gpu else [_SyncBatchNormOnCpu()])],
    }


@contextlib.contextmanager
def other_processes(
    parameters: dict[str, Any], devices: int, checkpoint: EpochCheckpoint | None = None
) -> Iterator[None]:
    """While this process runs the trial of ``parameters``, the others run it too, and report and write nothing.

    They are started here and not by Lightning, which would repeat the command of the trial: NNI would be asked again
    for parameters. Where one of them fails, this process ends as well, with status 1; where this one ends, they do.

    Args:
        parameters: of the trial.
        devices: how many processes there are, with this one.
        checkpoint: of the trial; they go on from it too.
    """
    if devices == 1:
        yield
        return
    own = {key: value for key, value in os.environ.items() if not key.startswith('NNI_')}
    together = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(_free_port()), 'WORLD_SIZE': str(devices)}
    processes = []
    before = dict(os.environ)
    try:
        for rank in range(1, devices):
            process = subprocess.Popen(
                [sys.executable, '-m', 'trials.distributed'],
                env={**own, **together, 'LOCAL_RANK': str(rank)},
                stdin=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            threading.Thread(target=_end_with, args=(process, rank), daemon=True).start()
            path = str(checkpoint.path) if checkpoint else None
            print(json.dumps({'parameters': parameters, 'checkpoint': path}), file=process.stdin, flush=True)
        os.environ.update(together, LOCAL_RANK='0')
        yield
        for process in processes:
            process.wait()
    finally:
        os.environ.clear()
        os.environ.update(before)
        for process in processes:
            process.kill()
            process.stdin.close()


def _end_with(process: subprocess.Popen, rank: int) -> None:
    status = process.wait()
    if status > 0:  # and not killed, as this process does with those that it does not need any more
        print(f'python -m trials: process {rank} of the trial ended with status {status}', file=sys.stderr, flush=True)
        os._exit(1)  # the main thread may be waiting for that process, where no exception reaches it


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _main() -> None:
    """One of the other processes: what to run comes over standard input, which is open while the first one lives."""
    import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
    from trials.parameters import TrialParameters
    from trials.train import run_trial

    for name in ('pytorch_lightning', 'lightning_fabric', 'nni.nas.evaluator'):
        logging.getLogger(name).setLevel(logging.ERROR)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    checkpoint = EpochCheckpoint(Path(task['checkpoint'])) if task['checkpoint'] else None
    with contextlib.suppress(FloatingPointError):  # all processes see it, and the first one says so
        run_trial(TrialParameters.from_flat(task['parameters']), lambda metrics: None, checkpoint=checkpoint)


def _end_with_the_first() -> None:
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read, which would hold a lock that the interpreter wants at its end
    os._exit(1)


if __name__ == '__main__':
    _main()
