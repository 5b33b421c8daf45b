"""What is not an experiment of ours is refused: one line that says what is wrong, exit status 2."""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from records import Records, sample

from analysis import find_experiment, nni_server
from analysis.__main__ import main


def refusal(arguments, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert output.out == ''
    return line


def damaged(folder, content):
    (folder / 'db').mkdir(parents=True)
    (folder / 'db' / 'nni.sqlite').write_bytes(content)
    return folder


def cut_short(folder):
    records = Records(folder / 'whole')
    for number in range(50):
        records.trained(f't{number}', 0.9, 30, sample())
    return damaged(folder / 'cut', (folder / 'whole' / 'db' / 'nni.sqlite').read_bytes()[:9000])


def without_json(folder):
    records = Records(folder / 'e')
    records.database.execute("update ExperimentProfile set params = '{'")
    records.database.commit()
    return records.folder


CASES = {
    'that does not exist': (lambda folder: 'nowhere', "no experiment 'nowhere'"),
    'in an empty folder': (lambda folder: folder, 'no experiment'),
    'of another tuner': (
        lambda folder: Records(folder / 'e', tuner='x.Tuner').folder,
        'was not run by strategies.tuner',
    ),
    'that was never started': (lambda folder: Records(folder / 'e', tuner=None).folder, 'it was never started'),
    'without trials': (lambda folder: Records(folder / 'e').folder, 'experiment e is empty: no trial was started'),
    'with no database': (lambda folder: damaged(folder / 'e', b'not a database' * 100), 'its database cannot be read'),
    'with half a database': (cut_short, 'its database cannot be read'),
    'with an empty database': (lambda folder: damaged(folder / 'e', b''), 'its database cannot be read'),
    'without a configuration': (without_json, 'its configuration in db/nni.sqlite is not JSON'),
}


@pytest.mark.parametrize('command', ['table', 'report', 'export'])
@pytest.mark.parametrize('case', CASES)
def test_an_experiment_is_refused(case, command, tmp_path, capsys):
    make, message = CASES[case]
    out = [] if command == 'table' else ['--out', str(tmp_path / 'out')]
    assert message in refusal([command, str(make(tmp_path)), *out], capsys)
    assert not (tmp_path / 'out').exists()


@contextmanager
def server(answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if answer is not None else 404)
            self.end_headers()
            self.wfile.write(answer or b'')

        def log_message(self, *arguments):
            pass

    with HTTPServer(('127.0.0.1', 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.shutdown()


@pytest.mark.parametrize(
    ('answer', 'message'),
    [
        (None, 'no experiment answers there (HTTP 404); does its URL have a prefix?'),
        (b'<html>', 'what answers there is not an experiment of NNI'),
        (b'{}', 'what answers there is not an experiment of NNI'),
        (b'[1]', 'what answers there is not an experiment of NNI'),
    ],
)
def test_a_url_where_no_experiment_answers_is_refused(answer, message, capsys):
    with server(answer) as url:
        assert f'{url}: {message}' in refusal(['table', url], capsys)


def test_a_url_where_nothing_answers_is_refused(capsys):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{free.getsockname()[1]}'
    assert f'{url}: nothing answers there' in refusal(['table', url], capsys)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    records = Records(tmp_path / 'e')
    records.trained('a', 0.9, 30, sample())
    (tmp_path / 'file').write_text('')
    line = refusal(['report', str(records.folder), '--out', str(tmp_path / 'file')], capsys)
    assert str(tmp_path / 'file') in line


@pytest.mark.parametrize('arguments', [[], ['tabel'], ['report', 'x'], ['table', '--no-such-option']])
def test_a_command_line_that_is_wrong_is_refused_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_is_there_without_the_imports_that_take_seconds():
    code = 'import sys, analysis.__main__ as m; m.parser().format_help(); print(*sys.modules)'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert not {'torch', 'pandas', 'nni', 'matplotlib'} & set(loaded)


@pytest.mark.parametrize('arguments', [['table'], ['table', '--wait'], ['table', 'AbCdEf']], ids=' '.join)
def test_a_home_that_cannot_be_written_keeps_nothing_waiting(arguments, tmp_path, capsys, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'file'))
    assert 'no experiment' in refusal(arguments, capsys)
    home = tmp_path / 'home'
    records = Records(home / 'nni-experiments' / 'AbCdEf')
    records.trained('a', 0.9, 30, sample())
    (home / 'nni-experiments').chmod(0o555)
    monkeypatch.setenv('HOME', str(home))
    assert main(['table', 'AbCdEf']) == 1
    assert 'experiment AbCdEf is STOPPED' in capsys.readouterr().err


class Manager:
    """nnictl's record of an experiment ``AbCdEf``, and what answers at its port."""

    def __init__(self, folder):
        self.experiment, self.file = Records(folder / 'AbCdEf').experiment, folder / '.experiment'
        self.record = {'status': 'RUNNING', 'logDir': str(folder)}
        self.id, self.seconds = 'AbCdEf', 0.0

    def answer(self, connection):
        with suppress(OSError):
            asked = connection.recv(10_000)
            time.sleep(self.seconds)
            answer = {'id': self.id} if b'/experiment ' in asked else {'status': 'DONE'}
            connection.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n' + json.dumps(answer).encode())
            connection.close()

    def write(self, url):
        record = {**self.record, 'port': int(url.rpartition(':')[2])}
        self.file.write_text(json.dumps({'AbCdEf': record}))


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    return Manager(tmp_path / 'nni-experiments')


def test_a_status_is_what_the_manager_says(manager):
    with connection_that(manager.answer) as url:
        manager.write(url)
        assert manager.experiment.status() == 'DONE'
    assert manager.experiment.status() == 'STOPPED'  # nothing is at its port


def test_a_status_is_waited_for_while_nni_writes_its_records_anew(manager):
    manager.file.touch()  # emptied, and not written yet
    with connection_that(manager.answer) as url:
        threading.Timer(0.5, manager.write, [url]).start()
        assert manager.experiment.status() == 'DONE'


def test_a_manager_that_is_too_busy_to_answer_has_not_stopped(manager, monkeypatch):
    monkeypatch.setattr(nni_server, 'SILENCE_SECONDS', 0.2)
    manager.seconds = 2.0
    with connection_that(manager.answer) as url:
        manager.write(url)
        assert manager.experiment.status() == 'RUNNING'


def test_an_experiment_whose_port_another_one_has_by_now_has_stopped(manager):
    manager.id = 'GhIjKl'
    with connection_that(manager.answer) as url:
        manager.write(url)
        assert manager.experiment.status() == 'STOPPED'


@contextmanager
def connection_that(serve):
    """A server that does with each connection what ``serve`` does."""
    with socket.create_server(('127.0.0.1', 0)) as listening:

        def accept():
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f'http://127.0.0.1:{listening.getsockname()[1]}'


def drip(connection):
    with suppress(OSError):
        connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
        while True:
            connection.sendall(b'[')
            time.sleep(0.05)


def drip_headers(connection):
    with suppress(OSError):
        while True:
            connection.sendall(b'H')
            time.sleep(0.05)


def never_end(connection):
    with suppress(OSError):
        connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
        while True:
            connection.sendall(b'[' * 100_000)


@pytest.mark.parametrize('serve', [drip, drip_headers, never_end])
def test_a_server_that_never_comes_to_an_end_is_left(serve, monkeypatch):
    monkeypatch.setattr(nni_server, 'LARGEST_ANSWER', 1_000_000)
    with connection_that(serve) as url, pytest.raises(ValueError, match=r'its answer (took longer|is larger) than'):
        nni_server.NniServer(url, seconds=1.0).json('experiment')


def test_a_redirect_is_not_followed():
    asked = []

    def elsewhere(connection):
        asked.append(True)
        connection.close()

    with connection_that(elsewhere) as other:

        def redirect(connection):
            connection.recv(10_000)
            connection.sendall(f'HTTP/1.1 302 Found\r\nLocation: {other}/x\r\nContent-Length: 0\r\n\r\n'.encode())

        with connection_that(redirect) as url, pytest.raises(ValueError, match='no experiment answers there'):
            find_experiment(url)
    assert not asked


@pytest.mark.parametrize(
    'url',
    ['http://me:hunter2@127.0.0.1:9/prefix', 'http://127.0.0.1:9/hunter2?token=hunter2', 'ftp://me:hunter2@host/x'],
)
def test_passwords_and_prefixes_of_a_url_are_not_printed(url, capsys):
    assert 'hunter2' not in refusal(['table', url], capsys)


@pytest.mark.parametrize(
    'answers',
    [
        {'trial-jobs': 3},
        {'trial-jobs': [3]},
        {'metric-data': {'a': 1}},
        {'check-status': []},
        {'check-status': {'status': {}}},
    ],
)
def test_a_server_that_answers_like_nni_and_not_quite_is_named(answers, capsys):
    tuner = {'className': 'strategies.tuner.StrategyTuner', 'classArgs': {}}
    whole = {'experiment': {'id': 'e', 'params': {'tuner': tuner}}, 'trial-jobs': [], 'metric-data': []}
    whole |= {'check-status': {'status': 'DONE'}, **answers}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(whole[self.path.rpartition('/')[2]]).encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(('127.0.0.1', 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        line = refusal(['table', f'http://127.0.0.1:{http.server_port}'], capsys)
        http.shutdown()
    assert 'what answers there is not an experiment of NNI' in line


OUTPUTS = {
    'a device': lambda folder: '/dev/full',
    'a place that takes no files': lambda folder: '/proc/x.svg',
}


@pytest.mark.parametrize('command', [['report'], ['export'], ['plot', 'timeline']], ids=lambda command: command[0])
@pytest.mark.parametrize('case', OUTPUTS)
def test_where_nothing_can_be_written_it_is_said_before_anything_is_read(case, command, tmp_path, capsys):
    assert 'no experiment' not in refusal([*command, 'nowhere', '--out', OUTPUTS[case](tmp_path)], capsys)


def test_a_picture_has_the_name_that_was_asked_for(tmp_path, capsys):
    line = refusal(['plot', 'timeline', 'nowhere', '--out', str(tmp_path / 'x')], capsys)
    assert 'ends in .png, .svg, .pdf' in line
    assert not list(tmp_path.iterdir())
