"""What a core reads, in images per second: ``python benchmarks/speed/reader.py``.

Makes --images JPEG files of ImageNet's usual size (500×375 pixels, about 110 KB: its average) and their prepared copy
(``python -m trials prepare``), and reads both, on one thread, from the file to the normalised tensor of a training. The
time is the thread's own: what other programs take is not in it, nor is waiting for a disk. The readers take turns, a
round each. Speeds are medians; the ratio is to the project's reader of the files as they are, of the same round, with
its 95% interval.

    the project's reader    Pillow, and transforms v2 on the image
    torchvision.io          decode_image, and transforms v2 on uint8
    on the GPU              torchvision.io.decode_jpeg there, and transforms v2 on uint8, a batch at a time

--deliver says how many images a second a GPU takes, as ``imagenet_search.py`` prints; the answer is in cores.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from PIL import Image, ImageFilter  # noqa: E402
from torchvision.io import ImageReadMode, decode_image, decode_jpeg, read_file  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from benchmarks.speed.paired import paired  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space.entry_point import Parser, run, whole_argument  # noqa: E402
from search_space.rules import number, whole  # noqa: E402
from trials import datasets  # noqa: E402
from trials.prepared_copy import prepare  # noqa: E402

SIZE, BYTES, TOLERANCE = (500, 375), 110_000, 0.15
"""Of an image of ImageNet, on average, and by how much the bytes of those made here may differ."""
GPU_BATCH, ON_GPU = 64, 'on the GPU, all of it'

Read = Callable[[int], object]
"""Reads the image of an index, to its end."""


def make_images(folder: Path, count: int) -> None:
    """JPEG files in ``folder/train/CLASS`` and ``folder/val/CLASS``, as hard to compress as photographs."""
    draw = np.random.default_rng(0)
    for index in range(count):
        for part in ('train', 'val') if index < 2 else ('train',):
            file = folder / part / f'class{index % 2}' / f'{index}.JPEG'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_photograph(draw))


def _photograph(draw: np.random.Generator) -> bytes:
    """Noise blurred until its file has the bytes of a photograph, by bisection."""
    noise = Image.fromarray(draw.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
    low, high = 0.0, 8.0
    for _ in range(12):
        radius = (low + high) / 2
        content = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(radius)).save(content, 'JPEG', quality=90)
        size = len(content.getvalue())
        if abs(size - BYTES) <= TOLERANCE * BYTES / 2:
            break
        low, high = (radius, high) if size > BYTES else (low, radius)
    return content.getvalue()


def augmentation(input_size: int) -> v2.Transform:
    """As of the project's training part, on uint8 tensors to the last but one step."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(input_size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*datasets.normalisation('image-folder')),
        ]
    )


def readers(folder: Path, input_size: int) -> dict[str, Read]:
    """The readers of one image, by name."""
    part = datasets.load('image-folder', input_size, folder=str(folder)).train
    files = sorted((folder / 'train').glob('*/*.JPEG'))
    augment = augmentation(input_size)

    def on_uint8(index: int) -> torch.Tensor:
        return augment(decode_image(read_file(str(files[index % len(files)])), mode=ImageReadMode.RGB))

    return {"the project's reader": lambda index: part[index % len(part)], 'torchvision.io': on_uint8}


def gpu_reader(folder: Path, input_size: int) -> Read:
    """Reads ``GPU_BATCH`` images at a time, decoded and augmented on the GPU."""
    files = sorted((folder / 'train').glob('*/*.JPEG'))
    augment = augmentation(input_size)

    def read_batch(index: int) -> None:
        contents = [read_file(str(files[(index * GPU_BATCH + i) % len(files)])) for i in range(GPU_BATCH)]
        torch.stack([augment(image) for image in decode_jpeg(contents, mode=ImageReadMode.RGB, device='cuda')])
        torch.cuda.synchronize()

    return read_batch


def images_per_second(read: Read, count: int, on_gpu: bool) -> float:
    """Of one round over about ``count`` images: of the thread's time, or of the clock's where a GPU reads."""
    images = GPU_BATCH if on_gpu else 1
    calls = max(1, count // images)
    clock = time.perf_counter if on_gpu else time.thread_time
    started = clock()
    for index in range(calls):
        read(index)
    return calls * images / (clock() - started)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images = whole_argument(whole(10, 100_000))  # a tenth of them is held out
    parser.add_argument('--images', type=images, default=64, help='that are made and read (default: 64)')
    parser.add_argument('--rounds', type=whole_number, default=15, help='(default: 15)')
    parser.add_argument('--input-size', type=whole_number, default=224, metavar='PIXELS', help='(default: 224)')
    parser.add_argument('--deliver', type=float, metavar='IMAGES', help='images per second that a GPU takes')
    args = parser.parse_args()
    if args.deliver is not None:
        number(above=0).check('argument --deliver', args.deliver)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, copy = Path(place, 'images'), Path(place, 'copy')
        make_images(folder, args.images)
        prepare(folder, copy, processes=1)
        print(
            f'{args.images} JPEG files of {SIZE[0]}×{SIZE[1]} pixels, to {args.input_size}×{args.input_size}; one '
            f'thread; torch {torch.__version__}, torchvision {torchvision.__version__}; {args.rounds} rounds\n'
        )
        subjects: dict[tuple[str, str], Read] = {}
        for name, files in (('as they are', folder), ('prepared copy', copy)):
            mean = statistics.mean(file.stat().st_size for file in files.glob('train/*/*')) / 1000
            reads = readers(files, args.input_size)
            if torch.cuda.is_available():
                reads[ON_GPU] = gpu_reader(files, args.input_size)
            subjects |= {(f'{name}, {mean:.0f} KB', reader): read for reader, read in reads.items()}
        speeds: dict[tuple[str, str], list[float]] = {subject: [] for subject in subjects}
        for turn in range(-1, args.rounds):
            for subject, read in subjects.items():
                speed = images_per_second(read, args.images, on_gpu=subject[1] == ON_GPU)
                if turn >= 0:  # the first round is not timed
                    speeds[subject].append(speed)
    needed = '' if args.deliver is None else f' cores for {args.deliver:,.0f} images/s |'
    print(f'| files | reader | images/s a core | to the first |{needed}')
    print('|---|---|---|---|' + '---|' * bool(needed))
    first = next(iter(speeds.values()))
    for (files, reader), found in speeds.items():
        ratio, low, high = paired(found, first)
        ratio = '1' if found is first else f'{ratio:.2f} [{low:.2f}, {high:.2f}]'
        speed = statistics.median(found)
        cores = '-' if reader == ON_GPU or not needed else math.ceil(args.deliver / speed)
        print(f'| {files} | {reader} | {speed:,.0f} | {ratio} |' + f' {cores} |' * bool(needed))


if __name__ == '__main__':
    sys.exit(run('reader.py', main))
