"""What is wrong with an ``experiment.yaml``, before anything is started: ``python -m trials check``.

NNI shows in a log only that a tuner died at its start, and why; and a trial that finds its parameters wrong has been
started, twice. Here the same is said in one line each. What needs no torch is looked at first, in about a second: NNI's
own keys (by NNI's configuration classes), the search space, the budgets. If that is right, the recipes and the classes
of the strategies follow, which takes as long as it takes to import them.

Where the trials run on this machine, their GPUs, the files of their data and the networks that a recipe names are
looked for too. Nothing that the file names is run, but for strategies of the user's own, each in a process with a time
limit, and the Python on ``PATH``, which is asked for its modules.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_space.read_file import read_json, read_text
from search_space.rules import one_line, shown, whole
from search_space.skeleton import closest
from search_space.skeleton_file import load_skeleton, shipped_skeletons
from search_space.yaml_mapping import read_mapping
from strategies.experiment.arguments import argument_problems, search_space_problems

if TYPE_CHECKING:
    from .parameters import TrialParameters

__all__ = ['experiment_problems']

TUNER = 'strategies.tuner.StrategyTuner'
_WHOLE_PATH = 'give it from the root'
_CONCURRENCY = whole(1, 10_000)
_NEEDED = ('searchSpaceFile', 'trialCommand', 'trialConcurrency', 'trainingService', 'tuner')


def experiment_problems(file: Path, own_code: bool = True) -> list[str]:
    """What is wrong with the experiment of a YAML file, a line each that begins with the file; empty if it is valid.

    Args:
        file: of the experiment.
        own_code: import and make the strategies that are neither NNI's nor this project's, each in its own process.
    """
    try:
        config = read_mapping(read_text(file), str(file), 'an experiment is a mapping with the key tuner')
    except ValueError as error:
        return [str(error)]
    folder = file.absolute().parent
    problems = [
        *_nni_problems(config, folder),
        *_trial_command_problems(config, folder),
        *_tuner_problems(config, folder),
    ]
    return [f'{file}: {problem}' for problem in problems or _slow_problems(config, folder, own_code)]


def _nni_problems(config: dict[str, Any], folder: Path) -> list[str]:
    """NNI's own keys: unknown or missing ones, wrong types, then whatever else NNI has to say."""
    from nni.experiment.config import ExperimentConfig, utils
    from nni.experiment.config.algorithm import _AlgorithmConfig
    from nni.experiment.config.utils.internal import _get_ts_config_class

    problems = _unknown_keys(config, ExperimentConfig, '')
    problems += [
        f'{key} must be a text of printable characters, not {shown(value)}'
        for key, value in _texts(config)
        if not all(character.isprintable() or character in '\n\t' for character in value)
    ]
    problems += [f'{key} is missing' for key in _NEEDED if config.get(key) is None and key != 'trialCommand']
    service = config.get('trainingService')
    for one in service if isinstance(service, list) else [service]:
        platform = one.get('platform') if isinstance(one, dict) else None
        cls = _get_ts_config_class(platform) if isinstance(platform, str) else None
        if cls is not None:
            problems += _unknown_keys(one, cls, 'trainingService.')
        elif one is not None:
            given = one.get('platform') if isinstance(one, dict) else one
            hint = closest(given, ('local', 'remote', 'openpai', 'aml', 'dlc', 'kubeflow', 'frameworkcontroller'))
            problems.append(
                f"trainingService.platform must be one of NNI's training services, not {shown(given)}; {hint}"
            )
    if isinstance(config.get('tuner'), dict):
        problems += _unknown_keys(config['tuner'], _AlgorithmConfig, 'tuner.')
    elif config.get('tuner') is not None:
        problems.append(
            f'tuner must be a mapping with className, codeDirectory, classArgs, not {shown(config["tuner"])}'
        )
    concurrency = config.get('trialConcurrency')
    if concurrency is not None:
        problems += filter(None, [_CONCURRENCY.problem('trialConcurrency', concurrency)])
    if problems:
        return problems
    others = {key: value for key, value in config.items() if key != 'searchSpaceFile'}  # which is looked at here
    utils.set_base_path(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of a service's address, which nnictl repeats
            logging.getLogger('nni.experiment.config').setLevel(logging.ERROR)
            ExperimentConfig(**others, searchSpace={}).validate()
    except Exception as error:
        return [_told_by_nni(error)]
    finally:
        utils.unset_base_path()
    return []


def _unknown_keys(mapping: dict, cls: type, where: str) -> list[str]:
    from nni.experiment.config.utils.internal import camel_case, case_insensitive

    known = {case_insensitive(field.name): camel_case(field.name) for field in dataclasses.fields(cls)}
    problems = []
    for key in mapping:
        wanted = known.get(case_insensitive(key)) if isinstance(key, str) else None
        if wanted is None:
            problems.append(f'{where}{one_line(key, 100)}: unknown key; {closest(key, known.values())}')
        elif wanted in mapping and key != wanted:
            problems.append(f'{where}{key}: NNI takes it for {wanted}, which is there too')
        elif key != wanted:
            problems.append(f'{where}{key}: write it as {wanted}')
    return problems


def _texts(value: Any, name: str = '') -> Iterator[tuple[str, str]]:
    """The texts of an experiment, and where they stand."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _texts(item, f'{name}.{one_line(key, 100)}'.lstrip('.'))


def _told_by_nni(error: Exception) -> str:
    """NNI's own message in the words of the YAML file; for a bare ``assert``, what it wanted."""
    from nni.experiment.config.utils.internal import camel_case

    text = one_line(error, 1000)
    if wrong := re.fullmatch(r'\w+: type of (\w+) \((.*)\) is not (.*)', text):
        wanted = re.sub(r"<class '(?:\w+\.)*(\w+)'>|typing\.|pathlib\.", lambda m: m[1] or '', wrong[3])
        return f'{camel_case(wrong[1])} must be {wanted}, not {wrong[2]}'
    if wrong := re.fullmatch(r'(\w+): (\w+) is not set', text):
        return f'{camel_case(wrong[2])} of {wrong[1]} is missing'
    if isinstance(error, AssertionError) and not text:
        line = traceback.extract_tb(error.__traceback__)[-1].line or ''
        text = re.sub(r'self\.(\w+)', lambda m: camel_case(m[1]), line.removeprefix('assert '))
        return f'NNI wants: {text}'
    return text or type(error).__name__


def _trial_command_problems(config: dict[str, Any], folder: Path) -> list[str]:
    """Is the Python that a trial on this machine is started with one that has NNI and this package?"""
    service, command = config.get('trainingService'), config.get('trialCommand')
    if not isinstance(service, dict) or service.get('platform') != 'local':
        return []
    if not isinstance(command, str) or not command.strip():
        return [f'trialCommand must be a command such as python3 -m trials run, not {shown(command)}']
    try:
        words = shlex.split(command)
    except ValueError as error:
        return [f'trialCommand: {error}: {shown(command)}']
    program = shutil.which(words[0])
    if program is None:
        return [f'trialCommand: there is no program {shown(words[0])} on PATH']
    if not re.fullmatch(r'python(3(\.\d+)?)?', words[0]):
        return []  # a program that the file names by a path is not run
    modules = ['nni', words[words.index('-m') + 1].partition('.')[0]] if '-m' in words[:-1] else ['nni']
    code = 'import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])'
    code_folder = folder / str(config.get('trialCodeDirectory', '.'))
    if not code_folder.is_dir():
        return []  # NNI says so
    try:
        found = subprocess.run(
            [program, '-c', code, *modules], cwd=code_folder, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f'trialCommand: {program} cannot be asked for its modules: {one_line(error, 200)}']
    return [
        f'trialCommand: {program} has no module {module!r}: name the python3 that this package is installed for'
        for module in found.stdout.split()
    ]


def _tuner_problems(config: dict[str, Any], folder: Path) -> list[str]:
    tuner = config.get('tuner')
    if not isinstance(tuner, dict):
        return []  # said already
    if tuner.get('className') != TUNER:
        return [f'tuner.className must be {TUNER}, not {shown(tuner.get("className"))}']
    arguments = tuner.get('classArgs', {})
    problems = [f'tuner.classArgs: {problem}' for problem in argument_problems(arguments)]
    try:
        load_skeleton(arguments['skeleton'])
    except (ValueError, KeyError, TypeError):
        return problems  # which say so
    if arguments['skeleton'] not in shipped_skeletons() and not os.path.isabs(arguments['skeleton']):
        problems.append(
            f'tuner.classArgs: skeleton: {shown(arguments["skeleton"])} is a relative path, but tuner and trials run '
            f'in folders of their own: {_WHOLE_PATH}'
        )
    max_macs = None if problems else arguments.get('max_macs')
    return problems + _search_space_problems(config, folder, arguments['skeleton'], max_macs)


def _search_space_problems(config: dict[str, Any], folder: Path, skeleton: str, max_macs: float | None) -> list[str]:
    if config.get('searchSpaceFile') is None:
        return []
    file = folder / str(config['searchSpaceFile'])
    hint = f'write it with: python -m search_space choices {skeleton}'
    try:
        search_space = read_json(file)
    except ValueError as error:
        return [f'searchSpaceFile: {error}; {hint}']
    return [
        f'searchSpaceFile: {file}: {problem}' for problem in search_space_problems(skeleton, search_space, max_macs)
    ]


def _slow_problems(config: dict[str, Any], folder: Path, own_code: bool) -> list[str]:
    """What the trials would say to their recipes, and the strategies' classes to their arguments."""
    from strategies.experiment.contender import contender
    from strategies.experiment.own_strategy import is_own, try_strategy

    arguments = config['tuner']['classArgs']
    problems = [
        f'tuner.classArgs: {stage}: {problem}'
        for stage in ('retrain', 'search')
        if stage in arguments
        for problem in _recipe_problems(stage, arguments) or _given_problems(stage, config, folder)
    ]
    code = str(folder / str(config['tuner'].get('codeDirectory', '.')))
    if code not in sys.path:
        sys.path.append(code)  # as NNI does: a strategy may be the user's own
    searches: dict[str, float] = {}
    for name, own in arguments['strategies'].items():
        try:
            if not is_own(own['class']):
                searches[name] = contender(name, arguments).search_epochs
            elif own_code:
                try_strategy(name, arguments)
        except ValueError as error:
            problems.append(f'tuner.classArgs: {error}')
    return problems or [*_here_problems(config, folder), *_trial_number_problems(config, searches)]


def _here_problems(config: dict[str, Any], folder: Path) -> list[str]:
    """What trials on this machine would lack: the GPUs that they ask for, the files of their data."""
    from .datasets import check_files

    service = config['trainingService']
    if not isinstance(service, dict) or service.get('platform') != 'local':
        return []
    problems, wanted = [], config.get('trialGpuNumber') or 0
    if wanted > (there := _gpus()):
        problems.append(f'trialGpuNumber: {wanted}, but nvidia-smi shows {there} GPUs on this machine')
    home = folder / str(config.get('trialCodeDirectory', '.'))
    for stage in ('retrain', 'search'):
        recipe = config['tuner']['classArgs'].get(stage)
        if recipe is None:
            continue
        own = {key.removeprefix('dataset/'): value for key, value in recipe.items() if key.startswith('dataset/')}
        try:
            check_files(recipe['dataset'], home, **own)
        except ValueError as error:
            problems.append(f'tuner.classArgs: {stage}: {error}')
    return problems


def _gpus() -> int:
    """GPUs of this machine, counted as NNI's local service does it."""
    program = shutil.which('nvidia-smi')
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, '-L'], capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith('GPU ') for line in listed.splitlines())


def _trial_number_problems(config: dict[str, Any], searches: dict[str, float]) -> list[str]:
    """NNI ends an experiment at ``maxTrialNumber``, before its tests if that is less than its trials may be."""
    arguments, most = config['tuner']['classArgs'], config.get('maxTrialNumber')
    if most is None:
        return []
    budget, unit, epochs = arguments['budget'], arguments.get('budget_unit', 'epochs'), arguments['retrain']['epochs']
    planned = 0
    for name in arguments['strategies']:
        search = searches.get(name, 0.0)
        trainings = {'epochs': (budget - search) // epochs, 'trials': budget - (search > 0), 'seconds': 1}[unit]
        planned += int(trainings) + (search > 0) + arguments.get('test_runs', 1)
    if most >= planned:
        return []
    return [
        f'maxTrialNumber: {most} is less than the {planned} trials that the budgets and the tests allow for; NNI would '
        'end the experiment before its tests: leave it out'
    ]


def _recipe_problems(stage: str, arguments: dict[str, Any]) -> list[str]:
    """What a trial would say to a recipe; where that is something, also to each key alone: no mistake hides another."""
    recipe, skeleton = arguments[stage], arguments['skeleton']
    whole = _trial_problem(stage, skeleton, recipe)
    if not whole:
        return _classes_problems(recipe['dataset'], skeleton)
    least = {'dataset': 'cued-digits', 'epochs': 1, 'batch_size': 1, 'learning_rate': 0.1}
    on_devices, valid = least | {'batch_size': 1680}, least  # a multiple of many a number of devices
    of_data = [name for name in recipe if name.startswith('dataset/')]
    for name in ('dataset', *of_data, 'epochs', 'schedule', 'ema_decay', 'initial', 'teacher'):  # others are judged by
        if name in recipe and not _trial_problem(stage, skeleton, valid | {name: recipe[name]}):
            valid = valid | {name: recipe[name]}
    alone = [
        _trial_problem(stage, skeleton, (on_devices if key == 'devices' else valid) | {key: value})
        for key, value in recipe.items()
    ]
    return [problem for problem in alone if problem] or [whole]


def _classes_problems(dataset: str, skeleton: str) -> list[str]:
    """What a trial would say, its data at hand, to the classes of the space's networks."""
    from .datasets import check_classes

    try:
        check_classes(dataset, load_skeleton(skeleton))
    except ValueError as error:
        return [str(error)]
    return []


def _given_problems(stage: str, config: dict[str, Any], folder: Path) -> list[str]:
    """What a trial would say to the networks that its recipe names, which is right otherwise."""
    from .given_networks import check_given

    arguments, service = config['tuner']['classArgs'], config['trainingService']
    recipe, is_here = arguments[stage], isinstance(service, dict) and service.get('platform') == 'local'
    given = {key: os.path.expanduser(recipe[key]) for key in ('initial', 'teacher') if recipe.get(key)}
    if not given:
        return []
    left = read_json(folder / str(config['searchSpaceFile'])) if stage == 'search' else {}
    left = {f'candidates/{name}': choice['_value'] for name, choice in left.items()}
    trial, problems = _trial(stage, arguments['skeleton'], recipe | left), []
    for key, path in given.items():
        if not os.path.isabs(path):
            problems.append(
                f'{key}: {path!r} is a relative path, but trials run in folders of their own: {_WHOLE_PATH}'
            )
        elif key == 'initial' and stage == 'retrain' and not trial.initial_partly:
            problems.append(
                f'initial: not every network that is retrained is that of {path}; with initial_partly: true each takes '
                'what it has in common with it'
            )
        elif is_here or os.path.exists(path):
            try:
                check_given(dataclasses.replace(trial, **{other: '' for other in given if other != key}))
            except ValueError as error:
                problems.append(str(error).replace('trial parameter ', ''))
    return problems


def _trial_problem(stage: str, skeleton: str, recipe: dict[str, Any]) -> str:
    """What a trial would say to the recipe; nothing where it would run."""
    try:
        _trial(stage, skeleton, recipe)
    except ValueError as error:
        return str(error).replace('trial parameter ', '')
    return ''


def _trial(stage: str, skeleton: str, recipe: dict[str, Any]) -> TrialParameters:
    """A trial of the recipe; of a retraining, the first network of the space."""
    from .parameters import TrialParameters

    own = {'class': 'strategies.AutoNL'} if stage == 'search' else {}
    if stage == 'retrain':
        own = {label: candidates[0] for label, candidates in load_skeleton(skeleton).choices().items()}
    return TrialParameters.from_flat(
        {'strategy': 's', 'stage': stage, 'seed': 0, 'skeleton': skeleton, **recipe, **own}
    )
