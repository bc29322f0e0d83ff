"""What 8-bit first and last layers change: accuracy, size and latency against float ones.

    python benchmarks/int8_edges.py digits_net.fda_digits --dataset digits
    python benchmarks/int8_edges.py runs/ResNet20FDA/model.keras --data-dir cifar-10-batches-bin

The ranges are found on training images, the accuracy is that of the test images, both as the
files compute it. Latencies are taken in turns; their ratios compare turns of the same round.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def files(model, samples, percentiles: list[float], layers: list[str]) -> dict[str, bytes]:
    """The converted model with float edges, and with 8-bit layers found in several ways."""
    from larq_ext.deploy import convert, int8_edges

    made = {"float": convert(model).flatbuffer}
    for chosen in layers:
        for percentile in percentiles:
            edged = int8_edges(model, samples, layers=chosen, percentile=percentile)
            made[f"{chosen} {percentile:g}"] = convert(edged).flatbuffer
    ends = int8_edges(model, samples)
    made["int8 in/out"] = convert(ends, input_type="int8", output_type="int8").flatbuffer
    return made


def outputs(flatbuffer: bytes, images):
    """What a file computes for images, as numbers."""
    from larq_ext.runtime import Interpreter

    interpreter = Interpreter(flatbuffer)
    (before,), (behind,) = interpreter.input_quantization, interpreter.output_quantization
    result = interpreter.predict(before.quantize(images) if before else images)
    return behind.dequantize(result) if behind else result


def latencies(made: dict[str, bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Medians and quartiles of one thread, and ratios to the file with float edges."""
    from larq_ext.benchmark._native import native_contender
    from larq_ext.benchmark._timing import Spread, ratios, take_turns

    contenders = {name: native_contender(file, 1, "auto").timed for name, file in made.items()}
    turns = take_turns(contenders, rounds, pause=0.05)
    found = {}
    for name, taken in turns.items():
        seconds = Spread.of([turn.median for turn in taken])
        ratio = ratios(taken, turns["float"])
        found[name] = {
            "milliseconds": 1e3 * seconds.median,
            "ratio": ratio.median,
            "ratio_quartiles": [ratio.low, ratio.high],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="zoo name or Keras file")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--samples", type=int, default=256, help="training images for the ranges")
    parser.add_argument("--limit", type=int, help="number of test images")
    parser.add_argument("--percentiles", type=float, nargs="+", default=[100, 99.99, 99.9])
    parser.add_argument("--layers", nargs="+", default=["edges"])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()

    import numpy as np

    import larq_ext_zoo as zoo
    from larq_ext._models_io import load_model
    from larq_ext_recipes import datasets

    assert zoo  # names of its models are known from here on
    model = load_model(options.model)
    data = datasets.load(options.dataset, options.data_dir)

    def seen(images):
        """As the network sees images."""
        return ((images - np.array(data.mean)) / np.array(data.std)).astype("float32")

    chosen = np.random.default_rng(0).choice(data.train_size, options.samples, replace=False)
    images, labels = seen(data.test[0][: options.limit]), data.test[1][: options.limit]
    made = files(model, seen(data.train[0][chosen]), options.percentiles, options.layers)
    times = latencies(made, options.rounds)
    results = {}
    for name, file in made.items():
        classes = outputs(file, images).argmax(1)
        if name == "float":
            expected = classes
        results[name] = {
            "accuracy": float((classes == labels).mean()),
            "same_class": int((classes == expected).sum()),
            "images": len(labels),
            "bytes": len(file),
            **times[name],
        }
        print(name, json.dumps(results[name]), flush=True)


if __name__ == "__main__":
    main()
