"""Two steps, distillation and averaged weights: what they compute and that runs resume."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import signal

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from tiny import SignalAt, tiny_experiment, tiny_network

import larq_ext as lqx
import larq_ext_zoo as zoo
from larq_ext_recipes import TrainingInterrupted, UsageError, evaluate, train
from larq_ext_recipes._averaging import WeightAverage
from larq_ext_recipes._environment import lacks_for_bfloat16
from larq_ext_recipes._start import step_options
from larq_ext_recipes._training_step import StepOptions, with_step
from larq_ext_recipes._two_step import drop_kernel_quantizers, load_initial_weights, take_over
from larq_ext_recipes.datasets import digits


def epochs(folder: pathlib.Path) -> list[str]:
    with (folder / "log.csv").open() as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def load(folder: pathlib.Path) -> tf.keras.Model:
    return tf.keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("quantizer", ["ste_sign", "fda"])
def test_nested_models_have_real_kernels_too(quantizer):
    def network():
        image = tf.keras.Input((8, 8, 1))
        inner = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer=quantizer)
        return tf.keras.Model(image, inner(image))

    model = network()
    real = drop_kernel_quantizers(model)
    one, other = (net.get_layer("tiny").get_layer("binary") for net in (model, real))
    assert other.kernel_quantizer is None and other.input_quantizer is not None
    for name in ("stem", "norm2", "logits"):
        for a, b in zip(
            model.get_layer("tiny").get_layer(name).get_weights(),
            real.get_layer("tiny").get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.kernel, other.kernel)
    other.kernel.assign(2.0 * other.kernel)
    again = network()
    take_over(real, again, "the first step")
    found = again.get_layer("tiny").get_layer("binary").kernel
    np.testing.assert_array_equal(found, other.kernel)


@pytest.mark.parametrize("quantizer", ["fda", "learnable_scale", "siman", "mlp_classifier"])
def test_the_first_step_has_real_kernels_and_the_second_starts_from_them(quantizer, tmp_path):
    model = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer=quantizer)
    real = drop_kernel_quantizers(model)
    layer = real.get_layer("binary")
    assert layer.kernel_quantizer is None and layer.kernel_constraint is None
    assert type(layer.input_quantizer) is type(model.get_layer("binary").input_quantizer)
    np.testing.assert_array_equal(layer.kernel, model.get_layer("binary").kernel)

    kernel = np.random.default_rng(0).normal(size=layer.kernel.shape).astype(np.float32)
    layer.kernel.assign(kernel)
    # What the layer computes now is the convolution of binary inputs with a real kernel.
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype(np.float32)
    expected = tf.nn.conv2d(layer.input_quantizer(images), kernel, 1, "VALID")
    if (scale := getattr(layer, "scale", None)) is not None:
        expected *= scale
    np.testing.assert_allclose(layer(images), expected, rtol=1e-5)

    real.save(tmp_path / "real.keras")
    again = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer=quantizer)
    load_initial_weights(again, tmp_path / "real.keras")
    for name in ("stem", "norm1", "norm2", "logits"):
        for one, other in zip(
            again.get_layer(name).get_weights(), real.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.get_layer("binary").kernel, kernel)
    if quantizer == "learnable_scale":
        scale = again.get_layer("binary").kernel_quantizer.weights[0]
        np.testing.assert_allclose(scale, np.abs(kernel).mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.slow
def test_two_steps_in_one_run(tmp_path):
    with pytest.raises(TrainingInterrupted, match="first_step"):
        train(tiny_experiment(tmp_path, first_step_epochs=2), callbacks=[SignalAt(18)])
    first = tmp_path / "first_step"
    assert not (first / "model.keras").exists()
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path, first_step_epochs=2), resume=True, callbacks=[SignalAt(15)])
    assert epochs(first) == ["1", "2"] and load(first).get_layer("binary").kernel_quantizer is None
    kernel = load(first).get_layer("binary").kernel.numpy()
    saved = tf.train.load_checkpoint(str(next((tmp_path / "checkpoints").iterdir()) / "state"))
    shapes = saved.get_variable_to_shape_map()
    name = next(n for n in shapes if "kernel/.ATT" in n and shapes[n] == list(kernel.shape))
    # A few steps from where the first step ended, far from any new random start.
    near = np.corrcoef(saved.get_tensor(name).ravel(), kernel.ravel())[0, 1]
    assert near > 0.8
    metrics = train(tiny_experiment(tmp_path, first_step_epochs=2), resume=True)
    assert epochs(tmp_path) == ["1", "2"] and metrics["epochs"] == 2
    assert lqx.deploy.bake(load(tmp_path))
    assert metrics["configuration"]["initial_weights"] is None, "so that other seeds say the same"
    assert metrics["seconds"] > json.loads((first / "metrics.json").read_text())["seconds"] > 0


@pytest.mark.slow
def test_a_signal_while_the_first_step_finishes_stops_before_the_second(tmp_path):
    class SignalInLastEvaluation(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match="The first step is finished"):
        experiment = tiny_experiment(tmp_path, first_step_epochs=1, epochs=1)
        train(experiment, callbacks=[SignalInLastEvaluation()])
    assert (tmp_path / "first_step" / "metrics.json").exists()
    assert not (tmp_path / "checkpoints").exists()
    metrics = train(tiny_experiment(tmp_path, first_step_epochs=1, epochs=1), resume=True)
    assert metrics["epochs"] == 1


def test_two_steps_that_cannot_start_leave_the_old_run(tmp_path):
    settings = {"first_step_epochs": 1, "epochs": 1}
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "model.keras").write_text("the old one")
    for wrong, message in (
        ({"initial_weights": "nowhere"}, "There is no model nowhere"),
        ({"teacher": "nowhere"}, "There is no model nowhere"),
        ({"lighting": 0.1}, "lighting"),  # of grey images
    ):
        with pytest.raises(UsageError, match=message):
            train(tiny_experiment(tmp_path, **settings | wrong), overwrite=True)
    assert (tmp_path / "model.keras").read_text() == "the old one"
    assert not (tmp_path / "first_step").exists()


@pytest.mark.parametrize("method", ["learnable_scale", "siman", "ste_sign"])
def test_the_second_step_takes_over_all_of_a_separable_layer(method):
    """Its kernels have other quantizers, with other weights, than in the first step."""
    kernel = lqx.quantizers.method(method).arguments()["kernel_quantizer"]
    image = tf.keras.Input((8, 8, 3))
    layer = lq.layers.QuantSeparableConv2D(
        4, 3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", pointwise_quantizer=kernel
    )
    model = tf.keras.Model(image, layer(image))
    real = drop_kernel_quantizers(model)
    generator = np.random.default_rng(0)
    for weight in real.weights:
        weight.assign(generator.normal(size=weight.shape))
    take_over(real, model, "The first step")
    for name in ("depthwise_kernel", "pointwise_kernel", "bias"):
        with lq.context.quantized_scope(False):
            ours = tf.convert_to_tensor(getattr(layer, name)).numpy()
        np.testing.assert_array_equal(ours, getattr(real.layers[-1], name).numpy())


def test_initial_weights_of_another_network(tmp_path):
    x = tf.keras.Input((2,))
    tf.keras.Model(x, tf.keras.layers.Dense(1, name="other")(x)).save(tmp_path / "other.keras")
    with pytest.raises(UsageError, match=r"other\.keras is for another network"):
        train(tiny_experiment(tmp_path, initial_weights=str(tmp_path / "other.keras")))
    with pytest.raises(UsageError, match=r"There is no model .*nope"):
        train(tiny_experiment(tmp_path, initial_weights=str(tmp_path / "nope")))
    (tmp_path / "broken.keras").write_text("no model")
    with pytest.raises(UsageError, match=r"Cannot load .*broken"):
        train(tiny_experiment(tmp_path, initial_weights=str(tmp_path / "broken.keras")))


def test_initial_weights_of_the_zoo():
    """All of the trained network but the classifier, which is for other classes."""
    tf.keras.layers.PReLU()  # moves the numbers of layers that have no name of their own
    trained = zoo.get("resnet20.ste_sign_cifar10", form="training")
    tf.keras.backend.reset_uids()  # as for the network of an experiment
    model = zoo.ResNet20(quantizer="ste_sign", num_classes=7)
    *kept, classifier = (layer for layer in model.layers if layer.weights)
    start = classifier.get_weights()
    tf.keras.layers.PReLU()
    with pytest.warns(UserWarning, match=f"keep their new weights: {classifier.name}\\.$"):
        load_initial_weights(model, "resnet20.ste_sign_cifar10")
    *sources, _ = (layer for layer in trained.layers if layer.weights)
    for source, layer in zip(sources, kept, strict=True):
        for one, other in zip(source.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(start, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_run_from_a_model_of_the_zoo(tmp_path):
    name = "digits_net.ste_sign_digits"
    settings = {"network": "DigitsNet", "quantizer": "ste_sign", "learning_rate": 1e-5, "epochs": 1}
    metrics = train(tiny_experiment(tmp_path, **settings, initial_weights=name, teacher=name))
    weights = zoo.entry(name).weights["training"].sha256
    assert metrics["sources"] == {"initial_weights": weights, "teacher": weights}
    assert metrics["top1"] > 0.95
    with pytest.raises(UsageError, match=r"digits_net\.fda of the zoo has no trained weights"):
        train(tiny_experiment(tmp_path, teacher="digits_net.fda"), overwrite=True)


@pytest.mark.slow
def test_distillation_from_a_run(tmp_path):
    train(tiny_experiment(tmp_path / "teacher", quantizer=None, epochs=8))
    teacher = load(tmp_path / "teacher")
    assert not any("quant" in layer.name for layer in teacher.layers)
    settings = {"teacher": str(tmp_path / "teacher"), "distillation": 1.0, "epochs": 8}
    train(tiny_experiment(tmp_path / "student", **settings))
    # With none of the labels in its loss, it can have learned from the teacher only.
    images, _ = digits.load().test
    inputs = (images - 0.5) / 0.5
    wanted = teacher.predict(inputs, verbose=0).argmax(-1)
    found = load(tmp_path / "student").predict(inputs, verbose=0).argmax(-1)
    assert (found == wanted).mean() > 0.3


def test_a_teacher_leaves_penalties_on_weights_whole():
    image = tf.keras.Input((2,))
    dense = tf.keras.layers.Dense(2, "softmax", kernel_regularizer=lambda w: tf.reduce_sum(w))
    options = StepOptions(
        teacher=lambda images: images, teacher_loss=lambda one, other: 3.0, distillation=0.75
    )
    model = with_step(tf.keras.Model(image, dense(image)), options)
    dense.kernel.assign([[0.0, 5.0], [0.0, 0.0]])
    model.compile(tf.keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    model.train_on_batch(np.zeros((4, 2)), np.zeros(4))
    # No gradient but that of the penalty reaches the kernel, for the images are 0.
    np.testing.assert_allclose(dense.kernel, [[-1.0, 4.0], [-1.0, -1.0]])


def _convolution_types(function, *arguments) -> list[str]:
    operations = tf.function(function).get_concrete_function(*arguments).graph.get_operations()
    kinds = "Conv2D", "Conv2DBackpropFilter"
    return [op.get_attr("T").name for op in operations if op.type in kinds]


def test_bfloat16_convolutions_are_of_training_alone(monkeypatch):
    monkeypatch.setattr("larq_ext_recipes._start.lacks_for_bfloat16", lambda: None)
    experiment = tiny_experiment("unused", quantizer="ste_sign", bfloat16_convolutions=True)
    network = experiment.build_model(experiment.load_data())
    model = with_step(network, step_options(experiment, network))
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = tf.zeros((4, 8, 8, 1))
    types = _convolution_types(model.train_step, (images, tf.zeros(4)))
    # Stem: forward and kernel. Binary: forward, image and kernel.
    assert sorted(types) == 3 * ["bfloat16"] + 2 * ["float32"]
    assert set(_convolution_types(model, images)) == {"float32"}
    assert set(_convolution_types(network, images)) == {"float32"}


def test_bfloat16_convolutions_do_nothing_where_they_would_be_slow(monkeypatch):
    lacks = "larq_ext_recipes._environment."
    monkeypatch.setattr(f"{lacks}_first_value", lambda path, key: "avx512f avx512_bf16")
    monkeypatch.setattr(f"{lacks}_pywrap_util_port.IsMklEnabled", lambda: True)
    assert lacks_for_bfloat16() is None
    monkeypatch.setattr(f"{lacks}_pywrap_util_port.IsMklEnabled", lambda: False)
    assert "TF_ENABLE_ONEDNN_OPTS=1" in lacks_for_bfloat16()
    with monkeypatch.context() as with_accelerator:
        with_accelerator.setattr(f"{lacks}on_cpu", lambda: False)
        assert lacks_for_bfloat16() == "is for training on a CPU"
    monkeypatch.setattr(f"{lacks}_first_value", lambda path, key: "avx2")
    experiment = tiny_experiment("unused", bfloat16_convolutions=True)
    network = experiment.build_model(experiment.load_data())
    with pytest.warns(UserWarning, match="does nothing here: it needs a CPU with avx512_bf16"):
        assert step_options(experiment, network).convolutions is None
    experiment = experiment.replace(quantizer=None)
    with pytest.warns(UserWarning, match="it needs a binarized network"):
        assert step_options(experiment, network).convolutions is None
    with pytest.raises(UsageError, match="mixed_precision computes in bfloat16"):
        experiment.replace(mixed_precision=True)


def test_a_teacher_for_other_images(tmp_path):
    tiny_network(input_shape=(9, 9, 1), num_classes=4, quantizer=None).save(tmp_path / "t.keras")
    with pytest.raises(UsageError, match=r"takes \(None, 9, 9, 1\).* needs \(None, 8, 8, 1\)"):
        train(tiny_experiment(tmp_path / "run", teacher=str(tmp_path / "t.keras")))


def test_a_teacher_of_other_classes(tmp_path):
    """Those of the data in another order; other names may mean the same."""
    network = tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer=None)
    (tmp_path / "run").mkdir()
    network.save(tmp_path / "run" / "model.keras")
    classes = [str(digit) for digit in range(10)]
    swapped = ["1", "0", *classes[2:]]
    record = {"configuration": {"dataset": "folder"}, "classes": swapped}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(record))
    message = "Class 0 is '1' for .*run and '0' in digits"
    with pytest.raises(UsageError, match=message):
        train(tiny_experiment(tmp_path / "new", teacher=str(tmp_path / "run")))
    with pytest.raises(UsageError, match=message):
        evaluate(tmp_path / "run", dataset="digits")
    for same in (classes, ["zero", *classes[1:]]):
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(record | {"classes": same}))
        assert evaluate(tmp_path / "run", dataset="digits")["n"] == 360


def test_average_formula():
    x = tf.keras.Input((1,))
    model = tf.keras.Model(x, tf.keras.layers.Dense(1, use_bias=False)(x))
    weight = model.weights[0]
    weight.assign([[1.0]])
    average, expected = WeightAverage(model, 0.5), 1.0
    for step, value in enumerate((3.0, -1.0, 4.0, 2.0, 7.0, 5.0)):
        weight.assign([[value]])
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.in_place():
        np.testing.assert_allclose(weight, [[expected]], rtol=1e-6)
    np.testing.assert_array_equal(weight, [[5.0]])


class Changes(tf.keras.callbacks.Callback):
    """Changes weights at the end of an epoch, and puts others in at the end of training."""

    def on_epoch_begin(self, epoch, logs=None):
        self.stem = self.model.get_layer("stem").get_weights()

    def on_epoch_end(self, epoch, logs=None):
        self.seen = self.model.get_layer("logits").get_weights()
        if epoch == 0:
            stem = self.model.get_layer("stem")
            stem.set_weights([weight + 7 for weight in stem.get_weights()])

    def on_train_end(self, logs=None):
        self.model.get_layer("logits").set_weights([0 * weight for weight in self.seen])


def test_callbacks_see_and_change_the_average(tmp_path):
    callback = Changes()
    train(tiny_experiment(tmp_path, weight_average=0.9), callbacks=[callback])
    model = load(tmp_path)
    assert all(not weight.any() for weight in model.get_layer("logits").get_weights())
    assert callback.stem[0].mean() > 6, "what was changed at the end of the first epoch"
    assert model.get_layer("stem").get_weights()[0].mean() > 6


def test_callbacks_see_what_is_evaluated(tmp_path):
    seen = {}

    def see(epoch, logs):
        seen[epoch] = callback.model.get_layer("logits").get_weights()

    callback = tf.keras.callbacks.LambdaCallback(on_epoch_end=see)
    train(tiny_experiment(tmp_path, weight_average=0.9), callbacks=[callback])
    for one, other in zip(seen[1], load(tmp_path).get_layer("logits").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_averaged_weights_are_saved_and_survive_an_interruption(tmp_path):
    settings = {"weight_average": 0.9, "deterministic": False}
    train(tiny_experiment(tmp_path / "whole", **settings))
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path / "cut", **settings), callbacks=[SignalAt(20)])
    metrics = train(tiny_experiment(tmp_path / "cut", **settings), resume=True)
    for one, other in zip(
        load(tmp_path / "whole").get_weights(), load(tmp_path / "cut").get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    with (tmp_path / "cut" / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert metrics["top1"] == pytest.approx(float(last["test_accuracy"]), abs=1e-6)
