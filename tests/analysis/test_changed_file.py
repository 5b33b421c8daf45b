"""An experiment.yaml that was changed since has no effect on its experiment, and the table says so."""

import json

import pytest
import yaml
from records import ARGUMENTS, Records, sample

from analysis.__main__ import main
from analysis.experiment import Experiment


@pytest.fixture
def created(tmp_path, monkeypatch):
    """Records of an experiment that goes on, and the folder of the file that it was created from."""
    records = Records(tmp_path / 'AbCdEf', trialCommand='python3 -m trials run --token secret')
    code = tmp_path / 'code'
    (code / 'experiments').mkdir(parents=True)
    (params,) = records.database.execute('select params from ExperimentProfile').fetchone()
    params = json.loads(params)
    params['tuner']['codeDirectory'] = str(code)
    records.database.execute('update ExperimentProfile set params = ?', [json.dumps(params)])
    records.trained('a', 0.9, 30, sample())
    monkeypatch.setattr(Experiment, 'status', lambda self: 'RUNNING')
    return records, code


def write(file, name='a test', command='python3 -m trials run --token secret', **changes):
    tuner = {'className': 'strategies.tuner.StrategyTuner', 'classArgs': {**ARGUMENTS, **changes}}
    file.write_text(yaml.safe_dump({'experimentName': name, 'trialCommand': command, 'tuner': tuner}))


def said(records, capsys):
    assert main(['table', str(records.folder)]) == 0
    printed = capsys.readouterr()
    assert 'Experiment AbCdEf: RUNNING' in printed.out
    return printed.err


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'budget': 400}, 'classArgs.budget was 4 and is 400'),
        ({'retrain': {'epochs': 2, 'batch_size': 8}}, 'classArgs.retrain.batch_size is new'),
        ({'strategies': {'random': {}}}, 'classArgs.strategies.autonl is gone'),
        ({'command': 'python3 -m trials run --token other'}, 'trialCommand is another one'),
    ],
    ids=str,
)
@pytest.mark.parametrize('place', ['mine.yaml', 'experiments/mine.yml'])
def test_a_change_that_has_no_effect_is_said_in_one_line(created, capsys, changes, told, place):
    records, code = created
    write(code / place, **changes)
    write(code / 'another.yaml', name='another', budget=9)
    (line,) = said(records, capsys).splitlines()
    assert line == (
        f'python -m analysis: {code / place} has been changed since experiment AbCdEf was created from it, which has '
        f'no effect on it, resumed or not ({told}); nnictl create starts another one'
    )


def test_nothing_is_said_of_a_file_that_is_as_it_was_whatever_else_is_there(created, capsys):
    records, code = created
    assert said(records, capsys) == ''
    write(code / 'a-copy.yaml', budget=400)
    write(code / 'experiment.yaml')
    (code / 'broken.yaml').write_text('a: [')
    (code / 'list.yaml').write_text('- 1')
    assert said(records, capsys) == ''
