"""Runs from start to end: what they write, how they stop, and that they resume exactly."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
import tiny
from tiny import SignalAt, tiny_experiment, tiny_network

import larq_ext as lqx
from larq_ext.quantizers._base import hyperparameter_holders, hyperparameters
from larq_ext_recipes import (
    TrainingError,
    TrainingInterrupted,
    UsageError,
    _run_folder,
    _trainer,
    evaluate,
    train,
)
from larq_ext_recipes._checkpoints import Checkpoints, Position
from larq_ext_recipes._evaluate import _probabilities, dataset_of
from larq_ext_recipes._logs import EpochRecord, draw_learning_curve
from larq_ext_recipes._progress import Display
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes.datasets import digits


def rows(folder: pathlib.Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def numbers(folder: pathlib.Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(folder)]


def start(folder: pathlib.Path, steps: int, *options: str) -> subprocess.Popen:
    command = [sys.executable, tiny.__file__, str(folder), str(steps), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    # 15 steps an epoch: step 20 is in the middle of the second.
    whole, stopped = start(tmp_path / "whole", 0), start(tmp_path / "stopped", 20)
    output, errors = stopped.communicate(timeout=400)
    assert stopped.returncode == 130, errors
    assert "Stopped by SIGTERM" in output and "--resume" in output
    assert "epoch-00001-step-000005" in output
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    resumed = start(tmp_path / "stopped", 0, "--resume")
    output, errors = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, errors
    assert "Resumed in epoch 2 after step 5" in output
    assert whole.wait(timeout=400) == 0

    assert numbers(tmp_path / "whole") == numbers(tmp_path / "stopped")
    one, two = (
        tf.keras.models.load_model(tmp_path / run / "model.keras") for run in ("whole", "stopped")
    )
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"quantizer": "mlp_classifier", "optimizer": "adam", "quantizer_learning_rate": 1e-2},
        {"quantizer": "ste_sign", "binary_optimizer": "bop", "bop_gamma": 0.1},
    ],
    ids=["the quantizers' own", "bop"],
)
def test_several_optimizers_go_on_where_they_were(tmp_path, settings):
    settings |= {"learning_rate": 0.01, "epochs": 2}
    train(tiny_experiment(tmp_path / "whole", **settings))
    stopped = tiny_experiment(tmp_path / "stopped", **settings)
    with pytest.raises(TrainingInterrupted):
        train(stopped, callbacks=[SignalAt(20)])  # of 15 an epoch
    train(stopped, resume=True)
    one, two = (
        tf.keras.models.load_model(tmp_path / run / "model.keras") for run in ("whole", "stopped")
    )
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=a.name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and the metrics that were returned."""
    folder = tmp_path_factory.mktemp("run")
    metrics = train(tiny_experiment(folder), checkpoint_minutes=0, command=["a", "b"])
    return folder, metrics


def test_files_of_a_run(finished):
    folder, metrics = finished
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    log = rows(folder)
    assert [row["epoch"] for row in log] == ["1", "2"]
    assert metrics["top1"] == pytest.approx(float(log[-1]["test_accuracy"]), abs=1e-6)
    assert metrics["loss"] == pytest.approx(float(log[-1]["test_loss"]), rel=1e-5)
    assert metrics["top1"] > 0.2  # ten classes: it has learned something
    assert metrics["configuration"]["quantizer"] == "fda"
    assert metrics["configuration"]["network"] == "tiny.tiny_network"
    assert (metrics["epochs"], metrics["seed"], metrics["command"]) == (2, 0, ["a", "b"])
    assert metrics["evaluated_on"] == "360 test images"
    assert metrics["hardware"]["cores"] >= 1 and metrics["hardware"]["cpu"]
    assert metrics["versions"]["tensorflow"] == tf.__version__
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert not [path for path in folder.rglob(".*")], "temporary files are left"


def test_tensorboard_has_curves_and_schedules(finished):
    tags = {}
    for path in (finished[0] / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    assert tags["train/loss"] == tags["test/accuracy"] == tags["learning_rate"] == [1, 2]
    assert tags["callbacks/n"] == tags["callbacks/alpha"] == [1, 2]


def test_model_has_latent_weights_and_no_optimizer(finished):
    model = tf.keras.models.load_model(finished[0] / "model.keras")
    kernel = model.get_layer("binary").get_weights()[0]
    assert len(np.unique(kernel)) > kernel.size / 2
    assert getattr(model, "optimizer", None) is None


def test_schedules_are_saved_where_they_ended(finished, tmp_path):
    layer = tf.keras.models.load_model(finished[0] / "model.keras").get_layer("binary")
    for quantizer in (layer.input_quantizer, layer.kernel_quantizer):
        assert (quantizer.n, quantizer.alpha) == (14, 0.0)  # of epoch 2 of 2
    train(tiny_experiment(tmp_path, quantizer="siman"))
    layer = tf.keras.models.load_model(tmp_path / "model.keras").get_layer("binary")
    assert layer.kernel_constraint.percent == 7.5


def test_the_curve_shows_a_single_evaluation(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    rows = [EpochRecord(n, 0.1, 2.0 / n, 0.1 * n, None, None, 1.0, 1.0) for n in range(1, 6)]
    rows[-1] = dataclasses.replace(rows[-1], test_loss=1.0, test_accuracy=0.4)
    assert draw_learning_curve(tmp_path / "a.png", rows, "test", ("loss", "error"))
    right = image.imread(tmp_path / "a.png")[:, 700:, :3]  # the errors, without the legend
    orange = np.abs(right - np.array([255, 127, 14]) / 255).max(-1) < 0.02
    assert orange.sum() > 20


def test_sessions_on_other_machines_are_recorded(tmp_path, monkeypatch):
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path), callbacks=[SignalAt(3)])
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path), resume=True, callbacks=[SignalAt(3)])
    monkeypatch.setattr(_run_folder, "hardware", lambda: {"cpu": "another", "cores": 64})
    metrics = train(tiny_experiment(tmp_path), resume=True)
    first, second = metrics["sessions"]
    assert first["hardware"]["cpu"] != "another"
    assert second["hardware"] == metrics["hardware"] == {"cpu": "another", "cores": 64}
    assert second["versions"] == metrics["versions"] == first["versions"]


def test_model_of_a_run_in_a_quantized_scope_is_latent_too(tmp_path):
    with lq.context.quantized_scope(True):
        train(tiny_experiment(tmp_path, epochs=1))
    kernel = tf.keras.models.load_model(tmp_path / "model.keras").get_layer("binary").kernel
    assert len(np.unique(kernel.numpy())) > 100


def test_evaluate_gives_the_numbers_of_the_run(finished):
    folder, metrics = finished
    result = evaluate(folder / "model.keras", dataset="digits")
    assert result["n"] == 360
    assert result["top1"] == pytest.approx(metrics["top1"], abs=1e-6)
    assert result["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert evaluate(folder / "model.keras", dataset="digits", limit=150)["n"] == 150


def test_evaluate_knows_what_a_run_was_trained_on(finished, tmp_path):
    output, metrics = finished
    assert dataset_of(output) == dataset_of(output / "model.keras") == "digits"
    assert evaluate(output)["top1"] == pytest.approx(metrics["top1"], abs=1e-6)
    shutil.copy(output / "model.keras", tmp_path / "alone.keras")
    assert dataset_of(tmp_path / "alone.keras") == "cifar10"
    assert dataset_of("digits_net.fda_digits") == "digits"
    model = tiny_network(input_shape=(16, 16, 1), num_classes=10, quantizer="ste_sign")
    with pytest.raises(UsageError, match=r"takes inputs of shape \(16, 16, 1\), but the images of"):
        evaluate(model, dataset="digits")


def test_a_limit_is_spread_over_the_test_images():
    """Folders are sorted by class: the first images would all be of one."""
    dataset = digits.load()
    labels = dataset.test[1]
    chosen = np.arange(50) * len(labels) // 50
    batches = list(dataset.evaluation(100, limit=50))
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), labels[chosen])
    whole = np.concatenate([batch[0] for batch in dataset.evaluation(100)])
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), whole[chosen])
    assert sum(len(batch[1]) for batch in dataset.evaluation(100, limit=1000)) == len(labels)


def test_probabilities_of_logits_and_of_rounded_probabilities():
    logits = np.random.default_rng(0).normal(size=(5, 10)) * 3
    exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(_probabilities(logits), exact)
    np.testing.assert_allclose(_probabilities(exact), exact)
    rounded = np.minimum(np.round(exact * 256), 255) / 256  # as 8 bits have them
    np.testing.assert_allclose(_probabilities(rounded), exact, atol=0.01)
    sure = np.eye(10)[:1] * 255 / 256
    assert -np.log(_probabilities(sure)[0, 0]) < 0.01
    scores = np.abs(logits) + 1  # of a network without a softmax that ends in a ReLU
    wanted = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(_probabilities(scores), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["copy.h5", "saved_model"])
def test_evaluate_other_forms(finished, tmp_path, form):
    folder, metrics = finished
    tf.keras.models.load_model(folder / "model.keras").save(tmp_path / form)
    result = evaluate(tmp_path / form, dataset="digits")
    assert result["loss"] == pytest.approx(metrics["loss"], rel=1e-4)


def test_existing_run_is_not_overwritten(finished):
    folder, metrics = finished
    before = (folder / "metrics.json").stat().st_mtime_ns
    with pytest.raises(UsageError, match=r"already has a run: add --resume .* --overwrite"):
        train(tiny_experiment(folder))
    with pytest.raises(UsageError, match="exclude each other"):
        train(tiny_experiment(folder), resume=True, overwrite=True)
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert train(tiny_experiment(folder), resume=True) == metrics  # finished: nothing to do


def test_workers_that_differ_are_named(tmp_path):
    folder = RunFolder(tiny_experiment(tmp_path))
    folder.start(tiny_experiment(tmp_path), "data", False, False)
    own = json.loads(json.dumps(folder._content))
    other = json.loads(json.dumps(own))
    folder.check_agreement(SimpleNamespace(worker=1, from_chief=lambda value: own))
    other["configuration"]["seed"] = 7
    other["sources"]["teacher"] = "ab12"
    other["data"] = "others"
    with pytest.raises(UsageError) as error:
        folder.check_agreement(SimpleNamespace(worker=1, from_chief=lambda value: other))
    for part in (
        "Worker 1 cannot train with worker 0",
        "seed is 0 here, 7 there",
        "the images or labels are not the same",
        "the teacher is another model",
    ):
        assert part in str(error.value)


def test_what_is_left_of_another_run_is_not_taken_for_this_one(finished, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished[0] / "metrics.json", folder)
    with pytest.raises(UsageError, match=r"has checkpoints or numbers of a run without its run\.j"):
        train(tiny_experiment(folder))
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(folder), overwrite=True, callbacks=[SignalAt(3)])
    assert not (folder / "metrics.json").exists()


def test_the_final_loss_is_plain_cross_entropy(tmp_path):
    settings = {"quantizer": "learnable_scale", "label_smoothing": 0.3, "epochs": 1}
    metrics = train(tiny_experiment(tmp_path, **settings))
    assert metrics["loss"] == pytest.approx(evaluate(tmp_path)["loss"], rel=1e-4)
    objective = float(rows(tmp_path)[-1]["test_loss"])
    assert abs(objective - metrics["loss"]) > 0.01


def test_the_logged_rate_is_that_of_ones_own_optimizer(tmp_path):
    def own(rate, model):
        return tf.keras.optimizers.Adam(3e-4)

    train(tiny_experiment(tmp_path, optimizer=own, epochs=1))
    assert float(rows(tmp_path)[0]["learning_rate"]) == pytest.approx(3e-4)


def test_resume_with_other_settings_is_refused(finished):
    with pytest.raises(UsageError) as error:
        train(tiny_experiment(finished[0]), resume=True, seed=5, batch_size=50)
    assert "batch_size was 100, now 50; seed was 0, now 5" in str(error.value)
    # These do not change the training.
    train(tiny_experiment(finished[0]), resume=True, checkpoint_minutes=3, data_dir="elsewhere")


def test_a_run_of_a_version_without_a_setting_can_be_resumed(finished):
    run = finished[0] / "run.json"
    before = run.read_text()
    content = json.loads(before)
    try:
        del content["configuration"]["limit"]
        run.write_text(json.dumps(content))
        train(tiny_experiment(finished[0]), resume=True)
        with pytest.raises(UsageError, match="limit was 0, now 100"):
            train(tiny_experiment(finished[0]), resume=True, limit=100)
    finally:
        run.write_text(before)


def test_resume_with_other_data_is_refused(finished):
    run = finished[0] / "run.json"
    before = run.read_text()
    content = json.loads(before)
    try:
        run.write_text(json.dumps({**content, "data": "0"}))
        with pytest.raises(UsageError, match="the images or labels are not the same"):
            train(tiny_experiment(finished[0]), resume=True)
    finally:
        run.write_text(before)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UsageError, match="no run to resume: leave --resume out"):
        train(tiny_experiment(tmp_path), resume=True)


def test_overwrite_keeps_foreign_files(tmp_path):
    for name in ("run.json", "log.csv", "notes.txt", "checkpoints/epoch-00007-step-000000/state"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    train(tiny_experiment(tmp_path, epochs=1, seed=1, holdout=300), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "old"
    checkpoints = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert checkpoints == ["epoch-00001-step-000000"]
    assert len(rows(tmp_path)) == 1
    assert "holdout_accuracy" in rows(tmp_path)[0]


def test_overwriting_deletes_nothing_for_a_run_that_cannot_start(finished, tmp_path):
    output, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(output, copy)
    before = sorted(path.name for path in copy.rglob("*"))
    with pytest.raises(UsageError, match="cannot be built with quantizer=fdb"):
        train(tiny_experiment(copy, quantizer="fdb"), overwrite=True)
    with pytest.raises(UsageError, match="There is no model"):
        train(tiny_experiment(copy, teacher="nowhere"), overwrite=True)
    assert sorted(path.name for path in copy.rglob("*")) == before


@pytest.mark.parametrize("field", ["teacher", "initial_weights"])
def test_overwriting_does_not_delete_what_the_run_is_made_with(
    finished, tmp_path, monkeypatch, field
):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    for source in (copy, copy / "model.keras"):
        with pytest.raises(UsageError, match=rf"would delete the {field} .*give another"):
            train(tiny_experiment(copy, **{field: str(source)}), overwrite=True)
    assert (copy / "model.keras").is_file()
    monkeypatch.chdir(copy)
    RunFolder(tiny_experiment(".")).check_sources(tiny_experiment("."))  # it is made with nothing


def test_a_network_without_the_quantizer_starts_no_run(finished, tmp_path):
    def without(*, quantizer, **arguments):
        return tiny_network(quantizer="ste_sign", **arguments)

    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    with pytest.raises(UsageError, match="No quantizer of tiny is of quantizer=fda"):
        train(tiny_experiment(copy, network=without), overwrite=True)
    assert (copy / "model.keras").is_file()


def test_one_folder_is_for_one_process_at_a_time(tmp_path):
    experiment = tiny_experiment(tmp_path, epochs=1)
    folder = RunFolder(experiment)
    with folder.lock(), pytest.raises(UsageError, match="Another process trains in"):
        train(experiment)
    with RunFolder(experiment, writes=False).lock(), folder.lock():
        pass  # other workers of the same run
    assert train(experiment, overwrite=True)["epochs"] == 1


@pytest.mark.parametrize("quantizer", ["fda", "siman"])
def test_what_is_stopped_in_an_evaluation_has_lost_no_step(tmp_path, monkeypatch, quantizer):
    settings = {"quantizer": quantizer, "epochs": 2}
    whole = train(tiny_experiment(tmp_path / "whole", **settings))
    run = tmp_path / "stopped"

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_trainer._Trainer, "_evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_experiment(run, **settings))
    (last,) = (run / "checkpoints").iterdir()
    assert last.name == "epoch-00000-step-000015"
    with monkeypatch.context() as patch:  # and then in the scores at the end
        patch.setattr(type(tiny_experiment(run)), "score", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_experiment(run, **settings), resume=True)
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["epoch-00001-step-000000", "epoch-00002-step-000000"]
    again = train(tiny_experiment(run, **settings), resume=True)
    assert again["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    one, two = (
        hyperparameter_holders(tf.keras.models.load_model(folder / "model.keras"))
        for folder in (tmp_path / "whole", run)
    )
    assert [hyperparameters(holder) for holder in one] == [hyperparameters(h) for h in two]


def test_evaluations_take_no_more_memory_than_steps():
    data = digits.load()
    assert tiny_experiment("unused", batch_size=32).evaluation_batch(data) == 32
    assert tiny_experiment("unused", batch_size=5000).evaluation_batch(data) == 500


def test_milestones_that_are_not_reached_are_told(tmp_path, capsys):
    settings = {"schedule": "step", "epochs": 2, "milestones": (1, 2, 90), "progress": "lines"}
    train(tiny_experiment(tmp_path, **settings))
    told = "milestones [2, 90] are not reached in 2 epochs: no rate falls there."
    assert told in capsys.readouterr().out
    assert tiny_experiment(tmp_path, milestones=(90,), epochs=2).unreached() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"milestones": (-5,), "schedule": "step"}, "milestones are epochs from 1 on"),
        ({"quantizer_milestones": (0,)}, "quantizer_milestones are epochs from 1 on"),
        ({"step_factor": -0.1}, "step_factor must be above 0"),
        ({"step_factor": math.nan}, "step_factor must be above 0"),
    ],
)
def test_steps_of_rates_that_are_none(settings, message):
    with pytest.raises(UsageError, match=message):
        tiny_experiment("unused", **settings)


def test_the_speed_on_the_bar_is_right_over_the_end_of_an_epoch(monkeypatch):
    display = Display("bar", epochs=2, steps=23, done=0)
    shown = []
    monkeypatch.setattr(display._bar, "update", lambda *args, numbers, **kw: shown.append(numbers))
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 10)
    for epoch in range(2):
        for step in range(1, 24):
            display.step(epoch, step, 64 * step, {"loss": 1.0, "accuracy": 0.5})
    speeds = {text.split("  ")[2] for text in shown}
    assert len(speeds) == 2 and "... images/s" in speeds  # and one number, whatever the epoch


def test_checkpoints_without_a_run_are_not_gone_on_from(tmp_path):
    """What an interrupted --overwrite, or a hand, has left: the old weights for new settings."""
    (tmp_path / "checkpoints" / "epoch-00400-step-000000").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"has checkpoints or numbers of a run without"):
        train(tiny_experiment(tmp_path))
    train(tiny_experiment(tmp_path, epochs=1), overwrite=True)
    (last,) = (tmp_path / "checkpoints").iterdir()
    assert last.name == "epoch-00001-step-000000"


def test_a_teacher_that_was_trained_again_is_another_one(tmp_path):
    teacher = tmp_path / "teacher.keras"
    teacher.write_bytes(b"one")
    experiment = tiny_experiment(tmp_path / "run", teacher=str(teacher))
    folder = RunFolder(experiment)
    folder.start(experiment, "data", resume=False, overwrite=False)
    folder.record()
    assert folder.sources == {"teacher": hashlib.sha256(b"one").hexdigest()}
    RunFolder(experiment).start(experiment, "data", resume=True, overwrite=False)
    teacher.write_bytes(b"two")
    with pytest.raises(UsageError, match="the teacher is another model"):
        RunFolder(experiment).start(experiment, "data", resume=True, overwrite=False)


def test_a_teacher_that_was_moved(tmp_path):
    train(tiny_experiment(tmp_path / "teacher", epochs=1))
    experiment = tiny_experiment(tmp_path / "run", teacher=str(tmp_path / "teacher"))
    with pytest.raises(TrainingInterrupted):
        train(experiment, callbacks=[SignalAt(2)])
    (tmp_path / "teacher").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"There is no model .*teacher"):
        train(experiment, resume=True)
    moved = tiny_experiment(tmp_path / "run", teacher=str(tmp_path / "moved"))
    train(moved, resume=True)
    (tmp_path / "moved").rename(tmp_path / "gone")
    assert train(moved, resume=True)["epochs"] == 2, "it is finished"


class Ends(tf.keras.callbacks.Callback):
    """Ends a run after its first epoch, as early stopping does, with other weights."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.get_layer("logits").bias.assign(tf.range(10.0))


def test_what_a_callback_has_ended_is_not_gone_on_with(tmp_path, monkeypatch):
    def strike(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_trainer._Trainer, "finish", strike)  # in the scores
        train(tiny_experiment(tmp_path), callbacks=[Ends()])
    assert train(tiny_experiment(tmp_path), resume=True)["epochs"] == 1
    assert len(rows(tmp_path)) == 1
    model = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.get_layer("logits").bias, np.arange(10))


def test_a_schedule_by_steps_goes_on_at_the_end_of_an_epoch(tmp_path):
    schedule = lqx.callbacks.QuantizerScheduler("alpha", lambda step: 0.01, by="step")
    with pytest.raises(TrainingInterrupted, match="epoch-00000-step-000015"):
        train(tiny_experiment(tmp_path), callbacks=[schedule, SignalAt(15)])
    assert train(tiny_experiment(tmp_path), resume=True, callbacks=[schedule])["epochs"] == 2


def test_a_run_goes_on_without_the_model_it_started_from(tmp_path, finished):
    start = tmp_path / "start.keras"
    start.write_bytes((finished[0] / "model.keras").read_bytes())
    settings = {"initial_weights": str(start), "epochs": 2}
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path / "run", **settings), callbacks=[SignalAt(3)])
    start.unlink()
    metrics = train(tiny_experiment(tmp_path / "run", **settings), resume=True)
    assert metrics["epochs"] == 2
    assert "initial_weights" in metrics["sources"], "what it was is still known"


def test_a_damaged_checkpoint_is_written_again(tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile("sgd")
    checkpoints = Checkpoints(tmp_path, model)
    path = checkpoints.save(Position(1, 2))
    for file in path.glob("state*"):
        file.write_bytes(b"damaged")
    (tmp_path / ".epoch-00001-step-000001.99").mkdir()
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(TrainingError):
        checkpoints.restore()
    model.set_weights([np.full((1, 1), 7.0), np.zeros(1)])
    assert checkpoints.save(Position(1, 2)) == path
    model.set_weights([np.zeros((1, 1)), np.zeros(1)])
    assert checkpoints.restore() == Position(1, 2)
    assert model.get_weights()[0] == 7
    assert [path.name for path in tmp_path.iterdir()] == [path.name], "and nothing half-finished"


@pytest.mark.parametrize("steps", [3, 15])  # in the epoch, and after its last step
def test_interrupt_saves_a_checkpoint(tmp_path, steps):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match="Stopped by SIGINT"):
        train(tiny_experiment(tmp_path), callbacks=[SignalAt(steps, signal.SIGINT)])
    assert signal.getsignal(signal.SIGINT) is handler
    saved = tmp_path / "checkpoints" / f"epoch-00000-step-{steps:06d}"
    assert json.loads((saved / "position.json").read_text())["step"] == steps
    train(tiny_experiment(tmp_path), resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


@pytest.mark.slow
def test_resume_ignores_what_a_kill_left_behind(tmp_path):
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path), callbacks=[SignalAt(18)])
    with (tmp_path / "log.csv").open("a") as file:  # killed between the row and its checkpoint
        file.write("2,0.1,9,0.9,9,0.9,1,1\n")
    (tmp_path / "checkpoints" / ".epoch-00009-step-000000.1").mkdir()  # killed while saving
    train(tiny_experiment(tmp_path), resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]
    assert float(rows(tmp_path)[1]["loss"]) < 9


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(tmp_path):
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path), callbacks=[SignalAt(18)])
    _, last = sorted((tmp_path / "checkpoints").glob("epoch-*"))
    for file in last.glob("state*"):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.warns(UserWarning, match=last.name):
        train(tiny_experiment(tmp_path), resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


def test_no_checkpoint_that_can_be_read(tmp_path):
    with pytest.raises(TrainingInterrupted):
        train(tiny_experiment(tmp_path), callbacks=[SignalAt(3)])
    for file in (tmp_path / "checkpoints").glob("epoch-*/state*"):
        file.write_bytes(b"")
    with pytest.raises(TrainingError, match="--overwrite"), pytest.warns(UserWarning):
        train(tiny_experiment(tmp_path), resume=True)


def test_a_start_that_fails_leaves_no_run_behind(tmp_path):
    with pytest.raises(UsageError, match="nope"):
        train(tiny_experiment(tmp_path), network="DigitsNet", quantizer="nope")
    train(tiny_experiment(tmp_path))


class Poison(tf.keras.callbacks.Callback):
    """Makes a weight infinite after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            bias = self.model.get_layer("logits").bias
            bias.assign(tf.fill(bias.shape, math.inf))


def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"loss became nan in epoch 2, step 3.*step-000000"):
        train(tiny_experiment(tmp_path), callbacks=[Poison(17)])
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["epoch-00001-step-000000"]
    assert not (tmp_path / "metrics.json").exists()


def test_bad_weights_are_not_saved(tmp_path):
    with pytest.raises(TrainingError, match=r"weight logits/bias.* no longer finite"):
        train(tiny_experiment(tmp_path), callbacks=[Poison(30)])
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["epoch-00001-step-000000"]


def custom_step_network(**arguments):
    """A network whose own training step counts its calls in a metric."""

    class Counting(tf.keras.Model):
        def train_step(self, data):
            return {**super().train_step(data), "own": tf.constant(7.0)}

    plain = tiny_network(**arguments)
    return Counting(plain.inputs, plain.outputs)


def test_train_step_can_be_overridden(tmp_path):
    seen = []
    watch = tf.keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: seen.append(logs))
    with pytest.raises(TrainingInterrupted):
        train(
            tiny_experiment(tmp_path, network=custom_step_network),
            callbacks=[watch, SignalAt(2)],
        )
    assert [logs["own"] for logs in seen] == [7.0, 7.0]


@pytest.mark.slow
def test_options_that_change_the_computation(tmp_path):
    metrics = train(
        tiny_experiment(
            tmp_path,
            optimizer="adam",
            quantizer="ste_sign",
            label_smoothing=0.1,
            gradient_clip_norm=1.0,
            mixed_precision=True,
            evaluate_every=3,
            epochs=4,
        )
    )
    assert [bool(row["test_loss"]) for row in rows(tmp_path)] == [False, False, True, True]
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    model = tf.keras.models.load_model(tmp_path / "model.keras")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert metrics["loss"] > 0.3  # with smoothing even a perfect answer costs 0.5 nats


def test_label_smoothing_formula():
    experiment = tiny_experiment("unused", label_smoothing=0.1)
    probabilities = tf.constant([[0.7, 0.2, 0.1]])
    target = np.array([0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])
    expected = -(target * np.log([0.7, 0.2, 0.1])).sum()
    np.testing.assert_allclose(experiment.loss(tf.constant([2]), probabilities), [expected], 1e-5)
