"""Images per second that the input pipeline gives, against those that ResNet-20 trains on.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --data imagenette=FOLDER --image-size 96 --json speed.json

The pipelines and the training step take turns in one process, so that they share whatever else the
machine does; a ratio compares turns of the same round. CIFAR-10 and MNIST are made up where no
folder is given: random pixels in arrays of their size take as long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHAPES = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1)}
TRAINED = "ResNet-20 training step"

Turn = Callable[[], int]  # works a while and returns the number of images


def augmentations(channels: int) -> dict[str, dict]:
    """Fields of the augmentations to measure, by what they are called."""
    resized = {"crop_padding": 0, "crop_scale": (0.08, 1.0)}
    plain = {"none": {"crop_padding": 0, "flip": False}, "crop, flip": {}, "resized crop": resized}
    if channels != 3:
        return plain
    return plain | {
        "resized crop, colours": {**resized, "color_jitter": 0.4, "lighting": 0.1},
        "mixup, CutMix": {"mixup": 0.2, "cutmix": 1.0},
        "RandAugment": {"randaugment": 0.5},
    }


def made_up(name: str):
    """A data set of random pixels with the size and form of a known one."""
    import numpy as np

    from larq_ext_recipes.datasets import ArrayDataset

    shape, generator = SHAPES[name], np.random.default_rng(0)
    train, test = (
        (generator.integers(0, 256, (size, *shape), np.uint8), generator.integers(0, 10, size))
        for size in (50_000, 500)
    )
    statistics = (127.5,) * shape[-1]
    return ArrayDataset(name, train, test, tuple("0123456789"), statistics, statistics)


def load(data: dict[str, str], image_size: int | None) -> Iterator:
    """The data sets to measure."""
    from larq_ext_recipes import datasets

    for name in SHAPES:
        yield made_up(name) if name not in data else datasets.load(name, data[name])
    for name, folder in data.items():
        if name not in SHAPES:
            yield datasets.load(name, folder, image_size=image_size)


def pipelines(options: argparse.Namespace) -> dict[str, Turn]:
    """A turn of each pipeline: its next batches."""
    from larq_ext_recipes._augmentation import Augmentation

    turns: dict[str, Turn] = {}
    for dataset in load(dict(options.data), options.image_size):
        for name, fields in augmentations(dataset.input_shape[-1]).items():
            if options.only and not any(word in name for word in options.only):
                continue
            data = dataset.training(options.batch_size, 0, Augmentation(**fields))
            stream = data.stream(0, 1_000_000)
            height, width, _ = dataset.input_shape
            turns[f"{dataset.name} {height}x{width}: {name}"] = _turn(stream, options.steps)
    return turns


def _turn(stream: Iterable, steps: int) -> Turn:
    """The first batches of a new iterator, from nothing.

    One that went on would have worked ahead in the turns of the others. What it works ahead here
    and the order that it draws for an epoch are counted, so the speed of a long run is higher.
    """
    return lambda: sum(len(labels) for _, labels in itertools.islice(stream, steps))


def training(options: argparse.Namespace) -> Turn:
    """A turn of training with Larq's `ste_sign`, the fastest of the methods."""
    import training_step

    step = training_step.make_step(training_step.BASELINE, options.batch_size)

    def turn() -> int:
        for _ in range(options.training_steps):
            step()
        return options.training_steps * options.batch_size

    return turn


def measure(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Images per second of each in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in turns}
    for round_ in range(-1, rounds):
        # Every other round backwards: none always follows the same one.
        for name in turns if round_ % 2 == 0 else reversed(turns):
            start = time.perf_counter()
            images = turns[name]()
            if round_ >= 0:  # the first round warms up
                speeds[name].append(images / (time.perf_counter() - start))
        print(f"round {round_ + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return speeds


def _data(word: str) -> tuple[str, str]:
    name, equals, folder = word.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, received {word!r}")
    return name, folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=_data,
        nargs="*",
        default=[],
        metavar="NAME=FOLDER",
        help="data sets to read: cifar10, mnist, imagenette, imagenet or folder",
    )
    parser.add_argument("--image-size", type=int, help="for pictures of any size")
    parser.add_argument("--only", nargs="*", help="augmentations with these words in their names")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--steps", type=int, default=50, help="batches in a turn (default 50)")
    parser.add_argument("--training-steps", type=int, default=4, help="steps in a turn (default 4)")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    options = parser.parse_args()

    from larq_ext_recipes._environment import hardware, versions

    turns = {TRAINED: training(options), **pipelines(options)}
    speeds = measure(turns, options.rounds)
    results = {}
    for name, values in speeds.items():
        ratios = [one / other for one, other in zip(values, speeds[TRAINED], strict=True)]
        results[name] = {
            "images_per_second": statistics.median(values),
            "slowest": min(values),
            "fastest": max(values),
            "ratio": statistics.median(ratios),
        }
    machine = hardware()
    print(f"{machine}\nbatches of {options.batch_size}, medians of {options.rounds} rounds")
    print(f"{'':40} {'images/s':>9} {'slowest':>9} {'fastest':>9} {'of training':>11}")
    for name, row in results.items():
        print(
            f"{name:40} {row['images_per_second']:9.0f} {row['slowest']:9.0f} "
            f"{row['fastest']:9.0f} {row['ratio']:11.1f}"
        )
    if options.json:
        content = {"hardware": machine, "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
