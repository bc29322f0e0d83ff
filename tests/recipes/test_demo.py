"""The demo: real images, from training to one-bit kernels, for each method."""

import json

import pytest
from click.testing import CliRunner

import larq_ext as lqx
from larq_ext import cli
from larq_ext.commands._options import METHODS


def test_every_method_is_offered():
    assert set(METHODS) == set(lqx.quantizers.METHODS)


# Networks of all methods are trained, converted and verified in the zoo's exam too.
EVERY = [
    method if method == "mlp_classifier" else pytest.param(method, marks=pytest.mark.exhaustive)
    for method in METHODS
    if method != "ste_sign"
]


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", EVERY)
def test_demo(quantizer, tmp_path):
    folder = tmp_path / "demo"
    arguments = ["--quantizer", quantizer, "--output-dir", str(folder), "--epochs", "8", "--json"]
    result = CliRunner().invoke(cli.main, ["demo", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((folder / "report.json").read_text())
    assert report["test_accuracy_deployed"] >= 0.9
    assert report["audit"]["ok"] and report["audit"]["binary"] == 3
    assert report["verify"]["ok"]
    assert report["bytes"] < report["bytes_of_weights_in_float32"] / 5
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "model.tflite").stat().st_size == report["bytes"]
    assert (folder / "training" / "model.keras").exists()


@pytest.mark.slow
def test_pretrained(tmp_path):
    """No training, and nothing but what the package has."""
    arguments = ["--pretrained", "--quantizer", "siman", "--output-dir", str(tmp_path / "demo")]
    result = CliRunner().invoke(cli.main, ["demo", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Test accuracy 99.44% deployed, 99.44% in Keras (360 images)" in result.output
    written = {"demo.png", "model.tflite", "report.json"}
    assert {path.name for path in (tmp_path / "demo").iterdir()} == written
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["test_accuracy_keras"] == pytest.approx(358 / 360)
    assert report["training"]["model"] == "digits_net.siman_digits"
    training = tmp_path / "demo" / "training"
    training.mkdir()
    (training / "notes.txt").write_text("mine")
    (training / "run.json").write_text(json.dumps({"configuration": {"name": "Digits"}}))
    CliRunner().invoke(cli.main, ["demo", *arguments, "--json"], catch_exceptions=False)
    assert [file.name for file in training.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("options", [["--pretrained"], ["--epochs", "1"]])
def test_only_a_demos_own_training_is_replaced(options, tmp_path):
    training = tmp_path / "demo" / "training"
    training.mkdir(parents=True)
    (training / "notes.txt").write_text("mine")
    (training / "run.json").write_text(json.dumps({"configuration": {"name": "ResNet20FDA"}}))
    result = CliRunner().invoke(
        cli.main, ["demo", *options, "--output-dir", str(tmp_path / "demo")]
    )
    assert result.exit_code == 2 and "has a run of ResNet20FDA" in result.stderr
    assert {file.name for file in training.iterdir()} == {"notes.txt", "run.json"}
    (training / "run.json").rename(training / "metrics.json")
    for content in (None, "", "[1]"):
        if content is not None:
            (training / "run.json").write_text(content)
        result = CliRunner().invoke(
            cli.main, ["demo", *options, "--output-dir", str(tmp_path / "demo")]
        )
        assert result.exit_code == 2 and f"{training} has a run, which the demo" in result.stderr


def test_a_trained_network_is_not_trained_again():
    result = CliRunner().invoke(cli.main, ["demo", "--pretrained", "--epochs", "5"])
    assert result.exit_code == 2 and "leave --epochs out" in result.output
