"""The projection of a search to ImageNet's size."""

import argparse
import csv
import dataclasses
import sys
from pathlib import Path

import pytest

from benchmarks.speed import imagenet_search as benchmark
from benchmarks.speed.search_step import LARGEST, SEARCH, THRESHOLD, WEIGHT
from search_space.entry_point import run

ROOT = Path(__file__).parents[3]


def steps(weight: float, threshold: float, largest: float) -> dict[str, benchmark.Step]:
    """At these images per second."""
    speeds = {WEIGHT: weight, THRESHOLD: threshold, LARGEST: largest}
    return {part: benchmark.Step(part, 100, 1e5 / speed, None) for part, speed in speeds.items()}


def test_the_plan_of_the_shipped_experiment_is_the_papers_epochs_on_nine_tenths_of_the_training_part():
    plan = benchmark.read_plan(ROOT / 'experiments' / 'imagenet.yaml')
    assert plan.search_epochs == 8
    assert plan.weight_images == pytest.approx(0.9 * plan.training_images)
    assert plan.training_images == pytest.approx(0.96 * 1_281_167)


def test_hours_are_those_of_weight_steps_in_all_epochs_and_of_threshold_steps_after_warm_up():
    plan = benchmark.Plan(8, 2, 1, weight_images=3600, training_images=4000, retrain_epochs=9)
    assert benchmark.search_hours(plan, steps(2, 3, 1)) == pytest.approx(8 / 2 + 6 / 3)
    assert benchmark.retrain_hours(plan, steps(2, 3, 5)) == pytest.approx(9 * 4000 / 5 / 3600)
    every_second = dataclasses.replace(plan, threshold_every=2)
    assert benchmark.search_hours(every_second, steps(2, 3, 1)) == pytest.approx(8 / 2 + 3 / 3)


def test_the_text_says_what_became_of_the_goal():
    plan = benchmark.Plan(8, 2, 1, weight_images=3600, training_images=4000, retrain_epochs=9)
    assert 'goal under 2 hours on one H100; missed by 200% on this device' in benchmark.projection(plan, steps(2, 3, 5))
    assert 'goal under 2 hours on one H100; met by 40% on this device' in benchmark.projection(plan, steps(10, 15, 5))


def test_what_is_no_experiment_with_a_search_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    file = tmp_path / 'experiment.yaml'
    file.write_text('tuner: {classArgs: {search: {epochs: 8}}}')
    monkeypatch.setattr(sys, 'argv', ['imagenet_search.py', '--experiment', str(file)])
    assert run('imagenet_search.py', benchmark.main) == 2
    said = capsys.readouterr().err
    assert f'{file}: no search and retraining of strategies.AutoNL can be read from it' in said
    assert said.count('\n') == 1


def test_steps_are_measured_on_this_machine_and_written_with_their_batch(tmp_path):
    args = argparse.Namespace(skeleton='cued', input_size=16, device='cpu', precision='32-true', steps=2, warmup=1)
    found = benchmark.measure(SEARCH, args, [4, 2])
    assert [(step.part, step.batch) for step in found] == [(WEIGHT, 4), (THRESHOLD, 4)]
    assert all(step.images_per_second == pytest.approx(4e3 / step.ms) and step.ms > 0 for step in found)
    benchmark.write(tmp_path / 'steps.csv', found, 'CPU', '32-true')
    rows = list(csv.DictReader((tmp_path / 'steps.csv').open()))
    assert [(row['device'], row['step'], row['batch']) for row in rows] == [
        ('CPU', WEIGHT, '4'),
        ('CPU', THRESHOLD, '4'),
    ]
