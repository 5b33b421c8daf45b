"""``python -m trials run``: one trial, of NNI's experiment manager or repeated outside it; ``check``: an experiment."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m trials', description='Check an experiment, or run a trial of it.')
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser(
        'run',
        help='run one trial',
        description='Run one trial: the one that NNI asks for, or one repeated from a file of its parameters.',
    )
    run.add_argument(
        '--parameters',
        type=Path,
        metavar='FILE',
        help='JSON of the parameters, or the trial.json that a trial left; without it NNI is asked for them',
    )
    run.add_argument(
        '--out', type=Path, metavar='DIR', help="where to leave network.pt and trial.json; NNI's by default"
    )
    check = commands.add_parser(
        'check',
        help='say what is wrong with an experiment.yaml',
        description='Say what is wrong with an experiment.yaml, one line each, and start nothing.',
    )
    check.add_argument('file', type=Path, nargs='?', default=Path('experiment.yaml'), help='by default experiment.yaml')
    args = parser.parse_args(arguments)
    if args.command == 'check':
        return _check(args.file)
    try:
        return _run(args.parameters, args.out)
    except ValueError as error:
        print(f'python -m trials: {error}', file=sys.stderr)
        return 2


def _check(file: Path) -> int:
    from trials.check import experiment_problems

    problems = experiment_problems(file)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 2 if problems else 0


def _run(file: Path | None, out: Path | None) -> int:
    import os

    import nni

    # Ask NNI first, before the slow imports below, and say so: the tuner starts the next trial only then.
    parameters = nni.get_next_parameter() if file is None else _read_parameters(file)
    if not parameters:
        raise ValueError('NNI gave no parameters; outside an experiment, name a file with --parameters')
    if file is None:
        nni.report_intermediate_result({'default': 0.0, 'epoch': 0})

    import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
    from trials.parameters import TrialParameters
    from trials.train import run_trial, save_trial

    logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
    trial = TrialParameters.from_flat(parameters)
    if file is None:
        report = nni.report_intermediate_result
    else:

        def report(metrics):
            print(json.dumps(metrics))

    result, network = run_trial(trial, report)
    if out is None and file is None:
        out = Path(os.environ['NNI_OUTPUT_DIR'])
    if out is not None:
        save_trial(out, parameters, result, network)
    if file is None:
        nni.report_final_result(result)
    else:
        print(json.dumps(result))
    return 0


def _read_parameters(file: Path) -> dict:
    try:
        data = json.loads(file.read_text('utf-8'))
    except OSError as error:
        raise ValueError(f'{file}: {error.strerror}') from None
    except ValueError:
        raise ValueError(f'{file}: not JSON') from None
    data = data.get('parameters', data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not data:
        raise ValueError(f'{file}: the parameters of a trial are a JSON object with its keys and values')
    return data


if __name__ == '__main__':
    sys.exit(main())
