"""Experiments as people get them wrong: each mistake is one clear line, and nothing is started."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nni.experiment.config import ExperimentConfig

from search_space import build, load_skeleton, macs, nni_search_space
from strategies.experiment import own_strategy
from trials.__main__ import main
from trials.run import save_trial

ROOT = Path(__file__).parent.parent.parent
EXPERIMENT = (ROOT / 'experiment.yaml').read_text()
CHOICES = (ROOT / 'search_space' / 'choices' / 'cued.json').read_text()
LOW, HIGH = macs(load_skeleton('cued')).range()


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the check on an experiment in a folder of its own; the lines that it prints, without the file's name."""
    (tmp_path / 'search_space' / 'choices').mkdir(parents=True)
    (tmp_path / 'trials').mkdir()
    (tmp_path / 'trials' / '__init__.py').touch()
    choices = tmp_path / 'search_space' / 'choices' / 'cued.json'
    choices.write_text(CHOICES)
    file = tmp_path / 'experiment.yaml'

    def run(text: str, search_space: str | None = CHOICES, options=()) -> list[str]:
        file.write_text(text)
        choices.unlink() if search_space is None else choices.write_text(search_space)
        status = main(['check', str(file), *options])
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert printed.out == ''
        assert status == (2 if lines else 0)
        assert all(line.startswith(str(file)) for line in lines), lines
        return [line.removeprefix(str(file)).removeprefix(': ') for line in lines]

    return run


def changed(old: str, new: str) -> str:
    assert EXPERIMENT.count(old) >= 1, old
    return EXPERIMENT.replace(old, new, 1)


def test_the_experiment_that_is_shipped_is_right(check):
    assert check(EXPERIMENT) == []


def test_several_devices_are_right(check):
    assert check(EXPERIMENT.replace('batch_size: 64', 'batch_size: 64\n      devices: 4')) == []


# What is replaced in experiment.yaml, by what, and what the one line says.
BAD = {
    # the file
    'nothing': (EXPERIMENT, '', r'an experiment is a mapping with the key tuner, not an empty file'),
    'a list': (EXPERIMENT, '- 1', r'an experiment is a mapping with the key tuner, not \[1\]'),
    'no YAML': ('budget: 12', 'budget: 12: 2', r', line \d+: not valid YAML .+'),
    'a key twice': ('    seed: 0', '    seed: 0\n    seed: 1', r", line \d+: not valid YAML \(the key 'seed' twice\)"),
    'a strategy twice': ('      random:', '      autonl:', r", line \d+: not valid YAML \(the key 'autonl' twice\)"),
    # NNI's own keys
    'unknown key of NNI': (
        'maxTrialDuration',
        'maxTrialDuratoin',
        r"maxTrialDuratoin: unknown key; .+ 'maxTrialDuration'\?",
    ),
    'unknown key of the service': (
        'platform: local',
        'platform: local\n  useActiveGpus: true',
        r"trainingService.useActiveGpus: unknown key; did you mean 'useActiveGpu'\?",
    ),
    'unknown key of the tuner': ('  classArgs:', '  gpu: 1\n  classArgs:', r'tuner.gpu: unknown key; known: .+'),
    'no concurrency': ('trialConcurrency: 2 ', '# ', r'trialConcurrency is missing'),
    'concurrency 0': ('trialConcurrency: 2', 'trialConcurrency: 0', r'trialConcurrency must be .+ 10,000, not 0'),
    'a word for the concurrency': (
        'trialConcurrency: 2',
        'trialConcurrency: two',
        r"trialConcurrency must be .+, not 'two'",
    ),
    'no service': ('trainingService:\n  platform: local', '', r'trainingService is missing'),
    'unknown service': (
        'platform: local',
        'platform: locl',
        r"trainingService.platform must be .+ 'locl'; .+ 'local'\?",
    ),
    'no search space': ('searchSpaceFile: search_space/choices/cued.json', '', r'searchSpaceFile is missing'),
    'a duration without a unit': (
        'maxTrialDuration: 30m',
        'maxTrialDuration: 30x',
        r'Bad unit in "30x", .+ d, h, m, s',
    ),
    'a negative number of trials': (
        'trialConcurrency',
        'maxTrialNumber: -1\ntrialConcurrency',
        r'NNI wants: maxTrialNumber .+ > 0',
    ),
    'a list for a name': (
        'experimentName: AutoNL',
        'experimentName: [AutoNL]#',
        r'experimentName must be .*str.*, not .+',
    ),
    'a key twice by case': (
        'trialConcurrency',
        'trialconcurrency: 2\ntrialConcurrency',
        r'trialconcurrency: NNI .+ too',
    ),
    'a key in another case': ('  classArgs:', '  class_args:', r'tuner.class_args: write it as classArgs'),
    'NUL in a path': (
        'trialCodeDirectory: .',
        r'trialCodeDirectory: "a\0b"',
        r"trialCodeDirectory must be a text of printable characters, not 'a\\x00b'",
    ),
    'fewer trials than the budgets are': (
        'trialConcurrency',
        'maxTrialNumber: 3\ntrialConcurrency',
        r'maxTrialNumber: 3 is less than the 17 trials that .+: leave it out',
    ),
    'a GPU that is not there': (
        'trainingService:\n  platform: local',
        'trialGpuNumber: 1\ntrainingService:\n  platform: local\n  useActiveGpu: false',
        r'trialGpuNumber: 1, but nvidia-smi shows 0 GPUs on this machine',
    ),
    'no folder of the trials': (
        'trialCodeDirectory: .',
        'trialCodeDirectory: nowhere',
        r'LocalConfig: .+nowhere" is not a directory',
    ),
    'no folder of the data': (
        'dataset: cued-digits\n      dataset/canvases: 24000 ',
        'dataset: image-folder\n      dataset/folder: /nowhere',
        r'tuner.classArgs: retrain: data set image-folder: /nowhere is missing; put images there .+',
    ),
    'no data in the folder': (
        'dataset: cued-digits\n      dataset/canvases: 24000 ',
        'dataset: kmnist\n      dataset/folder: tests',
        r'tuner.classArgs: retrain: data set kmnist: .+/tests/train-images-idx3-ubyte is missing, .+',
    ),
    'no folder of the tuner': ('codeDirectory: .\n', 'codeDirectory: nowhere\n', r'.+nowhere" is not a directory'),
    'no trial command': (
        'trialCommand: python3 -m trials run',
        'trialCommand: ""',
        r'trialCommand must be a command .+',
    ),
    'an unknown Python': ('python3 -m', 'python4 -m', r"trialCommand: there is no program 'python4' on PATH"),
    'an unknown module': ('-m trials run', '-m trails run', r"trialCommand: .+ has no module 'trails': .+"),
    # the tuner
    'no tuner': (EXPERIMENT[EXPERIMENT.index('tuner:') :], '', r'tuner is missing'),
    'a word for the tuner': (
        EXPERIMENT[EXPERIMENT.index('tuner:') :],
        'tuner: ours',
        r"tuner must be a mapping .+ 'ours'",
    ),
    'another tuner': (
        'StrategyTuner',
        'StrategyTunr',
        r'tuner.className must be strategies.tuner.StrategyTuner, not .+',
    ),
    'no arguments': (
        EXPERIMENT[EXPERIMENT.index('  classArgs:') :],
        '',
        r'tuner.classArgs: .+ is missing; it takes .+',
    ),
    # its arguments
    'unknown argument': ('    seed: 0', '    sed: 0', r"tuner.classArgs: unknown key 'sed'; did you mean 'seed'\?"),
    'unknown space': ('skeleton: cued', 'skeleton: cud', r"tuner.classArgs: skeleton: no skeleton 'cud': .+ 'cued'\?"),
    'a number for the space': ('skeleton: cued', 'skeleton: 3', r'tuner.classArgs: skeleton must be .+, not 3'),
    'no budget': ('budget: 12 ', '# ', r'tuner.classArgs: budget is missing; it takes a number above 0'),
    'negative budget': ('budget: 12', 'budget: -12', r'tuner.classArgs: budget must be a number above 0, not -12'),
    'a word for the budget': ('budget: 12', 'budget: much', r"tuner.classArgs: budget must be .+, not 'much'"),
    'unknown unit': (
        'budget_unit: epochs',
        'budget_unit: hours',
        r"tuner.classArgs: budget_unit must be one of .+ 'hours'",
    ),
    'a budget of less than a retraining': (
        'budget: 12',
        'budget: 2',
        r'tuner.classArgs: budget: 2 epochs are less than .+, 3 .+',
    ),
    'a budget of less than a search': (
        'budget: 12',
        'budget: 8',
        r'tuner.classArgs: strategies.autonl: its search costs 5.6 epochs .+ together 8.6: more than .+ 8 .+',
    ),
    'a budget of less than a trial': (
        EXPERIMENT[EXPERIMENT.index('budget: 12') : EXPERIMENT.index('    max_macs')],
        'budget: 0.5\n    budget_unit: trials\n',
        r'tuner.classArgs: budget: 0.5 trials are less than one',
    ),
    'MACs that no network meets': (
        'max_macs: 1_700_000',
        'max_macs: 1000',
        rf'tuner.classArgs: max_macs: no network meets 1,000 MACs; .+ from {LOW:,} to {HIGH:,}',
    ),
    'MACs as a word': (
        'max_macs: 1_700_000',
        'max_macs: 2e6',
        r"tuner.classArgs: max_macs must be .+, not '2e6'",
    ),
    'no test runs': ('test_runs: 2', 'test_runs: 0', r'tuner.classArgs: test_runs must be .+ from 1 to 1,000, not 0'),
    'negative seed': (
        '    seed: 0',
        '    seed: -1',
        r'tuner.classArgs: seed must be .+ from 0 to .+, not -1',
    ),
    'a list of strategies': (
        EXPERIMENT[EXPERIMENT.index('    strategies:') : EXPERIMENT.index('    retrain:')],
        '    strategies: [random]\n',
        r"tuner.classArgs: strategies must be a mapping .+, not \['random'\]",
    ),
    # the strategies
    'no class': (
        'class: nni.nas.strategy.Random',
        'seed: 3',
        r'tuner.classArgs: strategies.random: class, .+, is missing',
    ),
    'no path': (
        'nni.nas.strategy.Random',
        'Random',
        r"tuner.classArgs: strategies.random.class must be .+, not 'Random'",
    ),
    'unknown class': (
        'nni.nas.strategy.Random',
        'nni.nas.strategy.Randm',
        r"tuner.classArgs: strategies.random: no strategy class .+ did you mean 'Random'\?",
    ),
    'unknown module': (
        'nni.nas.strategy.Random',
        'nni.nas.strategi.Random',
        r'.+ strategies.random: no strategy class .+',
    ),
    'no strategy': ('nni.nas.strategy.Random', 'collections.deque', r'.+ strategies.random: .+ is not a strategy: .+'),
    'a base of strategies': (
        'nni.nas.strategy.Random',
        'nni.nas.strategy.base.Strategy',
        r'.+ strategies.random: .+ is not a strategy, but a base of some: .+',
    ),
    'unknown argument of a class': (
        'mutation_prob:',
        'mutation_prb:',
        r".+ strategies.evolution: .+ has no argument 'mutation_prb'; did you mean 'mutation_prob'\?",
    ),
    'unknown argument of ours': (
        'cost_weight:',
        'cost_wieght:',
        r".+ strategies.autonl: .+ has no argument 'cost_wieght'; did you mean 'cost_weight'\?",
    ),
    'an argument that NNI would swallow': (
        'class: nni.nas.strategy.Random',
        'class: nni.nas.strategy.Random\n        sed: 1',
        r".+ strategies.random: .+ has no argument 'sed'; did you mean 'seed'\?",
    ),
    'an argument out of range': (
        'cost_weight: 1.0',
        'cost_weight: -1.0',
        r'.+ strategies.autonl: .+ cost_weight must be a number from 0 to 1,000,000, not -1.0',
    ),
    'a warm-up that is all of the search': (
        '    max_macs: 1_700_000',
        '    # no limit',
        r'.+ strategies.autonl: warmup_epochs, 5, must be less than search.epochs, 5, .+: nothing would be searched',
    ),
    'a probability of two': (
        'mutation_prob: 0.2',
        'mutation_prob: 2',
        r'.+ mutation_prob must be .+ 0.001 to 1, not 2',
    ),
    'an endless probability': ('mutation_prob: 0.2', 'mutation_prob: .inf', r'.+ mutation_prob must be .+, not inf'),
    'a probability of nothing': ('mutation_prob: 0.2', 'mutation_prob: 0', r'.+ mutation_prob must be .+ to 1, not 0'),
    'a margin without end': ('cost_weight: 1.0', 'margin: 1.0e+308', r'.+ margin must be .+ 0 to 1,000, not 1e\+308'),
    'travel without end': (
        'cost_weight: 1.0',
        'threshold_travel: 1.0e+300',
        r'.+ threshold_travel must be .+ 1,000, not .+',
    ),
    'a cost of all': ('cost_weight: 1.0', 'cost_weight: 1.0e+300', r'.+ cost_weight must be .+ 1,000,000, not 1e\+300'),
    'a gradient of nothing': (
        'gradient_clip_val: 1.0 ',
        'gradient_clip_val: 1.0e-300 ',
        r'.+ gradient_clip_val must be .+ from 1e-06 to 1,000,000, not 1e-300',
    ),
    'a margin of all that thresholds travel': (
        '    max_macs: 1_700_000',
        '    # no limit and a margin',
        r'.+ strategies.autonl: margin, 6, must be less than threshold_travel, 6.0, .+: .+ nothing would be searched',
    ),
    'a budget of the network that none meets': (
        'cost_weight: 1.0',
        'target_macs: [1_700_000, 1]',
        r'.+ strategies.autonl: no network of the space meets a budget of 1 MACs: the smallest costs 1,.+',
    ),
    'a batch of more images than there are': (
        '      batch_size: 64',
        '      batch_size: 30000',
        r'.+ retrain: batch_size must be at most the [\d,]+ images that are trained on, not 30000',
    ),
    'a temperature of 0': (
        'class: nni.nas.strategy.Random',
        'class: nni.nas.strategy.GumbelDARTS\n        temperature: 0.0',
        r'.+ temperature must be a number such as 1.0, .+, not 0.0',
    ),
    'a temperature that NNI takes for none': (
        'class: nni.nas.strategy.Random',
        'class: nni.nas.strategy.GumbelDARTS\n        temperature: 1',
        r'.+ temperature must be a number such as 1.0, with its point, .+, not 1',
    ),
    'a weight that is none': ('cost_weight: 1.0', 'cost_weight: .nan', r'.+ cost_weight must be .+, not nan'),
    'a share of yes': ('cost_weight: 1.0', 'drawn_share: yes', r'.+ drawn_share must be .+, not True'),
    'a population of nobody': (
        'sample_size: 2',
        'sample_size: 3',
        r'.+ strategies.evolution: .+ sample_size must be smaller .+',
    ),
    'a word for a probability': (
        'mutation_prob: 0.2',
        'mutation_prob: high',
        r".+ mutation_prob must be float, not 'high'",
    ),
    'no recipe of the search': (
        EXPERIMENT[EXPERIMENT.index('    search:') :],
        '',
        r'.+ search, its recipe, is missing',
    ),
    'a name with terminal codes': (
        '      random:',
        '      "\\e[31mred":',
        r".+: strategies: the name of a strategy must be .+ printable characters, not '\\x1b\[31mred'",
    ),
    'a name of two lines': ('      random:', '      "a\\nb":', r".+: the name of a strategy must be .+, not 'a\\nb'"),
    # the recipes
    'a stage of its own': (
        '  epochs: 3 ',
        '  epochs: 3 \n      stage: test',
        r'.+: retrain.stage is no key of a recipe: .+',
    ),
    'a seed of its own': ('  epochs: 3 ', '  epochs: 3\n      seed: 1', r'.+: retrain.seed is no key of a recipe: .+'),
    'another strategy': ('  epochs: 3 ', '  epochs: 3\n      strategy: x', r'.+: retrain.strategy is no key of a .+'),
    'a class to retrain': ('  epochs: 3 ', '  epochs: 3\n      class: os.system', r'.+: retrain.class is no key of .+'),
    'a choice to retrain': (
        '  epochs: 3 ',
        '  epochs: 3 \n      row01/lightnl: present',
        r'.+: retrain.row01/lightnl is no key of a recipe: .+',
    ),
    'candidates to search': (
        'epochs: 5 ',
        'epochs: 5\n      candidates/row01/lightnl: [present]',
        r'.+: search.candidates/row01/lightnl is no key of a recipe: .+',
    ),
    'an argument to search': (
        'epochs: 5 ',
        'epochs: 5\n      class/margin: 1',
        r'.+: search.class/margin is no key .+',
    ),
    'a number for a key': ('  epochs: 3 ', '  epochs: 3\n      5: 1', r'.+: retrain: the key 5 must be a word'),
    'epochs without end': (
        '  epochs: 3 ',
        '  epochs: 1000000000000000',
        r'.+: retrain.epochs must be .+ 100,000, not 1.+',
    ),
    'threads without end': ('threads: 1 ', 'threads: 1000000 ', r'.+ retrain: threads must be .+ 1,024, not 1000000'),
    'unknown data set': ('dataset: cued-digits', 'dataset: cued-digit', r".+ retrain: .*data ?set.*'cued-digit'.*"),
    'negative epochs': (
        '  epochs: 3 ',
        '  epochs: -12',
        r'tuner.classArgs: retrain.epochs must be .+ from 1 to .+, not -12',
    ),
    'no epochs': ('  epochs: 3 ', '  batch: 12', r'tuner.classArgs: retrain.epochs is missing; it takes .+'),
    'negative epochs of the search': (
        'epochs: 5 ',
        'epochs: 0',
        r'tuner.classArgs: search.epochs must be .+ from 1 to .+, not 0',
    ),
    'all held out': (
        'held_out: 0.2',
        'held_out: 1',
        r'tuner.classArgs: search.held_out must be a number in \(0, 1\), not 1',
    ),
    'unknown key of a recipe': (
        'batch_size: 64',
        'batch_sise: 64',
        r".+ retrain: unknown .*'batch_sise'; did you mean 'batch_size'\?",
    ),
    'a word for a rate': (
        'learning_rate: 0.01 ',
        'learning_rate: fast',
        r".+ retrain: learning_rate must be .+, not 'fast'",
    ),
    'a batch that does not divide among devices': (
        'batch_size: 64',
        'batch_size: 64\n      devices: 3',
        r'.+ retrain: batch_size must be a multiple of devices \(3\), not 64',
    ),
    'a word for a rate, on devices': (
        'learning_rate: 0.01 ',
        'learning_rate: fast\n      devices: 4',
        r".+ retrain: learning_rate must be .+, not 'fast'",
    ),
    'a data set of other classes': (
        'dataset: cued-digits\n      dataset/canvases: 24000 ',
        'dataset: cifar100 ',
        r".+ retrain: skeleton 'cued' has classes: 10, but data set cifar100 has 100; take .+ classes: 100",
    ),
    'no batch size': ('batch_size: 64', '# ', r'.+ retrain: .*batch_size.* is missing'),
}


@pytest.mark.parametrize(('old', 'new', 'message'), BAD.values(), ids=BAD.keys())
@pytest.mark.slow
def test_a_mistake_is_one_clear_line(old, new, message, check):
    text = changed(old, new)
    if '# no limit' in new:
        own = 'margin: 6\n        warmup_epochs: 3' if 'margin' in new else 'warmup_epochs: 5'
        text = text.replace('warmup_epochs: 3', own)
    line, *others = check(text)
    assert re.fullmatch(message, line), line
    assert all(' is missing' in other for other in others), others  # as the right key is, where it was misspelled


RETRAINED, SEARCHED = 'threads: 1             # CPU threads of a trial', 'held_out: 0.2'


@pytest.fixture
def given(tmp_path) -> Path:
    """The folder of a trained network of the space, all of whose choices are the last."""
    skeleton = load_skeleton('cued')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    own = {'strategy': 's', 'stage': 'retrain', 'seed': 0, 'skeleton': 'cued', 'dataset': 'cued-digits'}
    recipe = {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.1}
    save_trial(tmp_path / 'given', {**own, **recipe, **sample}, {}, build(skeleton, sample))
    return tmp_path / 'given'


@pytest.mark.parametrize(
    ('after', 'keys', 'message'),
    [
        (RETRAINED, {'teacher': '{given}'}, None),
        (RETRAINED, {'initial': '{given}', 'initial_partly': 'true'}, None),
        (SEARCHED, {'initial': '{given}/network.pt'}, None),
        (RETRAINED, {'initial': '{given}'}, r'retrain: initial: not every network that is retrained is that of .+'),
        (RETRAINED, {'teacher': '{given}/../other'}, r'retrain: teacher: .+/other: there is no such file; .+'),
        (RETRAINED, {'teacher': 'other'}, r"retrain: teacher: 'other' is a relative path, .+: give it from the root"),
        (SEARCHED, {'initial': 'other'}, r"search: initial: 'other' is a relative path, .+: give it from the root"),
        (SEARCHED, {'teacher': '{given}'}, r'search: teacher is not for a search, .+'),
        (
            SEARCHED,
            {'initial': '{given}', 'initial_partly': '3'},
            r'search: initial_partly must be true or false, not 3',
        ),
    ],
    ids=str,
)
def test_networks_that_recipes_name_are_looked_at(after, keys, message, given, check):
    lines = ''.join(f'\n      {key}: {value.format(given=given)}' for key, value in keys.items())
    printed = check(EXPERIMENT.replace(after, after + lines))
    if message is None:
        assert printed == []
    else:
        (line,) = printed
        assert re.fullmatch(f'tuner.classArgs: {message}', line), line


def test_a_search_that_cannot_hold_the_network_that_it_is_given_is_told_before_it_is_started(given, check):
    part = SPACE | {'row02/lightnl': {'_type': 'choice', '_value': ['absent']}}
    (line,) = check(changed(SEARCHED, f'{SEARCHED}\n      initial: {given}'), json.dumps(part))
    assert 'search: initial: ' in line
    assert "its row02/lightnl is 'present', here it is 'absent'" in line


def test_networks_on_other_machines_are_not_looked_for(check):
    remote = 'platform: remote\n  machineList: [{host: 192.0.2.1, user: nni, password: x}]\nnniManagerIp: 192.0.2.2'
    text = changed('platform: local', remote)
    assert check(changed(RETRAINED, f'{RETRAINED}\n      teacher: /nowhere')) != []
    assert check(text.replace(RETRAINED, f'{RETRAINED}\n      teacher: /nowhere')) == []


SPACE = json.loads(CHOICES)
SPACES = {
    'missing': (None, r'No such file or directory; write it with: python -m search_space choices cued'),
    'no JSON': ('{', r', line 1: not JSON .+; write it with: .+'),
    'a list': ('[1]', r'a search space is a mapping of labels, not \[1\].*'),
    'another format': (json.dumps({'row01/lightnl': [1]}), r'row01/lightnl must be .+, not \[1\].*'),
    'unknown label': (
        json.dumps(SPACE | {'row01/lightln': SPACE['row01/lightnl']}),
        r"unknown label 'row01/lightln' for skeleton 'cued'; did you mean 'row01/lightnl'\? .+",
    ),
    'missing label': (
        json.dumps({k: v for k, v in SPACE.items() if k != 'row02/lightnl'}),
        r'row02/lightnl is missing; .+',
    ),
    'unknown candidate': (
        json.dumps(SPACE | {'row01/lightnl_ratio': {'_type': 'choice', '_value': [0.125, 0.5]}}),
        r'row01/lightnl_ratio: 0.5 is not among its candidates 0.125, 0.25 .+',
    ),
    'no candidate': (
        json.dumps(SPACE | {'row01/lightnl': {'_type': 'choice', '_value': []}}),
        r'row01/lightnl takes .+ at least one .+',
    ),
    'nothing to choose': (
        json.dumps({k: {'_type': 'choice', '_value': v['_value'][:1]} for k, v in SPACE.items()}),
        r'every label has one candidate: there is nothing to choose',
    ),
    'another skeleton': ((ROOT / 'search_space' / 'choices' / 'cifar.json').read_text(), r'unknown label .+'),
}


@pytest.mark.parametrize(('search_space', 'message'), SPACES.values(), ids=SPACES.keys())
def test_a_search_space_that_does_not_fit_is_one_clear_line(search_space, message, check):
    (line,) = check(EXPERIMENT, search_space)
    assert re.fullmatch(rf'searchSpaceFile: .*cued.json(: )?{message}', line), line


def test_a_part_of_the_search_space_is_enough(check):
    part = SPACE | {'row01/lightnl': {'_type': 'choice', '_value': ['absent']}}
    assert check(EXPERIMENT, json.dumps(part)) == []


def test_the_budget_of_macs_counts_for_what_the_search_space_has_left(check):
    part = SPACE | {'row01/lightnl': {'_type': 'choice', '_value': ['present']}}
    text = changed('max_macs: 1_700_000', f'max_macs: {LOW}')
    assert check(text) == []
    (line,) = check(text, json.dumps(part))
    assert f'no network meets {LOW:,} MACs' in line


def test_every_mistake_is_told_at_once(check):
    text = EXPERIMENT.replace('trialConcurrency: 2', 'trialConcurrency: 0').replace('test_runs: 2', 'test_runs: no')
    text = text.replace('budget: 12', 'budget: 0').replace('skeleton: cued', 'skelton: cued')
    assert len(check(text)) == 5  # the key that is unknown is missing too
    text = EXPERIMENT.replace('batch_size: 64', 'batch_size: 0').replace('weight_decay: 0.01', 'weight_decay: -1')
    assert len(check(text.replace('strategies.AutoNL', 'strategies.AutoLN'))) == 5  # two in each recipe


@pytest.mark.parametrize('content', [None, b'\xff\xfe'])
def test_a_file_that_cannot_be_read_is_one_clear_line(content, tmp_path, capsys):
    file = tmp_path / 'experiment.yaml'
    if content is not None:
        file.write_bytes(content)
    assert main(['check', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'{file}: ')


def test_a_mistake_that_needs_no_class_is_told_without_torch(tmp_path):
    file = tmp_path / 'experiment.yaml'
    file.write_text(changed('budget: 12', 'budget: -1'))
    code = (
        f'import sys; from trials.__main__ import main; assert main(["check", {str(file)!r}]) == 2; '
        'sys.exit("torch" in sys.modules or "pytorch_lightning" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_strategy_of_the_users_own_is_found_in_the_tuners_folder(check, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'mine.py').write_text(
        'from nni.nas.strategy import Random\n\n\n'
        'class Mine(Random):\n    def __init__(self, greed: int = 1, seed=None):\n        super().__init__(seed=seed)\n'
    )
    own = 'class: mine.Mine\n        greed: {}'
    assert check(changed('class: nni.nas.strategy.Random', own.format(2))) == []
    (line,) = check(changed('class: nni.nas.strategy.Random', own.format('much')))
    assert "greed must be int, not 'much'" in line


@pytest.mark.slow
def test_strategies_of_the_users_own_that_hang_are_a_line_each_and_the_rest_is_checked(check, tmp_path, monkeypatch):
    monkeypatch.setattr(own_strategy, 'LIMIT_SECONDS', 1.0)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'hangs_when_made.py').write_text(
        'from nni.nas.strategy import Random\n\n\nclass Mine(Random):\n    def __init__(self):\n'
        '        import time; time.sleep(300)\n'
    )
    (tmp_path / 'hangs.py').write_text('import time; time.sleep(300)\n')
    text = changed('class: nni.nas.strategy.Random', 'class: hangs.Mine')
    text = text.replace('class: strategies.AutoNL', 'class: hangs_when_made.Mine', 1)
    text = re.sub(r' {8}(cost_weight|warmup_epochs|gradient_clip_val): .*\n', '', text)
    text = text.replace('population_size: 2', 'population_size: -2')
    *hung, other = check(text)
    assert hung == [
        f'tuner.classArgs: strategies.{name}: it was not imported and made within 1 seconds'
        for name in ('autonl', 'random')
    ]
    assert 'strategies.evolution' in other


@pytest.mark.parametrize('command', ['./python3 -m trials run', 'python-evil -m trials run', 'python3 -m evil.run'])
def test_nothing_that_the_file_names_is_run_where_own_code_is_left_out(command, check, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'evil').mkdir()
    for module in ('evil/__init__', 'evil/run', 'mine', 'sitecustomize', 'importlib'):
        (tmp_path / f'{module}.py').write_text('import pathlib\npathlib.Path(__file__).with_suffix(".ran").touch()')
    for program in ('python3', 'python-evil'):
        (tmp_path / program).write_text('#!/bin/sh\ntouch "$0.ran"\n')
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv('PATH', f'{os.environ["PATH"]}:{tmp_path}')
    text = changed('class: nni.nas.strategy.Random', 'class: mine.Mine').replace('python3 -m trials run', command, 1)
    assert check(text, options=['--no-own-code']) == []
    assert list(tmp_path.rglob('*.ran')) == []


def test_a_small_file_makes_a_short_message(check):
    aliases = ''.join(f'x{n}: &x{n} [{", ".join([f"*x{n - 1}"] * 9)}]\n' for n in range(1, 7))
    lines = check(f'x0: &x0 [hundred of them]\n{aliases}tuner: *x3\ntrainingService: *x3\n')
    assert sum(map(len, lines)) < 10_000


def test_of_thousands_of_mistakes_the_first_hundred_are_shown(check):
    lines = check(''.join(f'k{number}: 1\n' for number in range(1000)))
    assert lines[0].startswith('k0: unknown key')
    (more,) = lines[100:]
    assert re.fullmatch(r'9\d\d more of such lines', more)


def test_a_python_without_nni_is_refused(check, tmp_path, monkeypatch):
    own = tmp_path / 'bin'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(own)], check=True)
    monkeypatch.setenv('PATH', f'{own / "bin"}:{Path(shutil.which("env")).parent}')
    (line,) = check(EXPERIMENT)
    assert re.fullmatch(r"trialCommand: .+/python3 has no module 'nni': name the python3 .+", line)


VARIANTS = sorted((ROOT / 'experiments').glob('*.yaml'))


@pytest.mark.parametrize('file', VARIANTS, ids=[file.stem for file in VARIANTS])
def test_the_variants_that_are_shipped_are_right_to_nni_and_to_us(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))  # where NNI looks for the key that remote.yaml names
    (tmp_path / '.ssh').mkdir()
    (tmp_path / '.ssh' / 'id_rsa').touch()
    program = tmp_path / 'nvidia-smi'
    program.write_text('#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU $i: a card"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    status, lines = main(['check', str(file)]), capsys.readouterr().err.splitlines()
    assert all(re.search(r': data set .+ is missing', line) for line in lines), lines  # which nobody ships
    lacking = ['cifar', 'imagenet', 'imagenet-fast']
    if not Path('/usr/share/datasets').is_dir():  # of Debian's packages
        lacking.append('fashion-mnist')
    assert bool(lines) == (status != 0) == (file.stem in lacking)
    config = ExperimentConfig.load(file).json()
    space = load_skeleton(config['tuner']['classArgs']['skeleton'])
    assert config['searchSpace'] == nni_search_space(space.choices())
    assert Path(config['tuner']['codeDirectory']) == ROOT


def test_there_is_a_variant_for_each_way_to_run_that_the_readme_names():
    names = ['cifar', 'fashion-mnist', 'frameworkcontroller', 'gpu', 'imagenet-fast', 'imagenet', 'kubeflow', 'remote']
    assert [file.stem for file in VARIANTS] == names
