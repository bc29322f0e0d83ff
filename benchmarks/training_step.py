"""Step time and peak memory of each method on ResNet-20, against Larq's own quantizers.

    python benchmarks/training_step.py --rounds 8

All candidates train in one process, a few steps each in turn, so that they share whatever else
the machine does; the table gives medians and their ratio to the baseline of the same run. Peak
memory is that of a fresh process per candidate, minus that of a process without a model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BASELINE = "larq"
BFLOAT16 = ", bfloat16"  # ends the name of a method whose convolutions compute in it


def candidates() -> dict:
    """Methods, and what makes quantizers instead of theirs, by the name of the candidate."""
    import larq_ext as lqx  # isort: skip  (makes tf.keras the one that Larq needs)
    import larq as lq

    methods = {
        BASELINE: ("ste_sign", {"input_quantizer": lq.quantizers.ApproxSign}),
        "ste_sign": ("ste_sign", {}),
        "fda without noise": (
            "fda",
            {
                "input_quantizer": lambda: lqx.quantizers.FDA(role="input", noise=False),
                "kernel_quantizer": lambda: lqx.quantizers.FDA(role="kernel", noise=False),
            },
        ),
        "fda": ("fda", {}),
        "learnable_scale": ("learnable_scale", {}),
        "siman": ("siman", {}),
        "mlp_classifier linear": (
            "mlp_classifier",
            {"kernel_quantizer": lambda: lqx.quantizers.MLPClassifier(hidden=0)},
        ),
        "mlp_classifier": ("mlp_classifier", {}),
    }
    return {**methods, **{name + BFLOAT16: methods[name] for name in ("ste_sign", "fda")}}


def make_step(name: str, batch_size: int):
    """A compiled training step of one candidate, as a function without arguments."""
    import numpy as np
    import tensorflow as tf

    import larq_ext_zoo as zoo
    from larq_ext._convolution import convolutions_in

    tf.keras.utils.set_random_seed(0)
    method, instead = candidates()[name]
    model = zoo.ResNet20(quantizer=method)
    if instead:
        model = _with_quantizers(model, instead)
    model.compile(tf.keras.optimizers.legacy.SGD(0.1, 0.9), "sparse_categorical_crossentropy")
    images = tf.constant(np.random.randn(batch_size, 32, 32, 3), tf.float32)
    labels = tf.constant(np.random.randint(0, 10, batch_size))
    function = tf.function(lambda: model.train_step((images, labels)))
    with convolutions_in(tf.bfloat16 if name.endswith(BFLOAT16) else None):
        function()  # built here
    return lambda: function()["loss"].numpy()


def _with_quantizers(model, instead):
    """A copy of a network with other quantizers in its binary layers."""
    import tensorflow as tf

    import larq_ext as lqx

    def clone(layer):
        if not isinstance(layer, lqx.layers.QuantConv2D):
            return layer.__class__.from_config(layer.get_config())
        made = {role: make() for role, make in instead.items()}
        return type(layer).from_config({**layer.get_config(), **made})

    return tf.keras.models.clone_model(model, clone_function=clone)


def peak_memory(name: str | None, batch_size: int) -> float:
    """Peak resident memory in MB of a fresh process that trains a few steps."""
    command = [sys.executable, __file__, "--child", name or "", "--batch-size", str(batch_size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _child(name: str, batch_size: int) -> None:
    import tensorflow as tf

    if name:
        step = make_step(name, batch_size)
        for _ in range(3):
            step()
    else:
        importlib.import_module("larq_ext_zoo")  # with it, as the others have it
        tf.zeros(())
    # Not getrusage, whose peak includes that of the process this one was forked from.
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="turns of each candidate")
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", nargs="*", help="candidates to compare with the baseline")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        _child(options.child, options.batch_size)
        return

    unknown = set(options.only or ()) - set(candidates())
    if unknown:
        parser.error(f"--only takes {', '.join(candidates())}, received {', '.join(unknown)}")
    names = [n for n in candidates() if not options.only or n in (BASELINE, *options.only)]
    steps = {name: make_step(name, options.batch_size) for name in names}
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(options.rounds):
        # Every other round backwards: no candidate always follows the same one.
        for name in names if round_ % 2 == 0 else reversed(names):
            for _ in range(options.steps):
                start = time.perf_counter()
                steps[name]()
                times[name].append(time.perf_counter() - start)

    from larq_ext.benchmark._timing import Spread

    base = None if options.no_memory else peak_memory(None, options.batch_size)
    results = {}
    for name in names:
        spread = Spread.of(times[name])
        results[name] = {
            "milliseconds": 1000 * spread.median,
            "quartiles": [1000 * spread.low, 1000 * spread.high],
            "ratio": statistics.median(times[name]) / statistics.median(times[BASELINE]),
            "peak_mb": None if base is None else peak_memory(name, options.batch_size) - base,
        }
    print(
        f"ResNet-20, batch {options.batch_size}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {options.rounds * options.steps} steps each"
    )
    print(f"{'method':24} {'ms/step':>8} {'quartiles':>15} {'ratio':>6} {'peak MB':>8}")
    for name, row in results.items():
        low, high = row["quartiles"]
        memory = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        print(
            f"{name:24} {row['milliseconds']:8.1f} {low:7.1f}-{high:7.1f} "
            f"{row['ratio']:6.2f} {memory:>8}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
