"""The demo: train a small network, deploy it, prove it binary, draw it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from larq_ext_recipes._run_folder import RunFolder


def run(
    quantizer: str, *, epochs: int | None, seed: int, output_dir: pathlib.Path, quiet: bool = False
) -> dict[str, Any]:
    """Trains, deploys, proves and draws.

    # Arguments
        quantizer: Name of a method.
        epochs: Passes through the training images, or `None` for the zoo's trained network.
        seed: Seed of the run.
        output_dir: Folder for the results.
        quiet: Whether to print nothing.

    # Returns
        What `report.json` holds.

    # Raises
        UsageError: if `output_dir` holds a training that is none of a demo.
    """
    import larq_ext as lqx
    import larq_ext_recipes as recipes
    from larq_ext_recipes._files import write_json
    from larq_ext_recipes._run_folder import RunFolder

    # After larq_ext, which decides which Keras they get.
    import larq as lq  # isort: skip
    import numpy as np  # isort: skip
    import tensorflow as tf  # isort: skip

    folder = output_dir / "training"
    earlier = RunFolder(recipes.get_experiment("Digits", output_dir=str(folder)))
    _check_ours(earlier)
    if epochs is None:
        import larq_ext_zoo as zoo

        name = f"digits_net.{quantizer}_digits"
        model, training = zoo.get(name), {"model": name, **zoo.entry(name).to_dict()}
        output_dir.mkdir(parents=True, exist_ok=True)
        earlier.clear()
        files = []
    else:
        try:
            training = recipes.train(
                "Digits",
                quantizer=quantizer,
                epochs=epochs,
                seed=seed,
                output_dir=str(folder),
                overwrite=folder.exists(),
                progress="none" if quiet else "auto",
            )
        except recipes.TrainingInterrupted as stop:
            message = "Stopped. The demo takes a minute: give the same command to start again."
            raise recipes.TrainingInterrupted(message) from stop
        model = tf.keras.models.load_model(folder / "model.keras")
        files = ["training/model.keras"]
    batches = recipes.get_experiment("Digits").load_data().evaluation()
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    top1 = float((model.predict(images, verbose=0).argmax(-1) == labels).mean())
    say = (lambda *_: None) if quiet else print
    if not quiet:
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


def _check_ours(earlier: RunFolder) -> None:
    """Lets only a demo's own training be replaced."""
    from larq_ext_recipes._errors import UsageError
    from larq_ext_recipes._files import read_json

    if not earlier.exists:
        return
    try:
        name = read_json(earlier.run)["configuration"]["name"]
    except (OSError, ValueError, TypeError, KeyError):
        name = None
    if name != "Digits":
        raise UsageError(
            f"{earlier.path} has a run{f' of {name}' if name else ''}, which the demo would "
            "delete: give another folder with --output-dir."
        )


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
