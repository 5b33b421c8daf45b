"""The history of a search: what is told of every epoch, and to whom; and how it ends where a loss is not finite."""

import csv
import logging

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import TensorDataset

from search_space import LightNLSpace, load_skeleton, macs
from strategies import AutoNL, History
from trials.training.evaluator import Lightning, evaluator

SKELETON = load_skeleton('cued')
EPOCHS, WARMUP = 3, 1


def images(count: int, value: float = 0.0) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return TensorDataset(pixels + value, torch.randint(10, (count,), generator=generator))


def small_evaluator(
    callbacks=(), held_out: TensorDataset | None = None, train: TensorDataset | None = None
) -> Lightning:
    return evaluator(
        train or images(32),
        held_out or images(32),
        epochs=EPOCHS,
        batch_size=8,
        learning_rate=0.01,
        weight_decay=0.01,
        label_smoothing=0.0,
        seed=0,
        shuffle_validation=True,
        callbacks=callbacks,
    )


def read(file) -> list[dict[str, str]]:
    with open(file, encoding='utf-8') as lines:
        return list(csv.DictReader(lines))


class Searched:
    """A search in an experiment of NNI's, with a logger of the user's."""

    def __init__(self, folder):
        self.folder, self.reports = folder, []
        pl.seed_everything(0, verbose=False)
        recipe = small_evaluator()
        recipe.trainer = Trainer(
            max_epochs=EPOCHS,
            logger=CSVLogger(folder, name='', version='logger'),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[History(self.reports.append, folder)],
        )
        self.strategy = AutoNL(warmup_epochs=WARMUP)
        experiment = NasExperiment(LightNLSpace(SKELETON), recipe, self.strategy)
        experiment.config.experiment_working_directory = folder / 'experiment'
        experiment.run(port=None)
        (self.sample,) = experiment.export_top_models(formatter='dict')
        experiment.stop()


@pytest.fixture(scope='module')
def searched(tmp_path_factory) -> Searched:
    return Searched(tmp_path_factory.mktemp('searched'))


@pytest.mark.slow
def test_every_epoch_says_every_gate_both_losses_and_the_expected_macs(searched):
    gates = read(searched.folder / 'trajectories.csv')
    thresholds = searched.strategy.oneshot_module.thresholds()
    seen = [(int(row['epoch']), row['label'], int(row['index'])) for row in gates]
    assert seen == [
        (epoch, label, index)
        for epoch in range(1, EPOCHS + 1)
        for label, threshold in thresholds.items()
        for index in range(1, len(threshold.t) + 1)
    ]
    metrics = read(searched.folder / 'metrics.csv')
    assert [int(row['epoch']) for row in metrics] == list(range(1, EPOCHS + 1))
    low, high = macs(SKELETON).range()
    assert [float(row['macs']) for row in metrics[:WARMUP]] == [high] * WARMUP
    assert all(low <= float(row['macs']) <= high for row in metrics)
    assert all(float(row['weight_loss']) > 0 for row in metrics)
    assert [row['threshold_loss'] != '' for row in metrics] == [epoch >= WARMUP for epoch in range(EPOCHS)]


def test_the_last_epoch_is_the_state_that_the_network_is_taken_from(searched):
    gates = [row for row in read(searched.folder / 'trajectories.csv') if int(row['epoch']) == EPOCHS]
    for row in gates:
        threshold = searched.strategy.oneshot_module.thresholds()[row['label']]
        index = int(row['index']) - 1
        assert float(row['norm']) == threshold.norm[index]
        assert float(row['threshold']) == threshold.t[index]
        assert int(row['gate']) == threshold.is_open()[index]
    chosen = {
        row['label']: 'present' if row['gate'] == '1' else 'absent' for row in gates if row['label'][5:] == '/lightnl'
    }
    assert chosen.items() <= searched.sample.items()
    assert chosen


def test_reports_tensorboard_and_the_users_logger_say_the_same(searched):
    assert [report['epoch'] for report in searched.reports] == list(range(1, EPOCHS + 1))
    events = EventAccumulator(str(searched.folder / 'tensorboard'), size_guidance={'scalars': 0}).Reload()
    logged = read(searched.folder / 'logger' / 'metrics.csv')
    for name in ('macs', 'weight_loss', 'threshold_loss', 'gate/row01/lightnl', 'norm/row02/lightnl_ratio'):
        reported = {report['epoch']: report[name] for report in searched.reports if name in report}
        assert reported
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(reported)
        assert [float(row[name]) for row in logged if row.get(name)] == pytest.approx(list(reported.values()))


def run_search(recipe: Lightning) -> AutoNL:
    pl.seed_everything(0, verbose=False)
    strategy = AutoNL(warmup_epochs=WARMUP)
    strategy(RawFormatModelSpace(LightNLSpace(SKELETON), recipe), SequentialExecutionEngine())
    return strategy


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_said_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / 'file').write_text('in the way')
    history = History(folder=tmp_path / 'file' / 'history')
    with caplog.at_level(logging.WARNING, logger='strategies.autonl.history'):
        run_search(small_evaluator([history]))
    assert [metrics['epoch'] for metrics in history.epochs] == list(range(1, EPOCHS + 1))
    said = [record.message.split(':')[0] for record in caplog.records if record.name == 'strategies.autonl.history']
    assert said == ['the history of epoch 1 is not written']


def overflowing() -> TensorDataset:
    return images(32, value=3e38)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'train': overflowing()}, r'the weight loss is NaN at step 1 \(epoch 1, batch 1 of 4\)'),
        ({'held_out': overflowing()}, r'the threshold loss is NaN at step 5 \(epoch 2, batch 1 of 4\)'),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_search_before_it_reaches_weights_or_thresholds(parts, message):
    kept = []

    class Keep(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            kept.extend(parameter.detach().clone() for parameter in pl_module.parameters())

    with pytest.raises(FloatingPointError, match=message + r'; learning rates: 0.\d+, 1; last checkpoint: none'):
        run_search(small_evaluator([Keep()], **parts))
    assert all(parameter.isfinite().all() for parameter in kept)
    assert kept
