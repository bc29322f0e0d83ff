"""Accuracy against latency of trained pose networks, each in the files it would be deployed as.

    python benchmarks/pose.py runs/SBPN18Small runs/SimpleBaseline18Small --data-dir coco -o pose

A binary network is converted for binary kernels (`binary`, run by ours, and timed in Larq Compute
Engine's interpreter too), a real one for TensorFlow Lite in float32 and in int8, with ranges found
on training crops. The scores are those that the files reach on the evaluation pictures, with
labelled boxes; all latencies are taken in turns, one crop at a time on one thread. The folder gets
the files, `results.json`, a table as `results.md` and the figure `accuracy_latency.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Of the figure: a marker for each kind of file.
MARKERS = {"binary": "o", "float32": "s", "int8": "^"}


def calibration(dataset, count: int):
    """Training crops as the network sees them, float32 `(count, height, width, 3)`."""
    import numpy as np

    from larq_ext_recipes._pose_views import PoseAugmentation

    still = PoseAugmentation(0.0, 0.0, 0.0, False)
    batches = dataset.training(32, 0, still).batches(0).as_numpy_iterator()
    crops = [next(batches)[0] for _ in range(-(-count // 32))]
    return np.concatenate(crops)[:count]


def make_files(model, samples) -> dict[str, bytes]:
    """What a model is deployed as, by kind."""
    import tensorflow as tf

    from larq_ext.deploy import convert
    from larq_ext.deploy.convert import trace

    if any(hasattr(layer, "kernel_quantizer") for layer in model.layers):
        return {"binary": convert(model).flatbuffer}
    made = {}
    for kind in ("float32", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([trace(model)], model)
        if kind == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([crop[None]] for crop in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        made[kind] = converter.convert()
    return made


def multiply_adds(file: bytes) -> dict[str, int]:
    """Multiply-adds of a file by precision."""
    from larq_ext.deploy._flatbuffer import read_graph
    from larq_ext.deploy._macs import macs_of, precision_of

    graph = read_graph(file)
    macs: dict[str, int] = {}
    for op in graph.ops:
        precision = precision_of(graph, op)
        if precision:
            macs[precision] = macs.get(precision, 0) + macs_of(graph, op)
    return macs


def latencies(files: dict[tuple[str, str], bytes], rounds: int) -> dict[tuple[str, str], Any]:
    """Median and quartiles in milliseconds, of all files in turns."""
    from larq_ext.benchmark._contenders import lce_contender
    from larq_ext.benchmark._native import native_contender
    from larq_ext.benchmark._timing import Spread, take_turns

    contenders = {}
    for (name, kind), file in files.items():
        contenders[name, kind] = native_contender(file, 1, "auto").timed
        if kind == "binary":
            contenders[name, "lce"] = lce_contender(file, 1).timed
    found = {}
    for key, turns in take_turns(contenders, rounds, pause=0.05).items():
        spread = Spread.of([1e3 * turn.median for turn in turns])
        found[key] = {
            "milliseconds": spread.median,
            "milliseconds_quartiles": [spread.low, spread.high],
        }
    return found


def table(rows: list[dict[str, Any]], baseline: dict[str, float]) -> str:
    """The results in Markdown."""
    lines = [
        "| network | file | AP | AP50 | AR | ms | ms in LCE | KB | million multiply-adds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        macs = ", ".join(f"{1e-6 * count:.1f} {kind}" for kind, count in row["macs"].items())
        lce = f"{row['lce_milliseconds']:.2f}" if "lce_milliseconds" in row else ""
        scores = " | ".join(f"{100 * row[name]:.1f}" for name in ("AP", "AP50", "AR"))
        lines.append(
            f"| {row['network']} | {row['kind']} | {scores} | {row['milliseconds']:.2f} | {lce} | "
            f"{row['bytes'] / 1e3:.0f} | {macs} |"
        )
    scores = " | ".join(f"{100 * baseline[name]:.1f}" for name in ("AP", "AP50", "AR"))
    lines.append(f"| mean pose in the box | | {scores} | | | | |")
    return "\n".join(lines) + "\n"


def draw(path: pathlib.Path, rows: list[dict[str, Any]], title: str) -> None:
    """AP over latency, a point for each file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row in rows:
        point = row["milliseconds"], 100 * row["AP"]
        axes.plot(*point, MARKERS[row["kind"]], color="C0" if row["kind"] == "binary" else "C1")
        label = f"{row['network']}, {row['kind']}"
        above = row["kind"] != "int8"  # next to the same network in float32
        offset = (6, 4) if above else (6, -11)
        axes.annotate(label, point, xytext=offset, textcoords="offset points", fontsize=8)
    axes.set(xlabel="milliseconds for a crop, one thread", ylabel="AP", xscale="log", title=title)
    axes.set_ylim(0, None)
    for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatted(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.3)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="folders of trained runs")
    parser.add_argument("--data-dir", help="COCO's person keypoints")
    parser.add_argument("--samples", type=int, default=128, help="crops for the ranges of int8")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="folder")
    options = parser.parse_args()

    from larq_ext._models_io import load_model
    from larq_ext.benchmark._machine import machine
    from larq_ext.pose import mean_pose
    from larq_ext_recipes._pose_evaluation import evaluate_mean_pose, evaluate_pose
    from larq_ext_recipes.datasets import coco_keypoints

    names = [run.resolve().name for run in options.runs]
    if len(set(names)) < len(names):
        parser.error(f"runs are told apart by the names of their folders, received {names}")
    about = machine()  # before our own work loads it
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    files: dict[tuple[str, str], bytes] = {}
    for run, name in zip(options.runs, names, strict=True):
        model = load_model(run / "model.keras")
        dataset = coco_keypoints.load(options.data_dir, model.input_shape[1:3])
        made = make_files(model, calibration(dataset, options.samples))
        for kind, file in made.items():
            path = options.output / f"{name}.{kind}.tflite"
            path.write_bytes(file)
            files[name, kind] = file
            row = {
                "network": name,
                "kind": kind,
                "bytes": len(file),
                "macs": multiply_adds(file),
                **evaluate_pose(str(path), dataset.test),
            }
            rows.append(row)
            print(name, kind, json.dumps(row), flush=True)
    pose = mean_pose(dataset.train.annotations()["annotations"])
    baseline = evaluate_mean_pose(pose, dataset.test)
    times = latencies(files, options.rounds)
    for row in rows:
        row |= times[row["network"], row["kind"]]
        if row["kind"] == "binary":
            row["lce_milliseconds"] = times[row["network"], "lce"]["milliseconds"]
    results = {"machine": about, "rows": rows, "mean_pose": baseline}
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.output / "results.md").write_text(table(rows, baseline))
    title = f"{rows[0]['persons']} persons in {rows[0]['images']} pictures, labelled boxes"
    draw(options.output / "accuracy_latency.png", rows, title)
    print(table(rows, baseline))


if __name__ == "__main__":
    main()
