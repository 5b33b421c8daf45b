"""What the jobs of a benchmark leave in their process, and how several processes share them and their file."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from nnictl_experiment import ROOT

from benchmarks.kept_rows import in_any_order, keep, read_rows


class Network:
    """One that refers to itself, as a trainer and what it trains do."""

    def __init__(self):
        self.trainer = self


@pytest.mark.parametrize('fails', [False, True])
def test_a_job_leaves_nothing_that_refers_to_itself(fails):
    left = []

    def train(job):
        left.append(weakref.ref(Network()))
        if fails:
            raise RuntimeError(job)

    gc.disable()  # or Python might do it by chance
    try:
        if fails:
            with pytest.raises(RuntimeError):
                list(in_any_order(train, [1], processes=1))
        else:
            list(in_any_order(train, [1, 2], processes=1))
        assert [network() for network in left] == [None] * len(left)
    finally:
        gc.enable()


PROGRAM = """
import os, sys, time
from pathlib import Path

sys.path.insert(0, {root!r})
from benchmarks.kept_rows import in_any_order

def sleep(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == '__main__':
    list(in_any_order(sleep, [sys.argv[1]] * 2, 2))
"""


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def has_ended(process):  # or is a zombie, where nobody asks for its status
    try:
        return Path('/proc', process, 'stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    except FileNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_run_that_started_them_in_the_middle_of_a_job(sent, tmp_path):
    program, jobs = tmp_path / 'program.py', tmp_path / 'jobs'
    program.write_text(PROGRAM.format(root=str(ROOT)))
    jobs.mkdir()
    run = subprocess.Popen([sys.executable, str(program), str(jobs)])
    try:
        wait_until(lambda: len(list(jobs.iterdir())) == 2)
    finally:
        run.send_signal(sent)
        run.wait()
    for job in jobs.iterdir():
        wait_until(lambda job=job: has_ended(job.name))


def end_itself(when):
    if when:
        wait_until(when.exists)
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_and_what_others_had_found_is_there(tmp_path):
    found = in_any_order(end_itself, [None, tmp_path / 'now', tmp_path / 'never'], processes=2)
    assert next(found) == 1
    (tmp_path / 'now').touch()
    with pytest.raises(ChildProcessError, match=r'a worker was killed, .*; start again to go on'):
        list(found)


@pytest.mark.parametrize('settings', ['995016560754', '9e5113171779', '001234567890'])
def test_a_digest_that_looks_like_a_number_is_read_as_it_was_written(settings, tmp_path):
    file = tmp_path / 'rows.csv'
    keep(read_rows(file, ['settings']), file, [[{'settings': settings, 'seed': 0}]], 'jobs', 1)
    assert read_rows(file, ['settings']).settings.tolist() == [settings]


def test_a_second_run_with_the_same_file_is_refused_and_takes_nothing_away(tmp_path):
    file, link = tmp_path / 'rows.csv', tmp_path / 'folder' / 'link.csv'
    link.parent.mkdir()
    link.symlink_to(file)

    def found():
        yield [{'seed': 0}]
        with pytest.raises(ValueError, match=r'rows\.csv: another run adds rows to it'):
            keep(read_rows(file, ['seed']), file, [[{'seed': 1}]], 'jobs', 1)
        with pytest.raises(ValueError, match=r'link\.csv: another run adds rows to it'):
            keep(read_rows(link, ['seed']), link, [[{'seed': 1}]], 'jobs', 1)
        keep(read_rows(None, ['seed']), tmp_path / 'others.csv', [[{'seed': 1}]], 'jobs', 1)
        yield [{'seed': 2}]

    keep(read_rows(file, ['seed']), file, found(), 'jobs', 2)
    assert read_rows(file, ['seed']).seed.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r'rows\.csv: another run has added rows to it in the meantime'):
        keep(read_rows(None, ['seed']), file, [[{'seed': 4}]], 'jobs', 1)
    keep(read_rows(file, ['seed']), file, [[{'seed': 3}]], 'jobs', 1)
    assert read_rows(file, ['seed']).seed.tolist() == [0, 2, 3]
    assert {path.name for path in tmp_path.glob('[!.]*')} == {'rows.csv', 'others.csv', 'folder'}
