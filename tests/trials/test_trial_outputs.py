"""Where a trial leaves its files: said before it trains where it cannot, and never over another trial's result."""

import json

import pytest

from trials.__main__ import main


@pytest.fixture
def result(tmp_path):
    """The folder of a trial that has ended."""
    folder = tmp_path / 'result'
    folder.mkdir()
    (folder / 'network.pt').write_bytes(b'weights')
    (folder / 'trial.json').write_text(json.dumps({'parameters': {'seed': 0}, 'result': {'default': 0.9}}))
    return folder


def one_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize('out', ['/proc/x', '/dev/full', __file__])
def test_a_folder_that_cannot_be_written_is_said_before_training(out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'parameters.json').write_text('{"never": "looked at"}')
    assert main(['run', '--parameters', 'parameters.json', '--out', out]) in (1, 2)
    line = one_line(capsys)
    assert 'never' not in line
    assert [file.name for file in tmp_path.iterdir()] == ['parameters.json']


@pytest.mark.parametrize('content', ['{"seed": 1}', 'no JSON', '[]'])
def test_other_or_bad_parameters_leave_the_result_that_is_there_alone(content, result, tmp_path, capsys):
    (tmp_path / 'parameters.json').write_text(content)
    before = {file: file.read_bytes() for file in result.iterdir()}
    assert main(['run', '--parameters', str(tmp_path / 'parameters.json'), '--out', str(result)]) == 2
    line = one_line(capsys)
    if content.startswith('{'):
        assert f'{result} holds the result of another trial' in line
    assert {file: file.read_bytes() for file in result.iterdir()} == before
