"""Comparisons: statistics, tables and pictures, and runs that stop, fail and go on."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny
from click.testing import CliRunner
from tiny import tiny_experiment
from zookeeper import Field

import larq_ext as lqx
from larq_ext.cli import main
from larq_ext_recipes import (
    Experiment,
    TrainingError,
    TrainingInterrupted,
    UsageError,
    compare,
    get_experiment,
    register,
)
from larq_ext_recipes import _compare_process as process
from larq_ext_recipes._compare import Comparison
from larq_ext_recipes._compare_plot import draw
from larq_ext_recipes._compare_progress import Display
from larq_ext_recipes._compare_report import Statistics, best_first, make_row, table, write_csv
from larq_ext_recipes._signals import StopRequest


@register
class TinyCompared(Experiment):
    """A test."""

    network = Field(lambda: tiny.tiny_network)
    quantizer = Field("fda")
    dataset = Field("digits")
    epochs = Field(2)
    batch_size = Field(100)
    learning_rate = Field(0.05)
    crop_padding = Field(1)
    flip = Field(False)


def invoke(*arguments: str):
    return CliRunner().invoke(main, ["compare", *(str(argument) for argument in arguments)])


# Statistics, table, CSV, picture, remaining time: nothing is trained.

NUMBERS = np.array([[0.91, 0.93, 0.98], [0.95, 0.95, 0.96]])


def made_row(name="fda", values=NUMBERS[0], failed=()):
    runs = {
        seed: {"top1": value, "loss": 1 - value, "seconds": 10.0 + seed}
        for seed, value in enumerate(values)
    }
    return make_row(name, "one-step", "30", runs, list(failed))


def test_statistics_are_those_of_numpy():
    for values in NUMBERS:
        found = dataclasses.astuple(Statistics.of(list(values)))
        expected = values.mean(), values.std(ddof=1), values.min(), values.max()
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert Statistics.of([0.5]) == Statistics(0.5, None, 0.5, 0.5)


def test_table():
    rows = best_first(
        [
            made_row("failing", [], [0, 1]),
            made_row(),
            made_row("siman", NUMBERS[1]),
            made_row("ste_sign", [0.5], [1]),
        ]
    )
    words = [" ".join(line.split()) for line in table(rows).splitlines()]
    assert words[2:] == [
        "siman one-step 95.33 ± 0.58 95.00 96.00 0.0467 ± 0.0058 30 11.0 0,1,2",
        "fda one-step 94.00 ± 3.61 91.00 98.00 0.0600 ± 0.0361 30 11.0 0,1,2",
        "ste_sign one-step 50.00 50.00 50.00 0.5000 30 10.0 0 (1 failed)",
        "failing one-step - - - - 30 - (2 failed)",
    ]


def test_csv_has_statistics_and_single_seeds(tmp_path):
    write_csv(tmp_path / "a.csv", [made_row(), made_row("b", [], [0])], [0, 1, 2])
    with (tmp_path / "a.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["top1_std"]) == pytest.approx(NUMBERS[0].std(ddof=1))
    assert [float(first[f"top1_seed_{seed}"]) for seed in range(3)] == list(NUMBERS[0])
    assert (second["finished"], second["failed"], second["top1_mean"]) == ("0", "1", "")


@pytest.mark.parametrize(
    ("runs", "scale"),
    [([[0.5, 0.9], [0.4, 0.8]], "log"), ([[0.5, 1.0]], "linear"), ([[0.9]], "log")],
)
def test_picture(tmp_path, monkeypatch, runs, scale):
    """Its numbers are read from the figure; an error of zero cannot be on a logarithmic axis."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw))
    )
    report = {
        "experiment": "E",
        "network": "N",
        "dataset": "digits",
        "own_recipes": False,
        "evaluated_on": "360 holdout images of digits",
        "trained_on": "1077 images",
        "seeds": list(range(len(runs))),
    }
    curves = [dict(enumerate(run, 1)) for run in runs]
    rows = [made_row("fda", [run[-1] for run in runs]), made_row("siman", [], [0])]
    path = tmp_path / "a.png"
    assert draw(path, report, rows, {"fda": curves, "siman": []})
    assert path.read_bytes().startswith(b"\x89PNG")
    title = figures[0].get_suptitle()
    assert "trained on 1077 images, evaluated on 360 holdout images" in title
    assert ("one seed (0), no spread" if len(runs) == 1 else "over 2 seeds (0, 1)") in title
    accuracy, error = figures[0].axes
    dots = [line for line in accuracy.lines if line.get_linestyle() == "None"]
    seeds = next(line.get_xdata() for line in dots if len(line.get_xdata()) == len(runs))
    np.testing.assert_allclose(seeds, [100 * run[-1] for run in runs])
    means = 100 * (1 - np.mean(runs, axis=0))
    np.testing.assert_allclose(error.lines[0].get_ydata(), means)
    assert error.get_yscale() == scale


def test_remaining_time(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = Display("lines", 4)
    display.skip(1)
    display.begin("fda, seed 0")
    now[0] = 5.0
    display.progress(0.5, "")  # resumed: half of it was done before
    now[0] = 15.0
    display.end("fine")  # half a run in 15 s, two runs are left
    assert "run 2/4  fda, seed 0  fine  15 s, 0:01:00 left" in capsys.readouterr().out


# Plans.


def test_a_network_without_a_name():
    plan = Comparison(
        "TinyCompared", network=functools.partial(tiny.tiny_network), methods=["fda"], seeds=1
    )
    assert plan.to_dict()["network"] == "tiny_network"


def test_a_log_that_is_gone_is_no_end_of_the_table(tmp_path):
    rows = [made_row()]
    report = {"own_recipes": False, "experiment": "E", "network": "N", "dataset": "D", "seeds": [0]}
    report |= {"trained_on": "1 image", "evaluated_on": "1 image"}
    assert draw(tmp_path / "a.png", report, rows, {"fda": [{}]})


def test_all_methods_and_floating_point():
    plan = Comparison("Digits", floating_point=True, seeds=2)
    assert list(plan.contenders) == [*lqx.quantizers.METHODS, "float"]
    assert [run.seed for run in plan.runs] == [0] * 6 + [1] * 6
    for name, contender in plan.contenders.items():
        same = contender.to_dict() | {"quantizer": None}
        assert same == plan.base.to_dict() | {"quantizer": None}
        assert contender.quantizer == (None if name == "float" else name)
    run = plan.runs[7]
    assert run.folder.path == pathlib.Path("runs/compare-Digits/learnable_scale/seed-1")
    assert (run.experiment.seed, run.experiment.quantizer) == (1, "learnable_scale")


def test_each_method_gets_the_numbers_of_its_schedules(tmp_path, monkeypatch):
    schedule = {"quantizer_schedule": "alpha_rest=0.4,percent_start=10"}
    plan = Comparison("ResNet20SteSign", methods=["fda", "siman", "float"], **schedule)
    found = {name: one.quantizer_schedule for name, one in plan.contenders.items()}
    assert found == {"fda": "alpha_rest=0.4", "siman": "percent_start=10", "float": ""}
    plan = Comparison("ResNet20SteSign", methods=["fda", "siman"], own_recipes=True, **schedule)
    assert plan.contenders["ResNet20SiMaN"].quantizer_schedule == "percent_start=10"
    experiment = get_experiment("ResNet20FDA", quantizer_schedule="alpha_rest=0.3")
    plan = Comparison(experiment, methods=["fda", "ste_sign"])
    found = {name: one.quantizer_schedule for name, one in plan.contenders.items()}
    assert found == {"fda": "alpha_rest=0.3", "ste_sign": ""}
    with pytest.raises(UsageError, match=r"of siman have no number 'alpha_rest'; .* percent_start"):
        Comparison("ResNet20SteSign", methods=["siman"], **schedule)


def test_settings_of_binary_layers_alone():
    settings = {"bfloat16_convolutions": True, "quantizer_learning_rate": 1e-4}
    plan = Comparison("ResNet20Float", methods=["fda", "float"], **settings)
    for name, value in settings.items():
        assert getattr(plan.contenders["fda"], name) == value
        assert not getattr(plan.contenders["float"], name)


def test_recipe_classes():
    plan = Comparison("ResNet20TwoStep", methods=["fda", "float"], seeds=[4])
    assert {(row.method, row.recipe, row.epochs) for row in plan.rows} == {
        ("fda", "two-step, distilled", "100+200"),
        ("float", "one-step, distilled", "200"),
    }


def test_own_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Comparison("ResNet20FDA", methods=["siman", "ste_sign"], own_recipes=True, epochs=7)
    assert list(plan.contenders) == ["ResNet20SiMaN", "ResNet20SteSign"]
    assert plan.contenders["ResNet20SiMaN"].weight_decay == 5e-4
    assert {contender.epochs for contender in plan.contenders.values()} == {7}
    assert "ResNet20TwoStep is left out: its teacher runs/ResNet20Float" in plan.left_out[0]
    with pytest.raises(UsageError, match="There is no model"):  # the run of it is unfinished
        Comparison("ResNet20FDA", own_recipes=True, teacher=str(tmp_path))
    (tmp_path / "model.keras").touch()
    plan = Comparison("ResNet20FDA", own_recipes=True, teacher=str(tmp_path))
    assert "ResNet20TwoStep" in plan.contenders
    with pytest.raises(UsageError, match="leave --own-recipes out"):
        Comparison("Digits", methods=["siman"], own_recipes=True)


def test_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "ResNet20SiMaN" in invoke("--list").output
    output = invoke("Digits", "--list", "--methods", "fda,float", "--seeds", "7,").output
    assert [line.split() for line in output.splitlines()] == [
        ["open", "runs/compare-Digits/fda/seed-7"],
        ["open", "runs/compare-Digits/float/seed-7"],
    ]


def test_help_teaches():
    assert "larq-ext compare Digits" in invoke("--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which experiment?"),
        (["Digist"], "There is no experiment 'Digist'. Did you mean Digits"),
        (["Digits", "--methods", "simam"], "There is no method 'simam'. Did you mean siman?"),
        (["Digits", "--methods", ","], "Give one method or more of fda, learnable_scale"),
        (["Digits", "--seeds", "x"], "--seeds is how many, such as 3, or a list such as 0,1,2"),
        (["Digits", "--seeds", "0"], "Seeds are how many, such as 3"),
        (["Digits", "--seeds", "1,1"], "different numbers of 0 or more"),
        (["Digits", "quantizer=fda"], "give --methods in its place, received quantizer=fda"),
        (["Digits", "seed=3"], "give --seeds in its place, received seed=3"),
        (["Digits", "epoch=3"], "There is no setting 'epoch'. Did you mean epochs"),
        (["Digits", "output_dir=a", "--output-dir", "b"], "output_dir is given twice"),
        (["Digits", "strategy=multiworker"], "runs on one machine"),
        (["Digits", "--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_wrong_use(arguments, message):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1, "one line"


# Processes.


def die(number: int) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), number)


def divide() -> None:
    print(1 / 0)


def test_processes_that_end_badly(tmp_path):
    messages = tmp_path / "run" / "messages.txt"
    with StopRequest() as stop:
        with pytest.raises(TrainingError, match=r"ended by SIGKILL, .* memory.*messages.txt"):
            process.call(die, signal.SIGKILL, stop=stop, messages=messages)
        assert messages.read_text() == "last words\n"
        with pytest.raises(
            TrainingError, match=r"ZeroDivisionError: division by zero\. The traceb"
        ):
            process.call(divide, stop=stop, messages=messages)
        assert "print(1 / 0)" in messages.read_text()


def test_ctrl_c_while_the_server_of_processes_starts(monkeypatch):
    # The server of processes gets it too, and is gone.
    class Process:
        pid = exitcode = None

        def __init__(self, **arguments):
            pass

        def start(self):
            raise EOFError

    context = SimpleNamespace(Process=Process, Pipe=multiprocessing.Pipe)
    monkeypatch.setattr(process, "_context", lambda: context)
    with StopRequest() as stop:
        stop.received = "SIGINT"
        with pytest.raises(TrainingInterrupted):
            process.call(divide, stop=stop)


def test_what_cannot_be_sent_to_a_process(tmp_path):
    experiment = tiny_experiment(tmp_path, network=lambda **_: None)
    with pytest.raises(UsageError, match=r"cannot be sent to another process: .*lambda"):
        compare(experiment, methods=["fda"], output_dir=tmp_path)


@pytest.mark.slow
def test_wrong_settings_show_before_the_first_run(tmp_path):
    with pytest.raises(UsageError, match="cannot be built with quantizer=fda, gamma=1"):
        compare(
            "TinyCompared",
            methods=["ste_sign", "fda"],
            network_options="gamma=1",
            output_dir=tmp_path / "out",
            progress="none",
        )
    with pytest.raises(UsageError, match="lighting"):  # of grey images
        compare("Digits", methods=["fda"], lighting=0.1, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class InterruptParent(tf.keras.callbacks.Callback):
    """In the second of two epochs, does to the parent what Ctrl-C does, and waits."""

    def __init__(self, parent: int):
        super().__init__()
        self.parent, self.step = parent, 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step == 20:  # of 15 an epoch
            os.kill(self.parent, signal.SIGINT)
            request = signal.getsignal(signal.SIGTERM).__self__
            while not request.received:  # until it is asked to stop
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)  # by the system as well


def unlucky_train(experiment, words, *, report):
    """In the process of a run: in floating point it fails; the third run is interrupted once."""
    run_experiment = process.run_experiment

    def run(*arguments, callbacks, **options):
        callbacks = [*callbacks, InterruptParent(int(words[0]))]
        return run_experiment(*arguments, callbacks=callbacks, **options)

    _, values = experiment
    if values["quantizer"] is None:
        raise TrainingError("The loss became nan.")
    if values["seed"] == 1 and words[0].isdigit():
        process.run_experiment = run
    process_train(experiment, words, report=report)


process_train = process.train


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A comparison that was interrupted in its third run and taken up again by the command."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    options = {"methods": ["ste_sign", "float"], "output_dir": out, "progress": "none"}
    arguments = ["--methods", "float,ste_sign", "--seeds", "2", "--output-dir", out, "--resume"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "train", unlucky_train)
        with pytest.raises(TrainingInterrupted) as stopped:
            compare("TinyCompared", seeds=2, command=[str(os.getpid())], **options)
        interrupted = json.loads((out / "comparison.json").read_text())
        times = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/metrics.json")}
        result = invoke("TinyCompared", *arguments)
    return out, str(stopped.value), interrupted, times, result


@pytest.mark.slow
class TestResumed:
    def test_it_stopped(self, resumed):
        _, message, interrupted, times, _ = resumed
        assert "Stopped by SIGINT; 1 of 4 runs" in message and "--resume" in message
        status = [run["status"] for run in interrupted["runs"]]
        assert status == ["finished", "failed", "started", "open"]
        assert not interrupted["finished"]
        assert len(times) == 1

    def test_it_went_on_where_it_was(self, resumed):
        out, _, _, times, _ = resumed
        for path, before in times.items():
            assert path.stat().st_mtime_ns == before, "a finished run was repeated"
        messages = (out / "ste_sign" / "seed-1" / "messages.txt").read_text()
        assert "Resumed in epoch 2 after step 5" in messages
        assert messages.count("epoch 1/2") == 1

    def test_table_of_the_command(self, resumed):
        out, _, _, _, result = resumed
        assert result.exit_code == 1, "a run failed"
        assert "run 2/4  float, seed 0  failed: The loss became nan" in result.output
        assert "Trained on 1437 images" in result.output
        assert "on 360 test images of digits" in result.output
        assert "mean ± sample standard deviation over 2 seeds (0, 1)" in result.output
        assert "float, seed 1, failed: The loss became nan." in result.output
        assert "ste_sign is Larq's pair" in result.output
        report = json.loads((out / "comparison.json").read_text())
        runs = [
            json.loads((out / "ste_sign" / f"seed-{seed}" / "metrics.json").read_text())
            for seed in (0, 1)
        ]
        accuracies = [100 * run["top1"] for run in runs]
        assert accuracies[0] != accuracies[1]
        expected = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
        rows = result.output[result.output.index("method") :].splitlines()
        assert rows[2].startswith("ste_sign") and expected in rows[2]
        assert [run["configuration"]["seed"] for run in runs] == [0, 1]
        assert {run["configuration"]["quantizer"] for run in runs} == {"ste_sign"}
        assert report["evaluated_on"] == "360 test images of digits"
        assert report["versions"]["tensorflow"] == tf.__version__
        assert [row["method"] for row in report["methods"]] == ["ste_sign", "float"]
        assert report["methods"][1]["failed"] == [0, 1]
        with (out / "comparison.csv").open() as file:
            assert [row["method"] for row in csv.DictReader(file)] == ["ste_sign", "float"]
        assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
        assert not list(out.rglob(".*")), "temporary files are left"

    def test_other_settings_are_refused(self, resumed):
        arguments = ["--methods", "ste_sign", "--seeds", "1", "--output-dir", resumed[0]]
        result = invoke("TinyCompared", *arguments)
        assert result.exit_code == 2
        assert "already has runs: add --resume" in result.output
        result = invoke("TinyCompared", *arguments, "--resume", "batch_size=50", "progress=none")
        assert result.exit_code == 2
        assert "cannot be resumed with other settings: batch_size was 100, now 50" in result.output

    def test_one_seed_of_it(self, resumed):
        """Nothing is left to train; JSON and nothing else is printed."""
        arguments = ["--methods", "ste_sign", "--seeds", "1", "--output-dir", resumed[0]]
        result = invoke("TinyCompared", *arguments, "--resume", "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["finished"] and report["seeds"] == [0]
        assert {row["top1"]["std"] for row in report["methods"]} == {None}
        listed = invoke("TinyCompared", *arguments, "--list").output.split()
        assert listed[::2] == ["finished"]

    def test_overwrite_deletes_the_runs(self, resumed, tmp_path):
        copy = shutil.copytree(resumed[0], tmp_path / "copy")
        plan = Comparison("TinyCompared", methods=["ste_sign"], seeds=2, output_dir=copy)
        assert [run.status for run in plan.runs] == ["finished", "finished"]
        plan._facts = {"data": ""}
        with plan.runs[1].folder.lock(), pytest.raises(UsageError, match="Another process trains"):
            plan._take_up(resume=False, overwrite=True)
        taught = {"output_dir": copy, "teacher": str(copy / "ste_sign" / "seed-1")}
        one, two = (
            Comparison("TinyCompared", methods=["ste_sign"], seeds=seeds, **taught)
            for seeds in (1, 2)
        )
        one._check_folder(resume=False, overwrite=True)
        with pytest.raises(UsageError, match="would delete the teacher"):
            two._check_folder(resume=False, overwrite=True)
        plan._take_up(resume=False, overwrite=True)
        assert [run.status for run in plan.runs] == ["open", "open"]
        assert not list(copy.glob("ste_sign/seed-*/*"))
