"""A trial's parameters: what is read, and what is refused."""

import json
import math

import pytest

from search_space import load_skeleton
from trials.__main__ import main
from trials.datasets import DATASETS
from trials.parameters import TrialParameters

CHOICES = load_skeleton('cued').choices()
RETRAIN = {
    'strategy': 'random',
    'stage': 'retrain',
    'seed': 0,
    'skeleton': 'cued',
    'dataset': 'cued-digits',
    'epochs': 1,
    'batch_size': 64,
    'learning_rate': 0.005,
    **{label: candidates[0] for label, candidates in CHOICES.items()},
}
SEARCH = {key: value for key, value in RETRAIN.items() if '/' not in key} | {
    'stage': 'search',
    'class': 'strategies.AutoNL',
    'class/warmup_epochs': 3,
}


def test_choices_are_read_under_their_labels():
    trial = TrialParameters.from_flat(RETRAIN)
    assert trial.network == {label: candidates[0] for label, candidates in CHOICES.items()}


def test_the_arguments_of_a_search_are_read():
    trial = TrialParameters.from_flat(SEARCH)
    assert trial.search_class == 'strategies.AutoNL'
    assert trial.search_arguments == {'warmup_epochs': 3}


def test_the_arguments_of_a_data_set_are_read():
    trial = TrialParameters.from_flat({**RETRAIN, 'dataset/clutter': 4, 'dataset/noise': 1.5})
    assert trial.dataset_arguments == {'clutter': 4, 'noise': 1.5}
    assert 'dataset/clutter' not in trial.network


ONE_SHOT = {'stage': 'search', 'class': 'strategies.AutoNL'}
BAD = [
    ({'epoch': 3}, "unknown trial parameter 'epoch'; did you mean 'epochs'?"),
    ({'stage': 'train'}, "stage must be one of search, retrain, test, import, not 'train'"),
    ({'stage': 'search'}, "'class', the one-shot strategy, is missing"),
    (
        {'dataset': 'cued-digit'},
        f"dataset must be one of {', '.join(DATASETS)}, not 'cued-digit'",
    ),
    (
        {'dataset': ['digits']},
        f'dataset must be one of {", ".join(DATASETS)}, not',
    ),
    ({'skeleton': 'cud'}, "no skeleton 'cud'"),
    ({'epochs': 0}, 'epochs must be a whole number from 1 to 100,000, not 0'),
    ({'epochs': 1.5}, 'epochs must be a whole number from 1 to 100,000, not 1.5'),
    ({'epochs': True}, 'epochs must be a whole number from 1 to 100,000, not True'),
    ({'batch_size': '64'}, "batch_size must be a whole number from 1 to 1,000,000, not '64'"),
    ({'threads': -1}, 'threads must be a whole number from 1 to 1,024, not -1'),
    ({'devices': 0}, 'devices must be a whole number from 1 to 1,024, not 0'),
    ({'seed': -1}, 'seed must be a whole number from 0 to 2**63, not -1'),
    ({'learning_rate': 0}, 'learning_rate must be a number from 1e-12 to 1,000, not 0'),
    ({'weight_decay': -0.1}, 'weight_decay must be a number from 0 to 100, not -0.1'),
    ({'label_smoothing': 1}, 'label_smoothing must be a number in [0, 1), not 1'),
    ({'held_out': 1.0}, 'held_out must be a number in (0, 1), not 1.0'),
    ({'held_out': 0}, 'held_out must be a number in (0, 1), not 0'),
    ({'seed': 2**63 + 1}, 'seed must be a whole number from 0 to 2**63, not 9223372036854775809'),
    ({'seed': True}, 'seed must be a whole number from 0 to 2**63, not True'),
    ({'learning_rate': math.inf}, 'learning_rate must be a number from 1e-12 to 1,000, not inf'),
    ({'learning_rate': math.nan}, 'learning_rate must be a number from 1e-12 to 1,000, not nan'),
    ({'learning_rate': 1e300}, 'learning_rate must be a number from 1e-12 to 1,000, not 1e+300'),
    ({'learning_rate': 1e-300}, 'learning_rate must be a number from 1e-12 to 1,000, not 1e-300'),
    (
        {'learning_rate': 100, 'learning_rate_per': 1},
        'learning_rate at batch_size 64 and learning_rate_per 1 must be a number from 1e-12 to 1,000, not 6400',
    ),
    (
        {'learning_rate': 0.5, 'weight_decay': 2},
        'weight_decay must be less than 2 at a learning rate of 0.5, as a step',
    ),
    ({'batch_size': 6001}, 'batch_size must be at most the 6,000 images that are trained on, not 6001'),
    ({'dataset': 'digits', 'batch_size': 1101}, 'batch_size must be at most the 1,100 images that are trained on'),
    ({'weight_decay': 1e300}, 'weight_decay must be a number from 0 to 100, not 1e+300'),
    ({'mixup': 1e308}, 'mixup must be 0 or a number from 0.001 to 1,000, not 1e+308'),
    ({'mixup': 5e-324}, 'mixup must be 0 or a number from 0.001 to 1,000, not 5e-324'),
    ({'gradient_clip': 1e-300}, 'gradient_clip must be 0 or a number from 1e-06 to 1,000,000, not 1e-300'),
    ({'learning_rate_warmup': 1e300}, 'learning_rate_warmup must be a number from 0 to 100,000, not 1e+300'),
    ({'teacher': '/n', 'teacher_temperature': 1e-300}, 'teacher_temperature must be a number from 0.01 to 1,000'),
    ({'schedule': 'staircase', 'staircase_epochs': 1e-300}, 'staircase_epochs must be a number from 0.001 to 100,000'),
    ({'schedule': 'staircase', 'staircase_factor': 1e-300}, 'staircase_factor must be a number from 0.001 to 1, not'),
    ({'optimizer': 'adam'}, "optimizer must be one of adamw, rmsprop, rmsprop-tf, sgd, not 'adam'"),
    ({'schedule': 'linear'}, "schedule must be one of one-cycle, cosine, staircase, not 'linear'"),
    ({'learning_rate_warmup': 0.5}, 'learning_rate_warmup is for schedule cosine or staircase, not for one-cycle'),
    (
        {'schedule': 'cosine', 'learning_rate_warmup': 1},
        'learning_rate_warmup must be less than all 1 epochs, not 1',
    ),
    ({'learning_rate_per': 0.5}, 'learning_rate_per must be a whole number from 0 to 1,000,000,000, not 0.5'),
    ({'schedule': 'staircase', 'staircase_factor': 0}, 'staircase_factor must be a number from 0.001 to 1, not 0'),
    (
        {'schedule': 'staircase', 'staircase_epochs': 0},
        'staircase_epochs must be a number from 0.001 to 100,000, not 0',
    ),
    ({'schedule': 'cosine', 'staircase_epochs': 3}, 'staircase_epochs is for schedule staircase, not for cosine'),
    ({'mixup': -0.1}, 'mixup must be 0 or a number from 0.001 to 1,000, not -0.1'),
    ({'ema_decay': 0.9, 'ema_decay_per': -1}, 'ema_decay_per must be a whole number from 0 to 1,000,000,000, not -1'),
    ({'ema_decay_per': 256}, 'ema_decay_per is for ema_decay, which is missing'),
    ({'recalibrate': -1}, 'recalibrate must be a whole number from 0 to 1,000,000, not -1'),
    ({**ONE_SHOT, 'recalibrate': 8}, 'recalibrate is not for a search'),
    ({**ONE_SHOT, 'mixup': 0.2}, 'mixup is not for a search'),
    ({'initial': 3}, 'initial must be the folder of a trial, or network.pt in it, not 3'),
    ({'initial': '/n', 'initial_partly': 1}, 'initial_partly must be true or false, not 1'),
    ({'initial_partly': True}, 'initial_partly is for initial, which is missing'),
    ({'teacher': ['/n']}, "teacher must be the folder of a trial, or network.pt in it, not ['/n']"),
    ({'teacher': '/n', 'teacher_weight': 2}, 'teacher_weight must be a number from 0 to 1, not 2'),
    ({'teacher': '/n', 'teacher_temperature': 0}, 'teacher_temperature must be a number from 0.01 to 1,000, not 0'),
    ({'teacher_temperature': 2}, 'teacher_temperature is for teacher, which is missing'),
    ({**ONE_SHOT, 'teacher': '/n'}, 'teacher is not for a search'),
    ({'decay_norm_and_bias': 0}, 'decay_norm_and_bias must be true or false, not 0'),
    ({'ema_decay': 1}, 'ema_decay must be a number in [0, 1), not 1'),
    ({'gradient_clip': -1}, 'gradient_clip must be 0 or a number from 1e-06 to 1,000,000, not -1'),
    ({'precision': 16}, 'precision must be one of auto, 32, bf16-mixed, 16-mixed, not 16'),
    ({'workers': -1}, 'workers must be a whole number from 0 to 1,024, not -1'),
    ({'dataset/colors': 3}, "data set cued-digits: unknown argument 'colors'; did you mean 'colours'?"),
    ({'epochs': 10**15}, 'epochs must be a whole number from 1 to 100,000, not 1000000000000000'),
    ({'threads': 1_000_000}, 'threads must be a whole number from 1 to 1,024, not 1000000'),
    ({'batch_size': 10**30}, 'batch_size must be a whole number from 1 to 1,000,000, not 1'),
    ({'learning_rate': 10**400}, 'learning_rate must be a number from 1e-12 to 1,000, not a number of 1329 bits'),
    ({'precision': [32]}, 'precision must be one of auto, 32, bf16-mixed, 16-mixed, not [32]'),
    ({'precision': 32.0}, 'precision must be one of auto, 32, bf16-mixed, 16-mixed, not 32.0'),
    ({'strategy': '\x1b[31mred'}, "strategy must be a name of at most 100 printable characters, not '\\x1b[31mred'"),
    ({'dataset': 'image-folder', 'dataset/folder': '/'}, 'folder must be that of the data, not /, with all that is'),
    ({'dataset': 'image-folder', 'dataset/folder': 'a\x00b'}, "folder must be the path of a folder, not 'a\\x00b'"),
    ({'class': 'os.system'}, 'class is for a search, not for stage retrain'),
    ({'class/seed': 1}, 'class/ is for a search, not for stage retrain'),
    ({'candidates/row01/lightnl': ['absent']}, 'candidates/ is for a search, not for stage retrain'),
    ({**ONE_SHOT, 'class': 3}, 'class must be an import path such as nni.nas.strategy.Random, not 3'),
    (ONE_SHOT, "'row01/lightnl' is not for a search: it is a choice of a network"),
    ({**ONE_SHOT, 'ema_decay': 0.9}, 'ema_decay is not for a search'),
    ({**ONE_SHOT, 'gradient_clip': 1}, 'gradient_clip is not for a search: give its strategy gradient_clip_val'),
    ({'row01/lightnl': 'maybe'}, "row01/lightnl: 'maybe' is not among its candidates 'absent', 'present'"),
    ({'row06/lightnl': 'absent'}, "unknown label 'row06/lightnl' for skeleton 'cued'; did you mean"),
]


@pytest.mark.parametrize(('change', 'message'), BAD, ids=[str(change) for change, _ in BAD])
def test_a_bad_parameter_ends_the_trial_with_one_clear_line(change, message, tmp_path, capsys):
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps(RETRAIN | change))
    assert main(['run', '--parameters', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize('missing', ['seed', 'dataset', 'learning_rate', 'row03/lightnl_stride'])
def test_a_missing_parameter_is_named(missing, tmp_path, capsys):
    file = tmp_path / 'parameters.json'
    file.write_text(json.dumps({key: value for key, value in RETRAIN.items() if key != missing}))
    assert main(['run', '--parameters', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert missing in line


@pytest.mark.parametrize('content', [None, 'not json', '[1, 2]', '{}'])
def test_a_bad_file_of_parameters_is_refused_in_one_line(content, tmp_path, capsys):
    file = tmp_path / 'parameters.json'
    if content is not None:
        file.write_text(content)
    assert main(['run', '--parameters', str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
