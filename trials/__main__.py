"""``python -m trials``: run a trial, check an experiment, export a network, drop a lost host of an experiment."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path

from search_space import entry_point
from search_space.entry_point import Parser, path_argument, whole_argument
from search_space.read_file import read_json
from search_space.rules import one_line, whole
from search_space.slow_imports import slow_imports
from search_space.whole_file import check_folder
from trials.trial_folder import FAILURE, RECORD, read_record

_NAMES_SHOWN = 20
_PROBLEMS_SHOWN = 100


def parser() -> argparse.ArgumentParser:
    top = Parser(prog='python -m trials', description='Check an experiment, run a trial of it, export what it trained.')
    commands = top.add_subparsers(dest='command', required=True)
    run = commands.add_parser(
        'run',
        help='run one trial',
        description='Run one trial: the one that NNI asks for, or one repeated from a file of its parameters.',
    )
    run.add_argument(
        '--parameters',
        type=path_argument,
        metavar='FILE',
        help='JSON of the parameters, or the trial.json that a trial left; without it NNI is asked for them',
    )
    run.add_argument(
        '--out',
        type=path_argument,
        metavar='DIR',
        help="where to leave network.pt, trial.json and the trial's history; NNI's folder of the trial by default",
    )
    run.add_argument(
        '--checkpoints',
        type=path_argument,
        metavar='DIR',
        help='where the trial leaves a checkpoint after each epoch, and goes on from one of the same parameters; '
        "by default beside the folders of the experiment's trials, or in --out",
    )
    check = commands.add_parser(
        'check',
        help='say what is wrong with an experiment.yaml',
        description='Say what is wrong with an experiment.yaml, one line each, and start no experiment. Strategies '
        'of your own that it names are imported and made, each in a process with a time limit. That runs their code.',
    )
    check.add_argument(
        'file', type=path_argument, nargs='?', default=Path('experiment.yaml'), help='by default experiment.yaml'
    )
    check.add_argument('--no-own-code', action='store_true', help='do not import strategies of your own')
    drop = commands.add_parser(
        'drop-host',
        help='let an experiment on several hosts go on without one that is lost',
        description='Stop an experiment, take a host off its list, and resume it. No finished trial is lost.',
    )
    drop.add_argument('experiment', help="NNI's id of it")
    drop.add_argument('host', help='as in machineList of its trainingService')
    export = commands.add_parser(
        'export',
        help='write a trained network to a file for use elsewhere',
        description='Write what a trial trained to a file for use elsewhere, with its choices, input size, class '
        "labels and normalisation in it; its outputs are checked against PyTorch's first.",
    )
    export.add_argument(
        'checkpoint', type=path_argument, help="a trial's folder, or the network.pt in it beside trial.json"
    )
    export.add_argument('--format', required=True, help='onnx, torchscript or torch')
    export.add_argument('--out', type=path_argument, metavar='FILE', help='by default beside network.pt')
    prepare = commands.add_parser(
        'prepare',
        help='copy a folder of images to train from, each once at the size that is read',
        description='Copy a folder of images to train from: each image once, as JPEG, its shorter side at 256 pixels. '
        'A copy that was ended half way is gone on with.',
    )
    prepare.add_argument('dataset', choices=['imagenet', 'image-folder'], help='what the folder is read as')
    prepare.add_argument('--folder', type=path_argument, required=True, metavar='DIR', help='the images')
    prepare.add_argument('--out', type=path_argument, required=True, metavar='DIR', help='the copy, for dataset/folder')
    prepare.add_argument(
        '--side',
        type=whole_argument(whole(1, 8192)),
        default=256,
        metavar='PIXELS',
        help='of the shorter side (default: 256)',
    )
    prepare.add_argument(
        '--processes', type=whole_argument(whole(1, 1024)), metavar='N', help='by default one for each CPU'
    )
    _add_evaluate(commands)
    imported = commands.add_parser(
        'import',
        help='make a network of this project of weights that others released',
        description='Read weights of the TensorFlow program that the paper was written with, or of the PyTorch program '
        'that does the same, and leave what a trial leaves: export, evaluate and recipes take it. Nothing that is in a '
        'file is run. Which tensor became which, and what was not used, is in weights.csv.',
    )
    imported.add_argument(
        'file',
        type=path_argument,
        help='a PyTorch file, or the .index of a TensorFlow checkpoint with its data beside it',
    )
    imported.add_argument('--network', required=True, help="autonl-l, autonl-s, or the path of a network's file")
    imported.add_argument('--out', type=path_argument, required=True, metavar='DIR', help='where the network goes')
    imported.add_argument('--dataset', default='imagenet', help='that it was trained on (imagenet)')
    imported.add_argument(
        '--division',
        default='auto',
        help="what the program that trained a PyTorch file divided LightNL's product by: formula (H·W), as-written "
        '(f / H * W, as one program has it), or auto: what the file shows (auto)',
    )
    return top


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    commands = {
        'check': lambda: _check(args),
        'drop-host': lambda: _drop_host(args.experiment, args.host),
        'evaluate': lambda: _evaluate(args),
        'export': lambda: _export(args.checkpoint, args.format, args.out),
        'import': lambda: _import(args),
        'prepare': lambda: _prepare(args),
    }
    if args.command in commands:
        return entry_point.run('python -m trials', commands[args.command])
    out = args.out
    if out is None and args.parameters is None and 'NNI_OUTPUT_DIR' in os.environ:
        out = Path(os.environ['NNI_OUTPUT_DIR'])

    def run() -> int:
        if args.out is not None:
            check_folder(args.out)  # before the training that it is to hold
        try:
            return _run(args.parameters, out, args.checkpoints)
        except Exception as error:
            if out is not None and not (out / RECORD).exists():  # beside a result it would be taken for that trial's
                _save_failure(out, error)
            raise

    return entry_point.run('python -m trials', run, out)


def _check(args: argparse.Namespace) -> int:
    from trials.check import experiment_problems

    problems = experiment_problems(args.file, own_code=not args.no_own_code)
    for problem in problems[:_PROBLEMS_SHOWN]:
        entry_point.print_error(problem)
    if len(problems) > _PROBLEMS_SHOWN:
        entry_point.print_error(f'{args.file}: {len(problems) - _PROBLEMS_SHOWN:,} more of such lines')
    return 2 if problems else 0


def _prepare(args: argparse.Namespace) -> int:
    from trials.prepared_copy import prepare, summary

    for part in ('train', 'val') if args.dataset == 'imagenet' else ():
        if not (args.folder / part).is_dir():
            raise ValueError(f'--folder {args.folder}: ImageNet has folders train and val, and {part} is missing')
    print(summary(prepare(args.folder, args.out, side=args.side, processes=args.processes), args.out))
    return 0


def _drop_host(experiment: str, host: str) -> int:
    from trials.lost_host import drop_host

    drop_host(experiment, host)
    print(f'{experiment} goes on without {host}: python -m analysis table {experiment} --wait')
    return 0


def _export(checkpoint: Path, format: str, out: Path | None) -> int:
    with slow_imports():
        from trials.export import CHECKED_BATCHES, export

    _configure_logging()
    exported = export(checkpoint, format, out)
    print(
        f"{exported.file}: {exported.bytes / 2**20:.2f} MiB, its logits PyTorch's to {exported.difference:.0e} of the "
        f'largest, at batches of {" and ".join(map(str, CHECKED_BATCHES))}'
    )
    return 0


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser(
        'evaluate',
        help='measure a trained or imported network on a data set',
        description='Measure what a trial or an import left: accuracy among the first class and the first five, loss, '
        'images per second. What is not said is as in the trial; for imported weights, as their own program has it.',
    )
    evaluate.add_argument(
        'network', type=path_argument, help="a trial's folder, or the network.pt in it beside trial.json"
    )
    evaluate.add_argument('--dataset', metavar='NAME', help='another data set with as many classes')
    evaluate.add_argument('--folder', metavar='DIR', help='where its files are')
    evaluate.add_argument('--part', default='test', help='test or validation (test)')
    evaluate.add_argument('--input-size', type=int, metavar='PIXELS', help='side of the images')
    evaluate.add_argument('--crop', help='of photographs: resize, square or tensorflow')
    evaluate.add_argument('--interpolation', help='of photographs: bilinear or bicubic')
    evaluate.add_argument('--batch-size', type=int, metavar='N', help='images at a time')
    evaluate.add_argument('--workers', type=int, metavar='N', help='processes that read images')
    evaluate.add_argument(
        '--recalibrate',
        type=int,
        default=0,
        metavar='N',
        help="estimate BN's statistics anew on N training batches first; network.pt stays as it is",
    )
    evaluate.add_argument('--precision', help='auto, 32, bf16-mixed or 16-mixed')
    evaluate.add_argument('--device', default='auto', help='auto (a GPU where there is one), cpu or cuda (auto)')
    evaluate.add_argument('--threads', type=int, metavar='N', help='CPU threads')
    evaluate.add_argument('--json', action='store_true', help='print JSON')
    evaluate.add_argument('--per-class', type=path_argument, metavar='FILE', help='CSV of the accuracy of each class')
    evaluate.add_argument(
        '--confusion', type=path_argument, metavar='FILE', help='CSV of classes and what they were taken for'
    )


def _evaluate(args) -> int:
    with slow_imports():
        import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
        from search_space.progress import progress
        from search_space.whole_file import check_writable
        from trials.evaluate import evaluate, evaluation_text, write_confusion, write_per_class

    _configure_logging()
    tables = [(args.per_class, write_per_class), (args.confusion, write_confusion)]
    photographs = {'crop': args.crop, 'interpolation': args.interpolation}
    for file, _ in tables:
        if file is not None:
            check_writable(file)
    found = evaluate(
        args.network,
        dataset=args.dataset,
        folder=args.folder,
        part=args.part,
        arguments={key: value for key, value in photographs.items() if value is not None},
        input_size=args.input_size,
        batch_size=args.batch_size,
        workers=args.workers,
        recalibrate=args.recalibrate,
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        progress=partial(progress, what='batches'),
    )
    for file, write in tables:
        if file is not None:
            write(file, found)
    print(json.dumps(found.as_dict(), indent=2) if args.json else evaluation_text(str(args.network), found))
    return 0


def _import(args) -> int:
    with slow_imports():
        import search_space.nni_nas  # noqa: F401 - before Lightning: it silences a warning of NNI's
        from trials.weights.import_weights import TABLE, import_weights

    imported = import_weights(args.file, args.network, args.out, dataset=args.dataset, division=args.division)
    lines = [
        f'{args.out}: {args.network} with the weights of a {imported.kind} file; all {len(imported.filled)} tensors of '
        'the network filled, each once',
        f'not used: {len(imported.unused)} tensors of the file' + (':' if imported.unused else ''),
        *(f'  {name}' for name in imported.unused[:_NAMES_SHOWN]),
        *([f'  ... (all of them in {args.out / TABLE})'] if len(imported.unused) > _NAMES_SHOWN else []),
        *([imported.division] if imported.division else []),
    ]
    print('\n'.join(lines))
    return 0


def _run(file: Path | None, out: Path | None, checkpoints: Path | None) -> int:
    import nni

    from strategies.experiment.end_with_manager import end_with_manager

    if file is None:
        end_with_manager()
    # Ask NNI first, before the slow imports below, and say so: the tuner starts the next trial only then.
    parameters = nni.get_next_parameter() if file is None else _read_parameters(file)
    if not parameters:
        raise ValueError('NNI gave no parameters; outside an experiment, name a file with --parameters')
    if file is not None and out is not None:
        _check_no_other(out, parameters)
    if out is not None:
        (out / FAILURE).unlink(missing_ok=True)
    if file is None:
        _show_in_tensorboard(out)
        nni.report_intermediate_result({'default': 0.0, 'epoch': 0})
        earlier = _earlier_result(out, parameters)
        if earlier is not None:
            nni.report_final_result(earlier)
            return 0

    with slow_imports():
        from trials.given_networks import check_given
        from trials.identity import contents
        from trials.parameters import TrialParameters
        from trials.run import run_trial, save_trial
        from trials.training.checkpoint import EpochCheckpoint, checkpoint_path, experiment_folder
        from trials.training.launch import other_processes

    _configure_logging()
    trial = TrialParameters.from_flat(parameters)
    check_given(trial)
    files = contents(parameters)  # now, as somebody may edit them while the trial runs
    if out is not None:
        checkpoints = checkpoints or (experiment_folder(out) if file is None else out)
    checkpoint = EpochCheckpoint(checkpoint_path(checkpoints, parameters)) if checkpoints else None
    report = nni.report_intermediate_result if file is None else _print
    on_terminal = file is not None and sys.stdout.isatty()
    with other_processes(parameters, trial.devices, checkpoint):
        result, network = run_trial(trial, report, out, checkpoint, progress_bar=on_terminal)
    try:
        # Before anything is written, as a full disk must not lose it; and what NNI does not hear of is written.
        (_print if file else nni.report_final_result)(result)
    finally:
        try:
            if out is not None:
                save_trial(out, parameters, result, network, files)
            if checkpoint is not None:
                checkpoint.remove()
        except OSError as error:
            if file is not None:
                raise
            logging.getLogger('trials').warning('the result is reported, but its files are not there: %s', error)
    return 0


def _check_no_other(out: Path, parameters: dict) -> None:
    """Raises ValueError where ``out`` holds the result of a trial of other parameters, which would be overwritten."""
    try:
        earlier = read_record(out / RECORD).parameters
    except ValueError:
        return
    if earlier != parameters:
        raise ValueError(f'{out} holds the result of another trial, as its {RECORD} says: name another folder')


def _show_in_tensorboard(out: Path | None) -> None:
    """Lead NNI's web UI to the trial's history. NNI 3.0 opens TensorBoard on another folder than the trial is given."""
    if out is None or out.parent.name != 'trials' or out.parents[2].name != 'environments':
        return
    opened = out.parents[3] / 'trials' / out.name / 'output' / 'tensorboard'
    with contextlib.suppress(OSError):  # it is a convenience, and on another machine it is not there
        (out / 'tensorboard').mkdir(parents=True, exist_ok=True)
        opened.parent.mkdir(parents=True, exist_ok=True)
        opened.symlink_to(os.path.relpath(out / 'tensorboard', opened.parent), target_is_directory=True)


def _earlier_result(out: Path | None, parameters: dict) -> dict | None:
    """What this very trial had found when NNI, which starts it again after ``nnictl resume``, was not there to hear."""
    from trials.identity import contents

    try:
        record = read_record(out / RECORD) if out is not None else None
    except ValueError:
        return None
    if record is None or record.parameters != parameters or record.files not in ({}, contents(parameters)):
        return None
    return record.result


def _configure_logging() -> None:
    """A line to standard error for what trials and strategies say; of Lightning and NNI's evaluator only errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('python -m trials: %(message)s'))
    for name in ('trials', 'strategies'):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(handler)
    for name in ('pytorch_lightning', 'lightning_fabric', 'nni.nas.evaluator'):
        logging.getLogger(name).setLevel(logging.ERROR)


def _print(metrics: dict) -> None:
    from tqdm import tqdm

    tqdm.write(json.dumps(metrics))  # above the progress bar, where there is one


def _save_failure(out: Path, error: Exception) -> None:
    """Leave in ``out`` why the trial failed, for who looks at it later; where nothing can be written, only the log."""
    from search_space.whole_file import write_whole

    reason = {'type': type(error).__name__, 'error': one_line(error)}
    with contextlib.suppress(OSError):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / FAILURE, json.dumps(reason, indent=2).encode())


def _read_parameters(file: Path) -> dict:
    data = read_json(file)
    data = data.get('parameters', data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not data:
        raise ValueError(f'{file}: the parameters of a trial are a JSON object with its keys and values')
    return data


if __name__ == '__main__':
    sys.exit(main())
