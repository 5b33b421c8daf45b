"""The benchmark of the LightNL block: what it compares with, and the command."""

import argparse
import csv
import re
from subprocess import CompletedProcess

import pytest
import torch
from warm_process import run_program

from benchmarks.speed import block as benchmark
from search_space.lightnl.products import lightnl_product


def run(*arguments: str) -> CompletedProcess:
    return run_program('benchmarks/speed/block.py', *arguments)


@pytest.mark.parametrize('shape', [(2, 8, 14, 10), (2, 16, 5, 4)])  # context first, affinity first
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('training', [True, False])
def test_the_einsum_transcription_gives_the_values_and_gradients_of_lightnl(shape, stride, training):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    blocks = benchmark.blocks(shape[1], 0.5, stride, compiled=False)
    results = []
    for subject in (benchmark.LIGHTNL, benchmark.EINSUM):
        leaf = x.clone().requires_grad_()
        z = blocks[subject].double().train(training)(leaf)
        results.append((z, *torch.autograd.grad(z.square().sum(), [leaf, blocks[subject].conv.weight])))
    torch.testing.assert_close(results[0], results[1])


def test_the_floor_is_the_block_without_its_product():
    x = torch.randn(2, 8, 6, 6)
    blocks = benchmark.blocks(8, 0.5, 1, compiled=False)
    lightnl = blocks[benchmark.LIGHTNL]
    lightnl.product = lambda x: x
    torch.testing.assert_close(blocks[benchmark.FLOOR].eval()(x), lightnl.eval()(x))


def test_the_products_of_a_step_are_three_times_those_of_a_forward_pass_at_the_speed_of_a_large_one():
    arguments = argparse.Namespace(device='cpu', layout='channels-last', ratio=0.5, stride=1, most=1.0, seconds=0.01)
    arguments.rounds, arguments.macs_per_second = 3, 1e6
    subjects = [benchmark.LIGHTNL, benchmark.FLOOR]
    forward, step = (
        benchmark.measure((8, 14, 14), 2, mode, subjects, arguments) for mode in (benchmark.FORWARD, benchmark.STEP)
    )
    assert forward.products == pytest.approx(1e3 * 2 * 2 * 196 * 4 * 8 / 1e6)  # two products of 196 × 4 × 8, two images
    assert step.products == pytest.approx(3 * forward.products)


def test_sdpa_attends_from_all_positions_to_the_strided_ones_and_keeps_the_shape():
    x = torch.randn(2, 8, 5, 6)
    constant = x.clone()
    constant[:, :, ::2, ::2] = 3.0
    y = benchmark.sdpa_product(constant, 0.25, 2)
    torch.testing.assert_close(y, torch.full_like(x, 3.0))
    assert not torch.allclose(benchmark.sdpa_product(x, 0.25, 2), lightnl_product(x, 0.25, 2))


def test_it_prints_a_line_a_shape_batch_and_mode_what_was_left_out_and_what_became_of_every_goal(tmp_path):
    table = tmp_path / 'table.csv'
    options = ['--seconds', '0.05', '--rounds', '6', '--most', '0.001', '--csv', str(table)]
    done = run('--shapes', '8x28x28', '16x4x6', '--batch', '1', '2', *options)
    assert done.returncode == 0, done.stderr
    for shape in ('8×28×28', '16×4×6'):
        for batch in ('1', '2'):
            assert len(re.findall(rf'^{shape} +{batch} +\d', done.stdout, re.M)) == 2  # forward, and with backward
    assert '-: NL at 8×28×28, batch 1, forward: its affinities would take' in done.stdout
    assert len(re.findall(r'goal: at most 1\.\d+; met at \d of 4; .* (?:meets|misses) it by \d+%', done.stdout)) == 4
    assert len(re.findall(r'LightNL / sum +goal: at most 1\.[23]5', done.stdout)) == 2
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {row['subject'] for row in rows} == {'LightNL', 'floor', 'einsum', 'SDPA', 'NL', 'fused'}
    assert not any(row['subject'] == 'NL' and row['channels'] == '8' for row in rows)
    for row in rows:
        assert float(row['ms']) > 0
        assert float(row['low']) <= float(row['ratio']) <= float(row['high'])
        tensor = 4 * int(row['batch']) * int(row['channels']) * int(row['height']) * int(row['width']) / 2**20
        assert tensor < float(row['peak_mib']) + 1e-3 < 100 * tensor


def test_an_impossible_ratio_is_one_line_and_status_2():
    done = run('--ratio', '2')
    assert done.returncode == 2
    assert done.stderr == 'block.py: LightNL: ratio must be in (0, 1], not 2.0\n'
