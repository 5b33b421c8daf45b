"""The networks that a search returns: their statistics, what is said of them, and that a setting means the same."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.plugins import MixedPrecision
from torch.utils.data import TensorDataset

from search_space import BackboneSpace, LightNLSpace, load_skeleton, macs
from strategies import AutoNL
from strategies.autonl.batch_statistics import estimated_statistics, statistics_of
from trials.training.evaluator import Classifier, evaluator, loader


def images(count: int, size: int = 16) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        3 * torch.randn(count, 3, size, size, generator=generator) + 1,
        torch.randint(10, (count,), generator=generator),
    )


def search(
    strategy: AutoNL, space=None, count: int = 160, batch_size: int = 16, epochs: int = 2, callbacks=()
) -> AutoNL:
    """A finished search."""
    pl.seed_everything(0, verbose=False)
    searching = evaluator(
        images(count),
        images(count),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.005,
        weight_decay=0.01,
        label_smoothing=0.0,
        seed=0,
        shuffle_validation=True,
        callbacks=callbacks,
    )
    space = space or LightNLSpace(load_skeleton('cued'))
    strategy(RawFormatModelSpace(space, searching), SequentialExecutionEngine())
    return strategy


def resnet() -> BackboneSpace:
    return BackboneSpace('resnet18', points=['layer1.1', 'layer2.1'], classes=10, input_size=16)


@pytest.mark.parametrize('budgets', [None, [1.62e6, 1.7e6, 1.66e6]])
@pytest.mark.parametrize('make_space', [lambda: LightNLSpace(load_skeleton('cued')), resnet], ids=['cued', 'resnet18'])
@pytest.mark.slow
def test_every_network_found_has_the_statistics_of_its_own_on_training_data(make_space, budgets):
    space = make_space()
    low, high = space.cost().range()
    budgets = budgets and [low + share * (high - low) for share in (0.2, 0.9, 0.5)]
    strategy = search(AutoNL(warmup_epochs=1, target_macs=budgets), space, count=32, batch_size=32, epochs=4)
    models = list(strategy.list_models(limit=None))
    assert len(models) == len(budgets or [None])
    for model in models:
        network = model.executable_model()
        assert network is model.executable_model()
        anew = copy.deepcopy(network)
        with torch.no_grad(), estimated_statistics(anew):
            anew(images(32).tensors[0])  # all of it is one batch, whose order says nothing
        expected = statistics_of(anew)
        for name, value in statistics_of(network).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('make_space', [lambda: LightNLSpace(load_skeleton('cued')), resnet], ids=['cued', 'resnet18'])
@pytest.mark.slow
def test_the_supernet_is_the_network_of_the_largest_budget_with_the_same_statistics(make_space):
    space = make_space()
    low, high = space.cost().range()
    strategy = search(AutoNL(warmup_epochs=1, target_macs=[low + s * (high - low) for s in (0.5, 0.9)]), space)
    (model,) = strategy.list_models()
    assert strategy.oneshot_module.selected[1] == model.sample
    x = images(4).tensors[0]
    with torch.no_grad():
        logits = model.executable_model().eval()(x)
        torch.testing.assert_close(strategy.supernet.eval()(x), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_nni_exports_is_that_network(tmp_path):
    pl.seed_everything(0, verbose=False)
    recipe = {'epochs': 2, 'batch_size': 8, 'learning_rate': 0.01, 'weight_decay': 0.01, 'label_smoothing': 0.0}
    searching = evaluator(images(32), images(32), **recipe, seed=0, shuffle_validation=True)
    strategy = AutoNL(warmup_epochs=1, target_macs=[1.62e6, 1.7e6])
    experiment = NasExperiment(LightNLSpace(load_skeleton('cued')), searching, strategy)
    experiment.config.experiment_working_directory = tmp_path
    experiment.run(port=None)
    networks = experiment.export_top_models(top_k=2, formatter='instance')
    experiment.stop()
    models = list(strategy.list_models(limit=None))
    for network, model in zip(networks, models, strict=True):
        expected = statistics_of(model.executable_model())
        assert all(torch.equal(value, expected[name]) for name, value in statistics_of(network).items())


@pytest.mark.parametrize('precision', ['32', 'bf16-mixed', '16-mixed'])
@pytest.mark.slow
def test_gradients_are_clipped_to_the_norm_that_is_asked_for_in_every_precision(precision):
    seen = {'weights': [], 'thresholds': []}

    class Look(pl.Callback):
        def on_train_start(self, trainer, module):
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(self.after_step)

        def after_step(self, optimizer, *_):
            gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
            of = 'thresholds' if getattr(optimizer, 'is_arch_optimizer', False) else 'weights'
            seen[of].append(torch.nn.utils.get_total_norm(gradients).item())

    pl.seed_everything(0, verbose=False)
    plugins = {'precision': precision}
    if precision == '16-mixed':  # on a CPU Lightning would take bf16-mixed in its place
        scaler = torch.amp.GradScaler('cpu', init_scale=2.0**12)
        plugins = {'plugins': [MixedPrecision('16-mixed', 'cpu', scaler=scaler)]}
    trainer = Trainer(
        max_epochs=2, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Look()], **plugins,
    )  # fmt: skip
    batches = [loader(images(32), 8, seed) for seed in (0, 1)]
    searching = Lightning(Classifier(0.005, 0.01, 0.0), trainer, *batches)
    strategy = AutoNL(warmup_epochs=1, gradient_clip_val=0.5)
    strategy(RawFormatModelSpace(LightNLSpace(load_skeleton('cued')), searching), SequentialExecutionEngine())
    assert seen['weights'][0] == pytest.approx(0.5, rel=1e-2)
    assert max(seen['weights']) < 0.51
    assert len(seen['weights']) == 8
    assert len(seen['thresholds']) == 4
    assert all(
        0 < norm < 20 for norm in seen['thresholds']
    )  # those of a scaled loss would be thousands of times as large


@pytest.mark.slow
def test_a_setting_means_the_same_at_four_and_sixteen_times_the_steps():
    # From a scale of 1 the search of 16 threshold steps takes λ to its bound, where it cannot be compared.
    skeleton = dataclasses.replace(load_skeleton('cued'), lightnl_scale=0.0)
    ends = []
    for times in (1, 4, 16):
        pl.seed_everything(0, verbose=False)
        strategy = AutoNL(warmup_epochs=2, target_macs=macs(skeleton).range()[0], margin=2.0, drawn_share=0.0)
        gates = []

        class Learned(pl.Callback):
            def on_train_batch_end(self, trainer, module, *_, gates=gates):
                gates[:] = [{**module.export()}, module.objective.cost_weight.item()]

        search(strategy, LightNLSpace(skeleton), 32 * times, batch_size=8, epochs=6, callbacks=[Learned()])
        ends.append((skeleton.canonical(gates[0]), gates[1]))
    networks, weights = zip(*ends)
    assert networks[0] == networks[1] == networks[2]
    assert max(weights) < 2 * min(weights)
    assert min(weights) > 1.5  # it had to climb from 1, and is not at its bound
    assert max(weights) < 10


@pytest.mark.parametrize(('every', 'steps'), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (4, [0, 4]), (9, [0])])
def test_after_warm_up_thresholds_move_with_every_so_many_a_weight_step(every, steps):
    moved, before = [], []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            now = torch.cat([t.detach().clone() for t in module.arch_parameters()])
            if before and trainer.current_epoch:  # the first batch after warm-up has also set them
                moved.append((trainer.current_epoch, batch_idx, not torch.equal(now, before[0])))
            before[:] = [now]

    strategy = AutoNL(warmup_epochs=1, threshold_every=every)
    search(strategy, count=40, batch_size=8, epochs=3, callbacks=[Look()])
    assert moved == [(epoch, batch, batch in steps) for epoch in (1, 2) for batch in range(5)]
    assert strategy.oneshot_module._threshold_steps() == 2 * len(steps)


def test_a_training_loader_without_a_length_is_refused():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from zip(*images(8).tensors)

    trainer = Trainer(
        max_epochs=2, accelerator='cpu', logger=False, enable_checkpointing=False, limit_train_batches=1.0
    )
    batches = [torch.utils.data.DataLoader(Endless(), 8) for _ in range(2)]
    searching = Lightning(Classifier(0.005, 0.01, 0.0, schedule='cosine'), trainer, *batches)
    with pytest.raises(ValueError, match='AutoNL: the training loader has no length'):
        AutoNL(warmup_epochs=1)(
            RawFormatModelSpace(LightNLSpace(load_skeleton('cued')), searching), SequentialExecutionEngine()
        )


@pytest.mark.slow
def test_the_running_norms_that_decide_are_not_those_of_drawn_networks():
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            thresholds = module.thresholds()
            norms = [float(thresholds[label].norm) for label in thresholds if label.endswith(('ratio', 'stride'))]
            seen.append((batch_idx, norms))

    search(AutoNL(warmup_epochs=2, target_macs=1.7e6, drawn_share=1.0), callbacks=[Look()])
    for (_, before), (batch, norms) in pairwise(seen):
        assert (norms == before) == (batch % 5 != 0)
