"""The benchmark of the reader, as a command."""

import re
from subprocess import CompletedProcess

from warm_process import run_program


def run(*arguments: str) -> CompletedProcess:
    return run_program('benchmarks/speed/reader.py', *arguments)


def test_it_prints_what_a_core_reads_of_images_of_imagenets_size_and_how_many_cores_are_needed():
    done = run('--images', '20', '--rounds', '6', '--input-size', '32', '--deliver', '10000')
    assert done.returncode == 0, done.stderr
    rows = re.findall(r'\| (.*), (\d+) KB \| (.*) \| ([\d,]+) \| (.*) \| (\d+) \|', done.stdout)
    assert [(row[0], row[2]) for row in rows] == [
        (files, reader)
        for files in ('as they are', 'prepared copy')
        for reader in ("the project's reader", 'torchvision.io')
    ]
    sizes = {row[0]: int(row[1]) for row in rows}
    assert 93 <= sizes['as they are'] <= 127  # ImageNet's average is 110
    assert sizes['prepared copy'] < sizes['as they are']
    assert [row[4] for row in rows if row[4] == '1'] == [rows[0][4]]
    for ratio, low, high in (map(float, re.findall(r'[\d.]+', row[4])) for row in rows[1:]):
        assert low <= ratio <= high
    for *_, speed, _, cores in rows:
        per_second = int(speed.replace(',', ''))
        assert abs(int(cores) - 10000 / per_second) <= 1 + 10000 / per_second**2


def test_too_few_images_are_said_in_one_line():
    done = run('--images', '3')
    assert (done.returncode, done.stderr) == (
        2,
        "reader.py: argument --images: must be a whole number from 10 to 100,000, not '3'\n",
    )
