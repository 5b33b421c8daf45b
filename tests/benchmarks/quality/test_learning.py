"""``benchmarks/quality/learning.py``, on trainings of a second."""

import dataclasses

import pandas as pd
import pytest
from refusal import refusal

from benchmarks.quality import learning
from benchmarks.quality.learning import EVERY_ROW, GROUND_TRUTH, MAIN_JOB, VARIANTS, networks, recipe_of
from search_space import load_skeleton

SMALL = ['--recipes', MAIN_JOB, '--networks', '1:0.125/2', '--processes', '1']
SET = ['--set', 'epochs=1', 'dataset/canvases=100']


@pytest.mark.parametrize('recipe', [MAIN_JOB, GROUND_TRUTH])
def test_lightnl_is_on_row_1_alone_in_every_form_and_once_on_every_row(recipe):
    skeleton = load_skeleton(recipe_of(recipe)['skeleton'])
    found = {name: skeleton.lightnl_positions(sample) for name, sample in networks(skeleton).items()}
    everywhere = found.pop(EVERY_ROW)
    assert len(everywhere) == sum('present' in row.candidates('lightnl') for row in skeleton.rows)
    row = skeleton.rows[0]
    forms = [
        (ratio, stride) for ratio in row.candidates('lightnl_ratio') for stride in row.candidates('lightnl_stride')
    ]
    assert list(found.values()) == [{1: form} for form in forms]
    assert list(found) == [f'1:{ratio:g}/{stride}' for ratio, stride in forms]


def test_every_variant_is_a_recipe_that_trials_take():
    for variant in VARIANTS:
        args = ['--csv', 'x.csv', '--variants', variant]
        parsed = learning.parser().parse_args(args)
        assert {job.recipe for job in learning.jobs_of(parsed)} == VARIANTS[variant].keys()


def test_what_is_asked_for_twice_is_trained_once():
    twice = ['--variants', 'default', 'default', '--recipes', 'main-job', 'main-job', '--networks', '1:0.125/2']
    jobs = learning.jobs_of(learning.parser().parse_args(['--csv', 'x.csv', '--seeds', '2', *twice]))
    assert [job.seed for job in jobs] == [0, 1]


@pytest.mark.parametrize(('variant', 'scale'), [('default', 1), ('scale from 0', 0)])
def test_a_training_is_one_of_the_skeleton_that_its_variant_has(variant, scale):
    parsed = learning.parser().parse_args(['--csv', 'x.csv', '--recipes', MAIN_JOB, '--variants', variant])
    job = learning.jobs_of(parsed)[0]
    with job.trial() as trial:
        assert trial.space() == dataclasses.replace(load_skeleton('cued'), lightnl_scale=scale)
        assert trial.epochs == recipe_of(MAIN_JOB)['epochs']


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_prints_its_table_from_its_csv(tmp_path, capsys):
    table = tmp_path / 'learning.csv'

    def run(*arguments) -> str:
        assert learning.main(['--csv', str(table), *SMALL, *arguments, *SET]) == 0
        return capsys.readouterr().out

    run('--seeds', '1')
    begun = pd.read_csv(table)
    printed = run('--seeds', '2')
    rows = pd.read_csv(table)
    assert rows.iloc[:1].equals(begun)  # it was not computed again
    assert list(rows.seed) == [0, 1]
    assert rows.validation_accuracy.between(0, 0.64).all()
    assert '2 of 2 [15.8%, 100.0%]' in printed
    assert run('--seeds', '2') == printed
    assert '1 of 1 [' in run('--seeds', '1')  # what else is in the CSV is not in the table


def made_up(variant: str, accuracy: list[float]) -> pd.DataFrame:
    rows = [(MAIN_JOB, variant, 'x', '1:0.125/2', seed, a, 1.0) for seed, a in enumerate(accuracy)]
    return pd.DataFrame(rows, columns=[*learning.KEY, 'validation_accuracy', 'cpu_seconds'])


def test_failures_have_an_exact_interval_and_no_part_in_the_accuracy():
    printed = learning.report(made_up('default', [0.9, 0.5, *[0.94] * 63]))
    assert '1 of 65 [0.0%, 8.3%]' in printed
    assert ' 93.94% [' in printed
    assert '0 of 64 [0.0%, 5.6%]' in learning.report(made_up('default', [0.9] * 64))  # 1 - 0.025 ** (1 / 64)


def test_a_variant_is_compared_over_the_seeds_of_both():
    frame = pd.concat([made_up('default', [0.9, 0.91, 0.92, 0.93, 0.9]), made_up('before', [0.5, 0.5, 0.93, 0.95])])
    printed = learning.report(frame)
    assert 'against default: 2 failed that do not there and 0 the other way round, of 4 (p = 0.5)' in printed
    assert 'accuracy +1.50 [' in printed


BAD = [
    (['--networks', '1:0.3/2'], "--networks: there is no '1:0.3/2', but 1:0.125/2"),
    (['--set', 'epochs=0'], 'epochs must be a whole number'),
    (['--set', 'lightnl_scale=-1'], '--set lightnl_scale must be a number'),
    (['--seeds', '0'], 'argument --seeds: must be a whole number'),
    (['--csv', '/nowhere/a.csv'], 'there is no folder /nowhere'),
]


@pytest.mark.parametrize(('arguments', 'message'), BAD, ids=[' '.join(arguments) for arguments, _ in BAD])
def test_what_cannot_be_measured_is_said_in_one_line_before_anything_starts(arguments, message, tmp_path, capsys):
    options = ['--csv', str(tmp_path / 'a.csv'), '--recipes', MAIN_JOB, *arguments]
    assert message in refusal(learning.main, options, capsys)
    assert not (tmp_path / 'a.csv').exists()
