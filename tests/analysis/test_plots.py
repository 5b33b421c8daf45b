"""Every plot: of the main job, of nothing, of names that people think of; and what is seen in some of them."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from records import Records, sample

from analysis import comparison, plots, read, read_trajectories, supernet_accuracy

PLOTS = {
    'best so far, epochs': lambda results, ax: plots.best_so_far(results.trials, 'epochs', ax),
    'best so far, seconds': lambda results, ax: plots.best_so_far(results.trials, 'seconds', ax),
    'accuracy against MACs': lambda results, ax: plots.accuracy_against_macs(results.trials, ax),
    'positions of LightNL': lambda results, ax: plots.lightnl_positions(results.trials, ax),
    'gates of lightnl': lambda results, ax: plots.gate_trajectories(results.trajectories, 'lightnl', ax),
    'gates of lightnl_ratio': lambda results, ax: plots.gate_trajectories(results.trajectories, 'lightnl_ratio', ax),
    'norm and threshold': lambda results, ax: plots.norm_and_threshold(results.trajectories, 'row01/lightnl', ax),
    'found networks': lambda results, ax: plots.found_networks(results.trials, ax),
    'supernet accuracy': lambda results, ax: plots.supernet_accuracy(supernet_accuracy(results.trials), ax),
    'time line': lambda results, ax: plots.timeline(results.trials, ax),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')


def strange(folder):
    """A failed trial, one that runs, and names that mean something to matplotlib."""
    records = Records(folder)
    for number, strategy in enumerate(('$\\frac{', '_hidden', '<b>&', 'ünï')):
        records.trained(f't{number}', 0.5, 9, sample(row02__lightnl='present'), strategy=strategy)
    records.start('a')
    records.event('a', 'FAILED')
    records.event('b', 'RUNNING')
    return read(folder)


@pytest.mark.parametrize('plot', PLOTS)
@pytest.mark.parametrize('of', ['main job', 'nothing', 'strange'])
def test_a_plot_is_drawn_on_the_axes_it_is_given(plot, of, main_job, tmp_path):
    results = strange(tmp_path / 'e') if of == 'strange' else main_job
    if of == 'nothing':
        results = type(results)(**{name: frame.iloc[:0] for name, frame in vars(results).items()})
    figure, ax = plt.subplots()
    assert PLOTS[plot](results, ax) is ax
    with matplotlib.rc_context({'font.family': 'DejaVu Sans'}):
        figure.canvas.draw()
    assert ax.get_xlabel() or ax.get_ylabel()


def test_without_axes_a_plot_makes_its_own(main_job):
    first, second = (plots.accuracy_against_macs(main_job.trials) for _ in range(2))
    assert first.figure is not second.figure


def test_a_strategy_has_the_same_colour_and_marker_whatever_else_is_there():
    alone, among = plots.strategy_styles(['random']), plots.strategy_styles(['zz', 'autonl', 'aa', 'random'])
    assert alone['random'] == among['random']
    assert len({tuple(style.values()) for style in among.values()}) == len(among)


def test_many_strategies_are_all_told_apart():
    styles = plots.strategy_styles(f's{number}' for number in range(40))
    assert len({tuple(style.values()) for style in styles.values()}) == len(styles)


def test_colours_differ_in_what_colour_blind_people_see():
    """Okabe and Ito's are chosen for it; here at least no two are alike in lightness and in blue against yellow."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in plots.COLOURS])
    seen = np.stack([rgb @ [0.299, 0.587, 0.114], rgb[:, 2] - rgb[:, :2].mean(1)], axis=1)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(rgb), 1)]
    assert distances.min() > 0.05


def test_the_line_of_a_strategy_ends_at_the_mean_of_its_best(main_job):
    ax = plots.best_so_far(main_job.trials, 'epochs')
    means = comparison(main_job.trials).groupby('strategy').validation_accuracy.mean()
    ends = {line.get_label().split(' (n')[0]: line.get_ydata()[-1] for line in ax.lines}
    assert ends == pytest.approx(means.to_dict())
    for line in ax.lines:
        there = line.get_ydata()[~np.isnan(line.get_ydata())]
        assert (np.diff(there) >= 0).all()


def test_the_band_of_a_strategy_ends_at_the_lowest_and_the_highest_of_its_best(main_job):
    ax = plots.best_so_far(main_job.trials, 'epochs')
    bands = [band.get_paths()[0].vertices for band in ax.collections if band.get_facecolor().size]
    assert len(bands) == 3
    for band, (_, best) in zip(bands, comparison(main_job.trials).groupby('strategy').validation_accuracy):
        at_its_end = band[
            band[:, 0] == band[:, 0].max(), 1
        ]  # and, where an edge steps up just there, what it was before
        assert at_its_end.max() == pytest.approx(best.max())
        assert np.isclose(at_its_end, best.min()).any()


def test_accuracy_is_shown_against_epochs_or_seconds_alone(main_job):
    with pytest.raises(ValueError, match="'epochs' or 'seconds', not 'minutes'"):
        plots.best_so_far(main_job.trials, 'minutes')


def test_open_gates_have_full_marks_above_zero_and_closed_ones_hollow_marks(main_job):
    ax = plots.gate_trajectories(main_job.trajectories, 'lightnl')
    marks = [line for line in ax.lines if line.get_marker() not in ('None', None) and len(line.get_xdata())]
    assert marks
    hollow = [line for line in marks if to_hex(line.get_markerfacecolor()) == '#ffffff']
    assert 0 < len(hollow) < len(marks)
    for line in marks:
        assert ((line.get_ydata() > 0) == (line not in hollow)).all()


def test_trials_that_overlap_are_on_lines_of_their_own():
    begins, ends = np.array([0.0, 1.0, 2.0, 3.0, 3.0]), np.array([3.0, 2.0, 5.0, 4.0, 9.0])
    assert plots._lines(begins, ends).tolist() == [0, 1, 1, 0, 2]


def test_the_history_of_a_search_outside_an_experiment_is_drawn_too(tmp_path):
    file = tmp_path / 'trajectories.csv'
    rows = [f'{epoch},row0{row}/lightnl,1,{0.5 + row},0.9,{int(row > 0)}' for epoch in (1, 2) for row in (0, 1)]
    file.write_text('\n'.join(['epoch,label,index,norm,threshold,gate', *rows]))
    trajectories = read_trajectories(file)
    assert trajectories.gate.tolist() == [0, 1, 0, 1]
    assert len(plots.gate_trajectories(trajectories).get_legend().get_texts()) == 2
    file.write_text('epoch,label\n1,a\n')
    with pytest.raises(ValueError, match=r'trajectories.csv: the column gate is missing'):
        read_trajectories(file)
