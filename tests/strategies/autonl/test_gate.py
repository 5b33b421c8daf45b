"""The gate, nested weights and thresholds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.autonl.gate import Threshold, behind_gates, gate, nested_mask, nested_weights


def test_the_gate_is_hard_forward_and_closed_at_zero():
    u = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 3.0])
    assert gate(u).tolist() == [0, 0, 0, 1, 1]


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=5))
def test_the_gate_has_the_gradient_of_the_sigmoid(values):
    u = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    grad = torch.arange(1.0, len(values) + 1, dtype=torch.float64)
    (of_gate,) = torch.autograd.grad(gate(u), u, grad)
    (of_sigmoid,) = torch.autograd.grad(torch.sigmoid(u), u, grad)
    torch.testing.assert_close(of_gate, of_sigmoid)


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_hard_gates_choose_the_last_candidate_that_is_reached(gates):
    weights = nested_weights(torch.tensor(gates, dtype=torch.float32))
    reached = gates.index(False) if False in gates else len(gates)
    assert weights.tolist() == [float(n == reached) for n in range(len(gates) + 1)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_nested_weights_sum_to_one(gates):
    assert nested_weights(torch.tensor(gates, dtype=torch.float64)).sum().item() == pytest.approx(1)


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_nested_mask_keeps_the_channels_of_the_candidate_that_the_gates_choose(gates, added):
    sizes = [sum(added[: n + 1]) + 1 for n in range(len(gates) + 1)]
    mask = nested_mask(torch.tensor(gates, dtype=torch.float32), behind_gates(sizes))
    chosen = gates.index(False) if False in gates else len(gates)
    assert mask.tolist() == [float(channel < sizes[chosen]) for channel in range(sizes[-1])]


def test_gates_are_open_until_they_are_activated():
    threshold = Threshold([3, 5, 7])
    norm = torch.tensor([0.1, 5.0])
    assert threshold(norm, running_mean=False).tolist() == [1, 1]
    assert threshold.is_open().tolist() == [True, True]


def test_activated_thresholds_start_below_their_norms_by_the_margin():
    threshold = Threshold([3, 5, 7])
    threshold(torch.tensor([0.5, 5.0]), running_mean=False)
    threshold.activate(margin=0.25)
    torch.testing.assert_close(threshold.t.data, torch.tensor([0.25, 4.75]))
    assert threshold.is_open().all()


def test_a_running_mean_decides_and_the_batch_takes_the_gradient():
    threshold = Threshold(['absent', 'present'], momentum=0.1)
    threshold(torch.tensor([1.0]), running_mean=True)
    threshold.activate(margin=0.5)
    norm = torch.tensor([0.0], requires_grad=True)  # this batch alone would close the gate: the mean, 0.9, does not
    g = threshold(norm, running_mean=True)
    g.sum().backward()
    assert g.item() == 1
    slope = torch.sigmoid(torch.tensor(0.9 - 0.5))
    assert norm.grad.item() == pytest.approx((slope * (1 - slope)).item())
    assert threshold.t.grad.item() == pytest.approx(-(slope * (1 - slope)).item())


def test_the_state_says_whether_the_gates_act():
    threshold = Threshold(['absent', 'present'])
    threshold(torch.tensor([1.0]), running_mean=True)
    threshold.activate(margin=-0.5)
    restored = Threshold(['absent', 'present'])
    restored.load_state_dict(threshold.state_dict())
    assert restored.chosen() == threshold.chosen() == 'absent'
    for each in (threshold, restored):  # averaged with the norm that was seen before
        each(torch.tensor([2.0]), running_mean=True)
    assert restored.norm.item() == threshold.norm.item() == pytest.approx(1.1)


def test_evaluation_does_not_move_the_running_mean():
    threshold = Threshold(['absent', 'present'])
    threshold(torch.tensor([1.0]), running_mean=True)
    threshold.eval()
    threshold(torch.tensor([100.0]), running_mean=True)
    assert threshold.norm.item() == 1


def test_a_candidate_that_is_taken_stands_in_for_the_gates_own():
    threshold = Threshold([3, 5, 7])
    norm = torch.ones(2, requires_grad=True)
    threshold(norm, running_mean=False)
    threshold.activate(margin=0.5)
    for candidate in range(3):
        with threshold.drawing(candidate):
            gates = threshold(norm, running_mean=False)
        assert nested_weights(gates).argmax() == candidate
        assert not gates.requires_grad
    assert threshold.is_open().all()
    assert threshold(norm, running_mean=False).requires_grad


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=4), st.data())
def test_gates_choose_the_candidate_that_they_are_told_to(distances, data):
    candidates = list(range(len(distances) + 1))
    threshold = Threshold(candidates)
    threshold(torch.ones(len(distances)), running_mean=False)
    threshold.activate(margin=0.5)
    threshold.t.data = threshold.norm - torch.tensor(distances)
    before, chosen = threshold.t.detach().clone(), threshold.chosen()
    candidate = data.draw(st.sampled_from(candidates))
    threshold.choose(candidate, margin=0.1)
    assert threshold.chosen() == candidate
    if candidate == chosen:
        assert torch.equal(threshold.t, before)


def test_a_drawn_network_leaves_the_running_mean_alone_that_decides():
    threshold = Threshold(['absent', 'present'])
    threshold(torch.tensor([1.0]), running_mean=True)
    threshold.activate(margin=0.5)
    with threshold.drawing(None):
        assert threshold(torch.tensor([100.0]), running_mean=True).item() == 1
    assert threshold.norm.item() == 1
    with threshold.drawing(0):
        threshold(torch.tensor([2.0]), running_mean=False)  # of weights, which are whatever network's
    assert threshold.norm.item() == 2
