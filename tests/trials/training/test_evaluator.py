"""The recipe: what it does to the weights, and batches that go on where they were."""

import math

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.utils.data import RandomSampler, TensorDataset

from search_space import LightNLSpace, load_skeleton
from strategies import AutoNL
from trials.training.evaluator import OPTIMIZERS, SCHEDULES, evaluator, loader
from trials.training.rmsprop import TensorFlowRMSprop

RECIPE = {'batch_size': 8, 'learning_rate': 0.02, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'seed': 0}


def images(count: int = 64) -> TensorDataset:
    """Two classes that a linear layer tells apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    x = torch.randn(count, 3, 4, 4, generator=generator)
    return TensorDataset(x + labels[:, None, None, None], labels)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def train(network: nn.Module, epochs: int = 2, data: TensorDataset | None = None, callbacks=(), **recipe):
    data = images() if data is None else data
    training = evaluator(data, data, epochs=epochs, callbacks=callbacks, **(RECIPE | recipe))
    training.evaluate(network)
    return training


class EveryStep(pl.Callback):
    """The learning rate of every step, and the network's state after it."""

    def __init__(self):
        self.learning_rates, self.states = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]['lr'])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.states.append({name: value.clone() for name, value in module.model.state_dict().items()})


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_every_optimizer_learns_under_every_schedule(optimizer, schedule):
    training = train(small_network(), epochs=12, optimizer=optimizer, schedule=schedule)
    made = {'rmsprop-tf': 'tensorflowrmsprop'}.get(optimizer, optimizer)
    assert type(training.trainer.optimizers[0]).__name__.lower() == made
    assert training.trainer.callback_metrics['validation_accuracy'] > 0.9


@pytest.mark.parametrize('warmup', [0, 1, 2.5])
def test_the_cosine_schedule_rises_in_a_line_and_falls_as_a_cosine(warmup):
    steps = EveryStep()
    train(small_network(), epochs=5, schedule='cosine', learning_rate_warmup=warmup, callbacks=[steps])
    rates, rising = torch.tensor(steps.learning_rates), int(8 * warmup)
    assert len(rates) == 40
    peak = RECIPE['learning_rate']
    expected = [peak * (step + 1) / (rising + 1) for step in range(rising)]
    expected += [peak * (1 + math.cos(math.pi * (step - rising) / (40 - rising))) / 2 for step in range(rising, 40)]
    torch.testing.assert_close(rates, torch.tensor(expected))


@pytest.mark.parametrize('warmup', [0, 1.5])
def test_the_staircase_falls_by_a_factor_whenever_its_epochs_are_through_and_counts_those_of_the_line(warmup):
    steps = EveryStep()
    staircase = {'schedule': 'staircase', 'staircase_factor': 0.5, 'staircase_epochs': 1.25}
    train(small_network(), epochs=5, learning_rate_warmup=warmup, callbacks=[steps], **staircase)
    rates, rising = torch.tensor(steps.learning_rates), int(8 * warmup)
    peak = RECIPE['learning_rate']
    expected = [peak * (step + 1) / (rising + 1) for step in range(rising)]
    expected += [peak * 0.5 ** (step // 10) for step in range(rising, 40)]
    torch.testing.assert_close(rates, torch.tensor(expected))


def test_a_learning_rate_that_is_for_a_batch_size_is_scaled_to_the_one_that_is_used():
    steps = EveryStep()
    train(small_network(), epochs=1, schedule='staircase', learning_rate_per=256, callbacks=[steps])
    assert steps.learning_rates == [pytest.approx(RECIPE['learning_rate'] * 8 / 256)] * 8


def test_an_average_that_is_for_a_batch_size_decays_per_image():
    networks = [small_network(), small_network()]
    train(networks[0], ema_decay=0.8, ema_decay_per=32)
    train(networks[1], ema_decay=0.8 ** (8 / 32))
    for one, other in zip(*(network.state_dict().values() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_rmsprop_of_tensorflow_is_its_formula():
    """Source: the documentation of ``tf.compat.v1.train.RMSPropOptimizer``; the steps by hand, in double precision."""
    alpha, momentum, eps, decay = 0.9, 0.8, 1e-3, 0.1
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    weight = torch.nn.Parameter(start.clone())
    optimizer = TensorFlowRMSprop([weight], 0.1, alpha=alpha, momentum=momentum, eps=eps, weight_decay=decay)
    w, m, v = start.clone(), torch.ones(3).double(), torch.zeros(3).double()
    for step in range(5):
        optimizer.param_groups[0]['lr'] = rate = 0.1 / (step + 1)
        gradient = torch.tensor([1e-3, 0.1, 10.0], dtype=torch.double) * (step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        g = gradient + decay * w
        m = alpha * m + (1 - alpha) * g * g
        v = momentum * v + rate * g / (m + eps).sqrt()
        w = w - v
        torch.testing.assert_close(weight.detach(), w, rtol=1e-12, atol=0)


def test_rmsprop_of_tensorflow_goes_on_from_its_state():
    def steps(optimizer, weight, count):
        for _ in range(count):
            weight.grad = weight.detach().sin()
            optimizer.step()

    arguments = {'lr': 0.1, 'alpha': 0.9, 'momentum': 0.9, 'eps': 1e-3}
    whole, half = (torch.nn.Parameter(torch.arange(4.0)) for _ in range(2))
    steps(TensorFlowRMSprop([whole], **arguments), whole, 6)
    first = TensorFlowRMSprop([half], **arguments)
    steps(first, half, 3)
    second = TensorFlowRMSprop([half], **arguments)
    second.load_state_dict(first.state_dict())
    steps(second, half, 3)
    assert torch.equal(half, whole)


def test_mixup_trains_on_mixed_images_and_labels_and_measures_on_unmixed_ones():
    seen = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    network.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs[0].clone())))
    training = train(network, epochs=1, mixup=0.4, classes=2)
    known = {image.numpy().tobytes() for image in images().tensors[0]}
    mixed = [image for is_training, batch in seen for image in batch if is_training]
    assert sum(image.numpy().tobytes() in known for image in mixed) < len(mixed) / 10
    assert all(image.numpy().tobytes() in known for is_training, batch in seen if not is_training for image in batch)
    x, y = images().tensors
    loss = nn.functional.cross_entropy(network(x), y).item()
    assert training.trainer.callback_metrics['validation_loss'].item() == pytest.approx(loss, rel=1e-5)


def test_label_smoothing_is_in_the_loss():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    smooth = train(network, epochs=1, label_smoothing=0.2)
    x, y = images().tensors
    log_p = network(x).log_softmax(1)
    expected = -(0.8 * log_p[torch.arange(64), y] + 0.2 * log_p.mean(1)).mean()
    assert smooth.trainer.callback_metrics['validation_loss'].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_weight_decay_can_leave_out_norms_and_biases(optimizer):
    network = small_network()
    training = train(network, epochs=1, optimizer=optimizer, weight_decay=0.1, decay_norm_and_bias=False)
    decay = {id(p): g['weight_decay'] for g in training.trainer.optimizers[0].param_groups for p in g['params']}
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        '0.weight': 0.1,
        '0.bias': 0,
        '1.weight': 0,
        '1.bias': 0,
        '5.weight': 0.1,
        '5.bias': 0,
    }


def test_the_moving_average_of_the_weights_is_what_is_validated_and_kept():
    network, steps = small_network(), EveryStep()
    training = train(network, ema_decay=0.8, callbacks=[steps])
    average = dict(steps.states[0])
    for state in steps.states[1:]:
        average = {name: 0.8 * value + 0.2 * state[name] for name, value in average.items()}
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name])
    assert not torch.allclose(network[5].weight, steps.states[-1]['5.weight'])
    x, y = images().tensors
    loss = nn.functional.cross_entropy(network.eval()(x), y).item()
    assert training.trainer.callback_metrics['validation_loss'].item() == pytest.approx(loss, rel=1e-4)


def first_step(clip: float, precision: str = '32') -> float:
    """How far the first step of SGD goes, whose gradient is large, per unit of learning rate."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    before = nn.utils.parameters_to_vector(network.parameters()).detach()
    data = TensorDataset(100 * images().tensors[0], images().tensors[1])
    recipe = {'optimizer': 'sgd', 'schedule': 'cosine', 'batch_size': 64, 'precision': precision}
    train(network, epochs=1, data=data, gradient_clip=clip, **recipe)
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    return moved.norm().item() / RECIPE['learning_rate'] / 1.9  # Nesterov's first step is 1 + 0.9 gradients


@pytest.mark.parametrize('precision', ['32', 'bf16-mixed'])
def test_the_gradient_is_clipped_to_the_norm_that_is_given(precision):
    assert first_step(0, precision) > 5
    assert first_step(0.5, precision) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_mixed_precision_computes_in_bf16_keeps_weights_in_32_bits_and_can_clip(optimizer):
    network, seen = small_network(), set()
    network[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    train(network, precision='bf16-mixed', gradient_clip=1.0, optimizer=optimizer)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_one_shot_search_can_be_in_mixed_precision():
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 3, 32, 32, generator=generator), torch.arange(16) % 10)
    searching = evaluator(data, data, epochs=2, **RECIPE, shuffle_validation=True, precision='bf16-mixed')
    strategy = AutoNL(warmup_epochs=1, gradient_clip_val=1.0)
    strategy(RawFormatModelSpace(LightNLSpace(load_skeleton('cued')), searching), SequentialExecutionEngine())
    thresholds = strategy.oneshot_module.thresholds().values()
    assert all(t.norm.isfinite().all() and t.t.isfinite().all() for t in thresholds)
    load_skeleton('cued').check_sample(strategy.oneshot_module.export())


def test_precision_is_mixed_by_default_on_a_gpu_that_has_bf16_and_nowhere_else():
    mixed = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    assert train(small_network(), epochs=1).trainer.precision == ('bf16-mixed' if mixed else '32-true')


@pytest.mark.parametrize('recipe', [{}, {'ema_decay': 0.9, 'optimizer': 'sgd', 'schedule': 'cosine'}])
def test_an_evaluator_that_is_used_again_trains_as_the_first_time(recipe):
    first, second, third = small_network(), small_network(), small_network()
    training = train(first, epochs=2, **recipe)
    training.evaluate(second)
    training.evaluate(third)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
        assert torch.equal(third.state_dict()[name], value), name
    assert not torch.equal(first[5].weight, small_network()[5].weight)


def test_an_evaluator_that_has_searched_searches_and_trains_again():
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 3, 32, 32, generator=generator), torch.arange(16) % 10)
    recipe = evaluator(data, data, epochs=2, **RECIPE, shuffle_validation=True)
    searched = []
    for _ in range(2):
        torch.manual_seed(0)
        strategy = AutoNL(warmup_epochs=1)
        strategy(RawFormatModelSpace(LightNLSpace(load_skeleton('cued')), recipe), SequentialExecutionEngine())
        searched.append(dict(strategy.supernet.named_parameters()))
    for name, value in searched[0].items():
        assert torch.equal(searched[1][name], value), name
    found = next(strategy.list_models()).model_space
    before = {name: value.clone() for name, value in found.named_parameters()}
    recipe.evaluate(found)
    assert not any(torch.equal(value, before[name]) for name, value in found.named_parameters())


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count), torch.arange(count))


def test_the_order_is_that_of_pytorchs_sampler_of_the_seed():
    order = RandomSampler(range(20), generator=torch.Generator().manual_seed(3))
    batches = loader(numbers(20), 6, seed=3)
    for _ in range(3):
        expected = list(order)[:18]
        assert torch.cat([labels for _, labels in batches]).tolist() == expected


def passes(train, held_out, epochs: int) -> list:
    """Batches as a search has them: the held-out loader starts again whenever it is through."""
    combined, batches = CombinedLoader({'train': train, 'val': held_out}, 'max_size_cycle'), []
    for _ in range(epochs):
        iter(combined)
        batches.append([(b['train'][1].tolist(), b['val'][1].tolist()) for b, _, _ in combined])
    return batches


def test_a_part_that_is_smaller_than_a_batch_is_refused_where_it_would_train_nothing():
    with pytest.raises(ValueError, match='a batch of 8 images cannot be drawn from a part of 7'):
        loader(numbers(7), 8, seed=0)
    assert len(list(loader(numbers(7), 8))) == 1


@pytest.mark.parametrize('held_out', [7, 20, 40])
@pytest.mark.parametrize('epoch', [0, 1, 3])
def test_batches_go_on_from_a_loaders_state(epoch, held_out):
    whole = passes(loader(numbers(40), 4, seed=0), loader(numbers(held_out), 4, seed=1), 5)
    first = loader(numbers(40), 4, seed=0), loader(numbers(held_out), 4, seed=1)
    assert passes(*first, epoch) == whole[:epoch]
    again = loader(numbers(40), 4, seed=0), loader(numbers(held_out), 4, seed=1)
    for old, new in zip(first, again, strict=True):
        new.load_state_dict(old.state_dict())
    assert passes(*again, 5 - epoch) == whole[epoch:]


class SaveEpoch(pl.Callback):
    def __init__(self, epoch: int, file):
        self.epoch, self.file = epoch, file

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.file)


@pytest.mark.parametrize(
    'recipe',
    [
        {},
        {'schedule': 'cosine', 'optimizer': 'sgd', 'ema_decay': 0.9},
        {'schedule': 'staircase', 'staircase_epochs': 1.5, 'optimizer': 'rmsprop-tf'},
    ],
    ids=['adamw', 'sgd', 'rmsprop-tf'],
)
def test_a_training_goes_on_from_lightnings_checkpoint_to_the_same_weights(recipe, tmp_path):
    whole = small_network()
    train(whole, epochs=5, callbacks=[SaveEpoch(2, tmp_path / 'epoch')], **recipe)
    resumed = small_network()
    training = evaluator(images(), images(), epochs=5, **RECIPE, **recipe)
    training.fit_kwargs = {'ckpt_path': tmp_path / 'epoch'}
    training.evaluate(resumed)
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(resumed.state_dict()[name], value), name
