"""``benchmarks/speed/trial_start.py``, on programs that import little."""

from benchmarks.speed import trial_start


def test_it_prints_seconds_of_every_program_and_what_collecting_garbage_costs(monkeypatch, capsys):
    monkeypatch.setattr(trial_start, 'PROGRAMS', dict.fromkeys(trial_start.PROGRAMS, 'sum(range(10**6))'))
    monkeypatch.setattr('sys.argv', ['trial_start.py', '--rounds', '3'])
    trial_start.main()
    *seconds, ratio = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in seconds] == list(trial_start.PROGRAMS)
    assert all(float(line.split()[-2]) > 0 for line in seconds)
    assert ratio.startswith('garbage collected / not ')
