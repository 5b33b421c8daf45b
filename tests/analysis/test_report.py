"""The report: whole, self-contained, honest about failures, and safe whatever trials say."""

import json
import re
from html import unescape

import pytest
import yaml
from html_page import Page, svg
from records import Records, sample

from analysis import comparison, read, shipped, strategy_means
from analysis.__main__ import PLOTS, main


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp('report')
    assert main(['report', str(shipped()), '--out', str(out)]) == 0
    return out


@pytest.fixture(scope='module')
def page(report):
    return Page.of(report / 'report.html')


@pytest.mark.slow
def test_the_page_is_whole(page):
    assert page.mistakes == []
    assert {'title', 'main', 'header', 'h1', 'h2', 'table', 'figure'} <= page.tags


def test_it_loads_nothing_from_anywhere(report, page):
    assert all(address.startswith('data:') for address in page.loaded)
    assert all(link.startswith('#') or (report / link).is_file() for link in page.links)
    text = (report / 'report.html').read_text()
    assert 'url(' not in text
    assert '@import' not in text
    assert "default-src 'none'" in unescape(text)
    assert 'script' not in page.tags


def test_every_picture_is_in_the_page_and_says_what_it_shows(page):
    assert len(page.images) >= 8
    for image in page.images:
        assert svg(image).tag.endswith('svg')
        assert len(image['alt']) > 30


def test_it_is_made_for_phones_too(report):
    text = (report / 'report.html').read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count('<div class="scroll"') == text.count('<table>')


def test_no_interval_of_an_accuracy_is_past_100_percent(page, main_job):
    assert strategy_means(comparison(main_job.trials)).high.max() > 1
    highest = [float(high) for high in re.findall(r'% – ([\d.]+)%', page.text)]
    assert len(highest) == 3
    assert max(highest) == 100


def test_it_says_who_won_with_the_number_of_experiments(page, main_job):
    assert f'(n = {len(main_job.experiments)})' in page.text
    for strategy in main_job.trials.strategy.unique():
        assert strategy in page.text


def test_its_data_are_the_frames(report, main_job):
    assert read(report).trials.equals(main_job.trials)
    assert (report / 'comparison.csv').read_text().count('\n') == 1 + 3 * len(main_job.experiments)


def test_its_configurations_run_the_experiments_again(report, main_job):
    from nni.experiment.config import ExperimentConfig

    for row in main_job.experiments.itertuples():
        file = report / f'configuration-{row.experiment}.yaml'
        configuration = yaml.safe_load(file.read_text())
        assert configuration['tuner']['classArgs']['seed'] == row.seed
        assert configuration['searchSpaceFile'] == 'search_space/choices/cued.json'
        ExperimentConfig(**configuration)


UGLY = '<script>alert(1)</script><img src=x onerror="alert(2)">&amp;"\''


@pytest.fixture
def ugly(tmp_path):
    records = Records(tmp_path / 'e')
    records.trained('a', 0.9, 30, sample(), strategy=UGLY)
    records.start('b', UGLY, seed=1)
    records.left('b', 'failure.json', json.dumps({'error': f'no such file {UGLY}', 'type': 'ValueError'}))
    records.event('b', 'FAILED')
    records.metric('b', 'PERIODICAL', 'half')
    assert main(['report', str(records.folder), '--out', str(tmp_path / 'out')]) == 0
    return Page.of(tmp_path / 'out' / 'report.html')


@pytest.mark.slow
def test_what_trials_say_is_shown_and_never_obeyed(ugly):
    assert ugly.mistakes == []
    assert 'script' not in ugly.tags
    assert not [image for image in ugly.images if 'onerror' in image or image['src'] == 'x']
    assert UGLY in ugly.text


@pytest.mark.slow
def test_failures_and_what_could_not_be_read_are_named(ugly):
    assert f'no such file {UGLY}' in ugly.text
    assert 'a report of trial b' in ugly.text
    assert 'it is not a JSON object' in ugly.text


@pytest.mark.slow
def test_experiments_that_differ_in_more_than_their_seed_are_not_averaged_in_silence(tmp_path):
    for name, concurrency in (('one', 1), ('two', 2)):
        records = Records(tmp_path / name, trialConcurrency=concurrency)
        records.trained('a', 0.9, 30, sample())
    folders = [str(tmp_path / name) for name in ('one', 'two')]
    assert main(['report', *folders, '--out', str(tmp_path / 'out')]) == 0
    assert 'differ in more than their seed (trialConcurrency)' in Page.of(tmp_path / 'out' / 'report.html').text


def test_an_experiment_without_any_result_has_a_report_too(tmp_path):
    records = Records(tmp_path / 'e')
    records.start('a', 'autonl', 'search')
    assert main(['report', str(records.folder), '--out', str(tmp_path / 'out')]) == 0
    page = Page.of(tmp_path / 'out' / 'report.html')
    assert page.mistakes == []
    assert 'No network was trained to its end yet.' in page.text


@pytest.mark.slow
def test_the_same_results_give_the_same_page(report, tmp_path):
    assert main(['report', str(shipped()), '--out', str(tmp_path)]) == 0
    assert (tmp_path / 'report.html').read_bytes() == (report / 'report.html').read_bytes()


@pytest.mark.parametrize('plot', PLOTS)
@pytest.mark.slow
def test_a_plot_is_drawn_as_a_file(plot, tmp_path):
    picture = tmp_path / 'picture.svg'
    assert main(['plot', plot, str(shipped()), '--out', str(picture)]) == 0
    assert '</svg>' in picture.read_text()


def test_a_plot_in_a_format_that_there_is_not_is_refused(tmp_path, capsys):
    assert main(['plot', 'timeline', str(shipped()), '--out', str(tmp_path / 'picture.docx')]) == 2
    assert 'docx' in capsys.readouterr().err
