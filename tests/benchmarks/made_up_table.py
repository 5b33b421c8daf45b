"""A table in the format of the ground truth's, its accuracies from a formula: nobody has trained these networks."""

import random
from pathlib import Path

from benchmarks.ground_truth.table import write_table
from search_space import load_skeleton, macs, params

SKELETON_FILE = str(Path(__file__).with_name('made-up.yaml'))
SKELETON = load_skeleton(SKELETON_FILE)
BUDGETS = (948_000, 1_047_000, 1_161_000)
NETWORKS = list(SKELETON.networks())
RECIPE = {
    'skeleton': SKELETON_FILE,
    'dataset': 'cued-digits',
    'dataset/canvases': 100,
    'epochs': 2,
    'batch_size': 16,
    'learning_rate': 0.005,
    'gradient_clip': 1.0,
}


def accuracy(sample):
    """Row 1 decides, then its stride; its ratio, its expansion and row 2's kernel matter a little; no two networks are
    alike."""
    positions = SKELETON.lightnl_positions(sample)
    ratio, stride = positions.get(1, (0, 0))
    found = {0: 0.4, 1: 0.7, 4: 0.5}[stride] + 0.05 * ratio + 0.02 * sample['row01/expansion']
    return found + 0.01 * (sample['row02/kernel'] == 5) + 1e-5 * NETWORKS.index(sample)


def rows(noise=0.0, seeds=2):
    cost, parameters, draw = macs(SKELETON), params(SKELETON), random.Random(0)
    return [
        {
            **sample,
            'seed': seed,
            'validation_accuracy': accuracy(sample) + draw.gauss(0, noise),
            'test_accuracy': accuracy(sample) + draw.gauss(0, noise),
            'macs': cost(sample),
            'params': parameters(sample),
            'seconds': 17.0,
        }
        for seed in range(seeds)
        for sample in NETWORKS
    ]


def write(file, **kwargs):
    write_table(file, RECIPE, rows(**kwargs))
    return file
