"""The command `demo`: train a small network, deploy it, prove it binary, draw it."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from typing import Any

import click
from click.core import ParameterSource

QUANTIZERS = ("fda", "learnable_scale", "siman", "mlp_classifier", "ste_sign")


@click.command()
@click.option(
    "--quantizer",
    type=click.Choice(QUANTIZERS),
    default="fda",
    show_default=True,
    help="Method of binarization.",
)
@click.option("--pretrained", is_flag=True, help="Take the trained network of the zoo instead.")
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    default=pathlib.Path("larq-ext-demo"),
    show_default=True,
    help="Folder for the results; those of an earlier demo are replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print only the report, as JSON.")
def demo(
    quantizer: str,
    pretrained: bool,
    epochs: int,
    seed: int,
    output_dir: pathlib.Path,
    as_json: bool,
) -> None:
    """Train a binarized network and run it on one-bit kernels, in about a minute.

    Uses scikit-learn's 1,797 handwritten digits, so it needs no network and no files. Trains on
    1,437 of them, converts the network for the Larq Compute Engine, proves that each binary layer
    became a one-bit convolution, and compares the predictions for the other 360 with Keras.

    \b
    Examples:
      larq-ext demo --quantizer siman --output-dir /tmp/demo
      larq-ext demo --pretrained
    """
    from larq_ext_recipes.cli import _one_line_errors

    if pretrained:
        source = click.get_current_context().get_parameter_source
        for name in ("epochs", "seed"):
            if source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"--pretrained trains nothing: leave --{name} out.")
    say = (lambda *_: None) if as_json else click.echo
    with _one_line_errors():
        report = run(
            quantizer,
            epochs=None if pretrained else epochs,
            seed=seed,
            output_dir=output_dir,
            say=say,
        )
    if as_json:
        click.echo(json.dumps(report, indent=2))
    if not report["verify"]["ok"]:
        sys.exit(1)


def run(
    quantizer: str, *, epochs: int | None, seed: int, output_dir: pathlib.Path, say
) -> dict[str, Any]:
    """Trains, deploys, proves and draws.

    # Arguments
        quantizer: Name of a method.
        epochs: Passes through the training images, or `None` for the zoo's trained network.
        seed: Seed of the run.
        output_dir: Folder for the results.
        say: Function that prints a line.

    # Returns
        What `report.json` holds.
    """
    import larq_ext as lqx
    import larq_ext_recipes as recipes
    from larq_ext_recipes._files import write_json

    # After larq_ext, which decides which Keras they get.
    import larq as lq  # isort: skip
    import numpy as np  # isort: skip
    import tensorflow as tf  # isort: skip

    folder = output_dir / "training"
    if epochs is None:
        import larq_ext_zoo as zoo

        name = f"digits_net.{quantizer}_digits"
        model, training = zoo.get(name), {"model": name, **zoo.entry(name).to_dict()}
        output_dir.mkdir(parents=True, exist_ok=True)
        if (folder / "run.json").exists():  # of an earlier demo, and of another network
            shutil.rmtree(folder)
        files = []
    else:
        training = recipes.train(
            "Digits",
            quantizer=quantizer,
            epochs=epochs,
            seed=seed,
            output_dir=str(folder),
            overwrite=folder.exists(),
            progress="auto" if say is click.echo else "none",
        )
        model = tf.keras.models.load_model(folder / "model.keras")
        files = ["training/model.keras"]
    batches = recipes.get_experiment("Digits").load_data().evaluation()
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    top1 = float((model.predict(images, verbose=0).argmax(-1) == labels).mean())
    if say is click.echo:
        lq.models.summary(model)

    say("Converting ...")
    conversion = lqx.deploy.convert(model)
    conversion.save(output_dir / "model.tflite")
    parity = lqx.deploy.verify(model, conversion.flatbuffer, images)
    probabilities = lqx.runtime.Interpreter(conversion.flatbuffer).predict(images)
    predictions = probabilities.argmax(-1)
    accuracy = float((predictions == labels).mean())

    picture = output_dir / "demo.png"
    draw(picture, quantizer, images, labels, predictions)
    float_bytes = sum(4 * int(w.shape.num_elements()) for w in conversion.model.weights)
    report = {
        "quantizer": quantizer,
        "test_images": len(labels),
        "test_accuracy_keras": top1,
        "test_accuracy_deployed": accuracy,
        "bytes": len(conversion.flatbuffer),
        "bytes_of_weights_in_float32": float_bytes,
        "audit": conversion.report.to_dict(),
        "verify": parity.to_dict(),
        "training": training,
    }
    write_json(output_dir / "report.json", report)

    say(str(conversion.report))
    say(str(parity))
    say(
        f"\nTest accuracy {accuracy:.2%} deployed, {top1:.2%} in Keras "
        f"({len(labels)} images)\n"
        f"Size {len(conversion.flatbuffer) / 1024:.1f} KiB for the whole file, "
        f"{float_bytes / 1024:.1f} KiB for the same weights in float32\n"
        f"Results in {output_dir}: "
        f"{', '.join(['model.tflite', 'report.json', picture.name, *files])}"
    )
    return report


def _curves(quantizer):
    """Values and gradient of a new quantizer along a line from -1.5 to 1.5."""
    import larq_ext as lqx

    import numpy as np  # isort: skip
    import tensorflow as tf  # isort: skip

    x = np.linspace(-1.5, 1.5, 600, dtype="float32")
    # As one filter with 600 weights, and as one sample with 600 columns.
    line = tf.constant(x.reshape(1, 1, -1, 1))
    if isinstance(quantizer, lqx.quantizers.BinaryQuantizer):
        quantizer.build(line.shape)
        quantizer.initialize_from(np.ones(line.shape))
    with tf.GradientTape() as tape:
        tape.watch(line)
        values = quantizer(line)
    gradient = tape.gradient(values, line)
    return x, values.numpy().ravel(), gradient.numpy().ravel()


def draw(path: pathlib.Path, quantizer: str, images, labels, predictions) -> None:
    """Draws the two quantizers of a method and predictions for the first test images.

    # Arguments
        path: File to write.
        quantizer: Name of the method.
        images: Array of shape `(samples, height, width, 1)`.
        labels: True classes.
        predictions: Predicted classes.
    """
    from matplotlib.figure import Figure

    import larq_ext as lqx
    from larq_ext._files import atomic

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    curves, samples = figure.subfigures(2, 1, height_ratios=[3, 2])
    curves.suptitle(f'quantizer="{quantizer}"')
    parts = lqx.quantizers.method(quantizer).arguments()
    axes = curves.subplots(1, 2)
    for axis, role in zip(axes, ("input", "kernel"), strict=True):
        x, values, gradient = _curves(parts[f"{role}_quantizer"])
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.plot(x, values, label="value")
        axis.plot(x, gradient, "--", label="gradient")
        axis.set_title("activations" if role == "input" else "weights")
        axis.legend()
    samples.suptitle("predictions of the one-bit network (wrong ones in red)")
    for axis, image, label, prediction in zip(
        samples.subplots(2, 12).flat, images, labels, predictions, strict=False
    ):
        axis.imshow(image[..., 0], cmap="gray_r")
        axis.set_axis_off()
        axis.set_title(str(prediction), color="black" if label == prediction else "red")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
