"""What a core reads, in images per second: ``python benchmarks/speed/reader.py``.

Makes --images JPEG files of ImageNet's usual size (500×375 pixels, about 110 KB: its average) and their prepared copy
(``python -m trials prepare``), and reads both, on one thread, from the file to the normalised tensor of a training. The
time is the thread's own: what other programs take is not in it, nor is waiting for a disk.

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

from benchmarks.whole_number import whole_number  # noqa: E402
from search_space.entry_point import Parser, run, whole_argument  # noqa: E402
from search_space.rules import number, whole  # noqa: E402
from trials import datasets  # noqa: E402
from trials.prepared_copy import prepare  # noqa: E402

SIZE, BYTES, TOLERANCE = (500, 375), 110_000, 0.15
"""Of an image of ImageNet, on average, and by how much the bytes of those made here may differ."""
ROUNDS, GPU_BATCH = 5, 64

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


def images_per_second(read: Read, count: int, clock: Callable[[], float]) -> float:
    """The median of some rounds over ``count`` images, after one that is not timed."""
    speeds = []
    for turn in range(ROUNDS + 1):
        started = clock()
        for index in range(count):
            read(index)
        if turn:
            speeds.append(count / (clock() - started))
    return statistics.median(speeds)


def on_gpu_per_second(folder: Path, input_size: int, count: int) -> float:
    """Images per second of a GPU that decodes and augments."""
    files = sorted((folder / 'train').glob('*/*.JPEG'))
    augment = augmentation(input_size)

    def read_batch(index: int) -> None:
        contents = [read_file(str(files[(index * GPU_BATCH + i) % len(files)])) for i in range(GPU_BATCH)]
        torch.stack([augment(image) for image in decode_jpeg(contents, mode=ImageReadMode.RGB, device='cuda')])
        torch.cuda.synchronize()

    return GPU_BATCH * images_per_second(read_batch, max(1, count // GPU_BATCH), time.perf_counter)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images = whole_argument(whole(10, 100_000))  # a tenth of them is held out
    parser.add_argument('--images', type=images, default=64, help='that are made and read (default: 64)')
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
            f'thread; torch {torch.__version__}, torchvision {torchvision.__version__}; medians of {ROUNDS} rounds\n'
        )
        needed = '' if args.deliver is None else f' cores for {args.deliver:,.0f} images/s |'
        print(f'| files | reader | images/s a core |{needed}')
        print('|---|---|---|' + '---|' * bool(needed))
        for name, files in (('as they are', folder), ('prepared copy', copy)):
            mean = statistics.mean(file.stat().st_size for file in files.glob('train/*/*')) / 1000
            for reader, read in readers(files, args.input_size).items():
                speed = images_per_second(read, args.images, time.thread_time)
                cores = f' {math.ceil(args.deliver / speed)} |' if needed else ''
                print(f'| {name}, {mean:.0f} KB | {reader} | {speed:,.0f} |{cores}', flush=True)
            if torch.cuda.is_available():
                speed = on_gpu_per_second(files, args.input_size, args.images)
                print(f'| {name}, {mean:.0f} KB | on the GPU, all of it | {speed:,.0f} |' + ' - |' * bool(needed))


if __name__ == '__main__':
    sys.exit(run('reader.py', main))
