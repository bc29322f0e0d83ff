"""Step time of a recipe, with its data and schedules, against a bare training loop.

    python benchmarks/recipe_step.py --data-dir FOLDER

The recipe trains ResNet-20 on CIFAR-10; in between, the same network takes steps of Keras's
`train_on_batch` on one batch in memory, in the same process. The ratio compares turns that follow
each other, so it does not depend on what else the machine does. A turn has many more steps than
batches are prepared ahead, as these come free: the pipeline goes on in the other's turn.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RECIPE, BARE = "recipe", "train_on_batch"


def bare_step(experiment, batch_size: int):
    """A step of the same network and optimizer on one batch, with nothing around it."""
    import numpy as np
    import tensorflow as tf

    import larq_ext_zoo as zoo

    model = zoo.ResNet20(quantizer=experiment.quantizer)
    model.compile(tf.keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", ["accuracy"])
    images = np.random.default_rng(0).normal(size=(batch_size, 32, 32, 3)).astype("float32")
    labels = np.arange(batch_size) % 10
    return lambda: model.train_on_batch(images, labels)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of each in each round."""
    import tensorflow as tf

    import larq_ext_recipes as recipes

    experiment = recipes.get_experiment(
        "ResNet20SteSign",
        data_dir=options.data_dir,
        epochs=1,
        batch_size=options.batch_size,
        limit=10 * (options.batch_size * options.steps * (options.rounds + 1) // 10 + 1),
        optimizer="adam",
        progress="none",
    )
    bare = bare_step(experiment, options.batch_size)
    seconds: dict[str, list[float]] = {RECIPE: [], BARE: []}

    class Turns(tf.keras.callbacks.Callback):
        """Stops the clock of the recipe for the bare loop's turn."""

        def on_train_batch_end(self, batch, logs=None):
            if (batch + 1) % options.steps:
                return
            if batch > options.steps:  # the first turn warms up
                seconds[RECIPE].append((time.perf_counter() - self.start) / options.steps)
            start = time.perf_counter()
            for _ in range(options.steps):
                bare()
            if batch > options.steps:
                seconds[BARE].append((time.perf_counter() - start) / options.steps)
            self.start = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        recipes.train(experiment.replace(output_dir=folder + "/run"), callbacks=[Turns()])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder of CIFAR-10")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each (default 8)")
    parser.add_argument("--steps", type=int, default=32, help="steps in a turn (default 32)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    options = parser.parse_args()

    from larq_ext.benchmark._timing import Spread

    seconds = measure(options)
    ratios = [a / b for a, b in zip(seconds[RECIPE], seconds[BARE], strict=True)]
    ratio = Spread.of(ratios)
    results = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    for name, value in results.items():
        print(f"{name:16} {value:8.1f} ms/step")
    quartiles = f"quartiles {ratio.low:.3f} to {ratio.high:.3f}"
    print(f"ratio {ratio.median:.3f} ({quartiles}) of {len(ratios)} rounds")
    if options.json:
        options.json.write_text(json.dumps({**results, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
