"""``benchmarks/quality/attention.py``, on tasks of a few seconds."""

import pandas as pd
import pytest
import torch
from refusal import refusal
from torch import nn

from benchmarks.quality import attention
from benchmarks.quality.attention import BLOCKS, NON_LOCAL, NONE, Bed
from search_space.lightnl.block import LightNL, NonLocal
from search_space.network import SqueezeExcite

SMALL = ['epochs=1', 'dataset/canvases=128', 'batch_size=32']


def bed(rows=(1, 3), task='cued-digits', skeleton='cued') -> Bed:
    return Bed(task, {'skeleton': skeleton, 'epochs': 1}, rows)


@pytest.mark.parametrize('skeleton', ['cued', 'fashion-mnist'])
@pytest.mark.parametrize('block', BLOCKS)
def test_a_block_is_in_the_rows_that_are_asked_for_and_nowhere_else(block, skeleton):
    network = bed(skeleton=skeleton).network(block)
    kind = {NONE: (), 'squeeze-excite': SqueezeExcite, NON_LOCAL: NonLocal}.get(block, LightNL)
    found = [name for name, module in network.named_modules() if isinstance(module, kind)]
    assert [name.split('.')[1] for name in found] == ([] if block == NONE else ['row01', 'row03'])
    every = (SqueezeExcite, NonLocal, LightNL)
    assert len(found) == sum(isinstance(module, every) for module in network.modules())
    if block.startswith('LightNL'):
        lightnl = network.get_submodule(found[0])
        assert block == f'LightNL {lightnl.ratio}/{lightnl.stride}'


def test_every_block_starts_at_the_same_scale():
    of = bed()
    for block in [block for block in BLOCKS if block == NON_LOCAL or block.startswith('LightNL')]:
        for number in of.rows:
            attended = of.network(block).rows.get_submodule(f'row{number:02d}').lightnl
            assert attended.bn.weight.eq(of.body().lightnl_scale).all()
    assert of.body().lightnl_scale == 1


@pytest.mark.parametrize('block', BLOCKS)
def test_macs_are_those_that_the_network_does(block):
    of = bed(task='fashion-mnist', skeleton='fashion-mnist')
    network, counted = of.network(block), []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d | nn.Linear):
            counted.append(module.weight[0].numel() * output.numel())
        elif isinstance(module, nn.AdaptiveAvgPool2d | SqueezeExcite):
            counted.append(inputs[0].numel())  # its pooling
        elif isinstance(module, NonLocal):
            positions = inputs[0][0, 0].numel()
            counted.append(2 * module.channels * positions**2)

    for module in network.modules():
        module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, 28, 28))
    products = of.macs(block) - sum(counted)
    if block.startswith('LightNL'):
        assert 0 < products < of.macs('LightNL 0.25/1') - of.macs(NONE)
    else:
        assert products == 0
    assert of.macs(NON_LOCAL) > of.macs('LightNL 0.25/1') > of.macs('LightNL 0.125/2') > of.macs(NONE)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_prints_its_table_from_its_csv(tmp_path, capsys):
    table = tmp_path / 'attention.csv'
    options = ['--csv', table, '--tasks', 'cued-digits', '--rounds', 2, '--processes', 1, '--set', *SMALL]

    def run(*arguments) -> str:
        assert attention.main([*map(str, options), *map(str, arguments)]) == 0
        return capsys.readouterr().out

    assert 'nan' not in run('--blocks', NONE, NON_LOCAL, NONE, '--seeds', 1)
    begun = pd.read_csv(table)
    assert begun.measured.value_counts().to_dict() == {'latency': 2 * len(BLOCKS), 'training': 2}
    blocks = ['--blocks', NONE, NON_LOCAL, 'LightNL 0.25/1', '--seeds', 2]
    printed = run(*blocks)
    rows = pd.read_csv(table)
    assert rows.iloc[: len(begun)].equals(begun)  # none of it was computed again
    trainings = rows[rows.measured == 'training']
    assert sorted(zip(trainings.block, trainings.seed)) == sorted(
        (block, seed) for block in ('LightNL 0.25/1', NONE, NON_LOCAL) for seed in (0, 1)
    )
    assert trainings.test_accuracy.between(0, 1).all()
    assert (rows[rows.measured == 'latency'].latency_ms > 0).all()
    lines = {line[:16].strip(): line for line in printed.splitlines()}
    of_block = trainings[trainings.block == NON_LOCAL].test_accuracy
    assert f'{of_block.mean():.2%} [' in lines[NON_LOCAL]
    assert lines[NON_LOCAL].endswith(' '.join(f'{value:.1%}' for value in of_block))
    assert f'{bed(rows=(1, 2, 3, 4, 5)).macs(NON_LOCAL):,}' in lines[NON_LOCAL]
    assert 'squeeze-excite' not in lines
    assert run(*blocks) == printed
    assert pd.read_csv(table).equals(rows)


BAD = [
    (['--rows', '9'], 'cued has 5 rows, not 9'),
    (['--rows', '0'], 'argument --rows: must be a whole number from 1'),
    (['--seeds', 'x'], 'argument --seeds: must be a whole number'),
    (['--set', 'epochs=0'], 'epochs must be a whole number'),
    (['--set', 'seed=7'], '--set seed: it plays no part here'),
    (['--set', 'recalibrate=20'], '--set recalibrate: it plays no part here'),
    (['--tasks', 'fashion-mnist', '--set', 'dataset/folder=/nowhere'], '/nowhere/train-images-idx3-ubyte is missing'),
    (['--blocks', 'nl'], 'argument --blocks: invalid choice'),
    (['--csv', '/nowhere/a.csv'], 'there is no folder /nowhere'),
]


@pytest.mark.parametrize(('arguments', 'message'), BAD, ids=[' '.join(arguments) for arguments, _ in BAD])
def test_what_cannot_be_measured_is_said_in_one_line_before_anything_starts(arguments, message, tmp_path, capsys):
    options = ['--csv', str(tmp_path / 'a.csv'), '--tasks', 'cued-digits', *arguments]
    assert message in refusal(attention.main, options, capsys)
    assert not (tmp_path / 'a.csv').exists()


@pytest.mark.slow
def test_a_csv_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / 'a.csv').write_text('seed,accuracy\n0,1\n')
    assert attention.main(['--csv', str(tmp_path / 'a.csv'), '--tasks', 'cued-digits']) == 2
    assert 'is not a table of this benchmark: it has no column settings' in capsys.readouterr().err
    assert (tmp_path / 'a.csv').read_text() == 'seed,accuracy\n0,1\n'
