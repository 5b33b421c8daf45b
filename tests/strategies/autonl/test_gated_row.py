"""A row under gates."""

import pytest
import torch
from torch.nn.functional import conv2d

from search_space import ABSENT, LightNLSpace, load_skeleton
from strategies import AutoNL
from strategies.autonl.gate import Threshold
from strategies.autonl.gated_row import GatedRow, kernel_rings, sliced


@pytest.fixture(scope='module')
def rows():
    supernet = AutoNL().mutate_model(LightNLSpace(load_skeleton('cifar')))
    supernet(torch.randn(4, 3, 32, 32))  # norms are known once something was seen
    found = {index: row for index, row in enumerate(supernet.rows) if isinstance(row, GatedRow)}
    for row in found.values():
        for threshold in row.thresholds.values():
            threshold.activate(margin=1.0)
    return found


def close(row: GatedRow, key: str) -> None:
    row.thresholds[key].t.data = row.thresholds[key].norm + 1


def test_rings_are_counted_from_the_smallest_kernel():
    assert kernel_rings([3, 5]).tolist() == [[1] * 5, [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1] * 5]
    assert kernel_rings([1, 3, 7])[3].tolist() == [2, 2, 1, 0, 1, 2, 2]


def test_a_kernel_without_its_ring_is_the_small_kernel():
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 1, 5, 5)
    masked = weight * (kernel_rings([3, 5]) == 0)
    small = conv2d(x, sliced(weight, torch.Size([4, 1, 3, 3])), padding=1, groups=4)
    torch.testing.assert_close(conv2d(x, masked, padding=2, groups=4), small)


def test_a_closed_presence_gate_is_exactly_the_identity(rows):
    row = rows[2]
    close(row, 'presence')
    x = torch.randn(2, 24, 8, 8)
    assert torch.equal(row.eval()(x), x)
    assert row.export({})['row03/presence'] == ABSENT
    row.thresholds['presence'].activate(margin=1.0)


def test_every_choice_of_a_row_is_exported_under_its_label(rows):
    assert set(rows[2].export({})) == {f'row03/{key}' for key in ('presence', 'kernel', 'expansion', 'se')}


@pytest.mark.parametrize('key', ['kernel', 'expansion', 'se'])
def test_a_closed_gate_chooses_the_smallest_candidate_and_still_has_a_gradient(rows, key):
    row = rows[3]
    close(row, key)
    assert row.export({})[f'row04/{key}'] == min(row.nested[key])
    row.train()
    row.zero_grad()
    row(torch.randn(4, 24, 8, 8)).square().sum().backward()
    assert row.thresholds[key].t.grad.abs().max() > 0  # or it could never open again
    row.thresholds[key].activate(margin=1.0)


def test_mixed_precision_keeps_features_in_it_and_norms_out_of_it(rows):
    row = rows[2].eval()
    x = torch.randn(4, 24, 8, 8).bfloat16()
    expected = row(x.float())
    with torch.autocast('cpu', torch.bfloat16):
        z = row(x)
        assert z.dtype == torch.bfloat16
        torch.testing.assert_close(z.float(), expected, rtol=0.05, atol=0.05)
        row.train()(x).float().sum().backward()
    for threshold in row.modules():
        if isinstance(threshold, Threshold):
            assert threshold.norm.dtype == torch.float32
            assert threshold.norm.isfinite().all()


def test_a_fixed_row_is_left_as_it_is(rows):
    assert 0 not in rows  # row 1 of cifar has nothing to choose but LightNL's place
