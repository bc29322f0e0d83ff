"""The commands: help, listing, one-line errors and exit codes."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny
from click.testing import CliRunner
from zookeeper import Field

import larq_ext_zoo as zoo
from larq_ext.cli import main
from larq_ext_recipes import UsageError, datasets, evaluate, register


@register
class TinyForCli(tiny.Tiny):
    """A test."""

    network = Field(lambda: tiny.tiny_network)
    quantizer = Field("fda")
    dataset = Field("digits")
    epochs = Field(1)
    batch_size = Field(100)
    crop_padding = Field(1)
    progress = Field("none")


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def test_help_teaches():
    for command in ("train", "evaluate"):
        assert f"larq-ext {command} " in run(command, "--help").output


def test_lists():
    output = run("train", "--list").output
    assert "ResNet20SiMaN" in output and "magnitude" in output
    settings = run("train", "ResNet20SiMaN", "--list").output
    assert "batch_size" in settings and "256" in settings
    settings = run("train", "ResNet20SiMaN", "batch_size=77", "--list").output
    assert "77" in settings and "256" not in settings


def test_lists_as_json():
    rows = json.loads(run("train", "--list", "--json").stdout)
    assert "magnitude" in rows["ResNet20SiMaN"]
    settings = json.loads(run("train", "ResNet20SiMaN", "batch_size=77", "--list", "--json").stdout)
    assert settings["batch_size"] == 77
    known = json.loads(run("compare", "--list", "--json").stdout)
    assert "ResNet20FDA" in known and "SBPN18" not in known, "poses are not compared"


def test_train_and_evaluate(tmp_path):
    out = f"output_dir={tmp_path / 'run'}"
    result = run("train", "TinyForCli", out, "seed=4", "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert metrics["seed"] == 4
    model = str(tmp_path / "run" / "model.keras")
    result = run("evaluate", model, "--dataset", "digits", "--json")
    assert json.loads(result.stdout)["top1"] == pytest.approx(metrics["top1"], abs=1e-6)
    assert "on 360 test images of digits" in run("evaluate", model, "--dataset", "digits").output
    again = run("train", "TinyForCli", out, "seed=4")
    assert again.exit_code == 2
    assert "--resume" in again.output and "--overwrite" in again.output


def test_a_model_that_prepares_its_images_itself_is_evaluated(tmp_path):
    network = tiny.tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="fda")
    data = datasets.load("digits", None)
    pixels = tf.keras.Input((8, 8, 1))
    own = tf.keras.layers.Rescaling(1 / 255 / data.std[0], -data.mean[0] / data.std[0])
    model = tf.keras.Model(pixels, network(own(pixels)))
    model.save(tmp_path / "own.keras")
    words = ("evaluate", str(tmp_path / "own.keras"), "--dataset", "digits", "--json")

    found = json.loads(run(*words, "--mean", "0", "--std", "1").stdout)

    expected = evaluate(network, dataset="digits")
    assert (found["n"], found["top1"]) == (expected["n"], expected["top1"])
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert (found["mean"], found["std"]) == ([0], [1])
    assert json.loads(run(*words).stdout)["loss"] != pytest.approx(expected["loss"], rel=1e-3)
    for setting, message in (
        ({"mean": (1, 2), "std": 1}, r"`mean` is one number, received \[1.0, 2.0\]"),
        ({"mean": 0, "std": 0}, "`std` is above 0, received 0"),
        ({"mean": 0, "std": float("nan")}, "`std` is finite, received nan"),
        ({"std": 255}, "Give mean and std together"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(model, dataset="cifar10", data_dir="nowhere", **setting)


def test_a_model_that_takes_integers_gets_pixels():
    network = tiny.tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="fda")
    data = datasets.load("digits", None)
    pixels = tf.keras.Input((8, 8, 1), dtype="uint8")
    own = tf.keras.layers.Rescaling(1 / 255 / data.std[0], -data.mean[0] / data.std[0])
    found = evaluate(tf.keras.Model(pixels, network(own(pixels))), dataset="digits")
    expected = evaluate(network, dataset="digits")
    assert (found["mean"], found["std"]) == (0, 1) and "mean" not in expected
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.05)  # pixels are rounded


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_installed_command_knows_the_layers_of_a_file(tmp_path, suffix):
    """In a process of its own, in which nothing else has imported them."""
    path = tmp_path / f"model{suffix}"
    zoo.DigitsNet(quantizer="siman").save(path)
    command = pathlib.Path(sys.executable).with_name("larq-ext")
    arguments = ["evaluate", path, "--dataset", "digits", "--limit", "10", "--json"]
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 10


def test_data_dir_is_an_option_too():
    result = run("train", "ResNet20FDA", "--data-dir", "/nowhere")
    assert result.exit_code == 2 and "No CIFAR-10 in /nowhere" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "Which experiment?"),
        (
            ["train", "ResNet20FAD"],
            "There is no experiment 'ResNet20FAD'. Did you mean ResNet20FDA",
        ),
        (["train", "TinyForCli", "epochs"], "Expected key=value"),
        (["train", "ResNet20FDA", "data_dir=/nowhere"], "No CIFAR-10 in /nowhere"),
        (["evaluate", "nowhere/model.keras"], "There is no file nowhere/model.keras"),
        (["evaluate", "resnet20.fad"], "Did you mean resnet20.fda"),
        (["evaluate", "resnet20.fda", "--mean", "a"], "--mean takes numbers with commas"),
        (["train", "Digits", "resume=true"], "There is no setting 'resume'"),
        (["train", "Digits", "--list", "--resume"], "leave --resume and --overwrite out"),
        (["train", "--list", "--data-dir", "here"], "Settings of which experiment?"),
        (["compare", "Digits", "seeds=5"], "seeds= is no setting of an experiment"),
        (["compare", "Digits", "--list", "--overwrite"], "leave --resume and --overwrite out"),
    ],
)
def test_wrong_use(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1, "one line"


def test_interrupt_exits_with_130(tmp_path, monkeypatch):
    import larq_ext_recipes

    train = larq_ext_recipes.train
    monkeypatch.setattr(
        larq_ext_recipes,
        "train",
        lambda *arguments, **settings: train(*arguments, **settings, callbacks=[tiny.SignalAt(2)]),
    )
    result = run("train", "TinyForCli", f"output_dir={tmp_path}")
    assert result.exit_code == 130
    assert "To continue, give the same command with --resume" in result.output


def test_evaluate_refuses_what_does_not_fit(tmp_path):
    model = tiny.tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer="ste_sign")
    with pytest.raises(UsageError, match="10 classes"):
        evaluate(model, dataset="digits")
    model = tiny.tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="ste_sign")
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(UsageError, match="gives NaN: its training failed"):
        evaluate(model, dataset="digits", limit=10)
    (tmp_path / "broken.keras").write_text("no model")
    with pytest.raises(UsageError, match="not a model that Keras can load"):
        evaluate(tmp_path / "broken.keras", dataset="digits")


@pytest.mark.slow
def test_evaluate_converted_model(tmp_path):
    deploy = pytest.importorskip("larq_ext.deploy")
    pytest.importorskip("larq_compute_engine")
    model = tiny.tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="fda")
    path = tmp_path / "tiny.tflite"
    path.write_bytes(deploy.convert(model).flatbuffer)
    one, two = (evaluate(form, dataset="digits") for form in (model, path))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
