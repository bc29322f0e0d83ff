"""From the folder of a run to an entry, and from the entry to a model that predicts the same."""

import concurrent.futures
import errno
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

import larq_ext_zoo as zoo
from larq_ext import _files
from larq_ext._files import locked
from larq_ext._scope import fresh_names
from larq_ext.cli import main
from larq_ext_zoo import registry
from larq_ext_zoo._publish import _description, _options, _recipe_class


def test_the_deployable_form_is_the_trained_network(published, run, inputs):
    """Bit by bit as baked, and the accuracy in the entry is that of the stored form."""
    model = zoo.get(published.name)
    baked = lqx.deploy.bake(run.model)
    outputs = model(inputs, training=False).numpy()
    np.testing.assert_array_equal(outputs, baked(inputs, training=False).numpy())
    np.testing.assert_allclose(outputs, run.model(inputs, training=False).numpy(), atol=1e-4)
    assert run.metrics["top1"] > 0.5, "trained, or the rest says nothing"
    everything = model(run.images, training=False).numpy().argmax(-1)
    trained = run.model(run.images, training=False).numpy().argmax(-1)
    assert (everything == trained).mean() > 0.995
    assert all(
        (np.abs(layer.kernel.numpy()) == 1).all()
        for layer in model.layers
        if isinstance(layer, lqx.deploy.BinaryConv2D)
    )


def test_the_deployable_form_stays_binary_when_it_is_trained(published, inputs, digits):
    """A gradient reaches the rest, such as a new classifier, but not kernels of +-1."""
    features = zoo.get(published.name, include_top=False)
    x = tf.keras.layers.GlobalAveragePooling2D()(features.output)
    model = tf.keras.Model(features.input, tf.keras.layers.Dense(10, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    before = model.layers[-1].kernel.numpy()
    model.fit(inputs, digits.labels[:100], verbose=0)
    assert (model.layers[-1].kernel.numpy() != before).any()
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, lqx.deploy.BinaryConv2D)]
    assert len(kernels) == 3 and all((np.abs(kernel) == 1).all() for kernel in kernels)


@pytest.mark.slow
def test_the_training_form_is_exact_and_trains_on(published, run, inputs, digits):
    model = zoo.get(published.name, form="training")
    for one, other in zip(model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        model(inputs, training=False).numpy(), run.model(inputs, training=False).numpy()
    )
    kernel = model.get_layer("unit1_conv").kernel.numpy()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(inputs, digits.labels[:100], verbose=0)
    assert (model.get_layer("unit1_conv").kernel.numpy() != kernel).any()


@pytest.mark.parametrize("form", ["deployable", "training"])
def test_features_are_those_of_the_full_model(published, inputs, form):
    full = zoo.get(published.name, form=form)
    part = zoo.get(published.name, form=form, include_top=False, num_classes=3)
    last = tf.keras.Model(full.input, full.get_layer("unit3_prelu").output)
    features = part(inputs, training=False).numpy()
    assert features.shape == (100, 4, 4, 64)
    np.testing.assert_array_equal(features, last(inputs, training=False).numpy())


def test_the_entry_tells_where_the_weights_come_from(published, run):
    values = json.loads((published.folder / f"{published.name}.json").read_text())
    assert values["accuracy"] == {
        "value": run.metrics["top1"],
        "mean": run.metrics["top1"],
        "spread": None,
        "seeds": [0],
        "data": "1797 test images of digits",
        "how": "larq-ext train, at its end, in the training form",
        "metric": "top-1",
    }
    assert values["arguments"] == {
        "quantizer": "siman",
        "num_classes": 10,
        "input_shape": [8, 8, 1],
        "pad_values": 1.0,
    }
    assert (values["recipe_class"], values["paper"]["arxiv"]) == ("one-step", "2102.07981")
    assert values["recipe"]["experiment"] == "Digits"
    assert (published.folder / values["recipe"]["log"]).read_text().startswith("epoch,loss")
    assert "somewhere" not in json.dumps(values), "folders of somebody's machine"
    assert str(run.folder) not in json.dumps(values)


def test_an_entry_is_small(published, run):
    """110,592 bits, four bytes for every other value, and the names."""
    binary = 3 * 3 * 3 * 64 * 64
    scales = 3 * 64 * 2  # after each binary convolution: a learned scale and an offset
    others = run.model.count_params() - binary - 3 * 64 + scales
    file = published.weights["deployable"]
    assert (published.folder / file.file).stat().st_size == file.bytes
    assert binary / 8 + 4 * others < file.bytes < binary / 8 + 4 * others + 8_000


def test_a_folder_of_entries_can_be_moved(published, run, own_home, tmp_path, inputs):
    expected = zoo.get(published.name)(inputs, training=False).numpy()
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in published.folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"siman_test.*clashes.*give it another name"):
        zoo.register_folder(moved)
    del registry._ENTRIES[published.name]
    (entry,) = zoo.register_folder(moved)
    assert entry.to_dict() == published.to_dict()
    np.testing.assert_array_equal(zoo.get(entry.name)(inputs, training=False).numpy(), expected)


def test_several_seeds_have_a_mean_and_a_spread(run, own_home, tmp_path, write_run):
    other = write_run(tmp_path / "b", run.model, run.images, seed=1)
    other["top1"] = run.metrics["top1"] - 0.1
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    entry = zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.two", tmp_path / "entries")
    assert entry.accuracy.value == run.metrics["top1"]
    assert entry.accuracy.mean == pytest.approx(run.metrics["top1"] - 0.05)
    assert entry.accuracy.spread == pytest.approx(0.1 / 2**0.5)
    assert entry.accuracy.seeds == (0, 1)

    other["configuration"] |= {"quantizer_schedule": "", "evaluate_every": 7}  # of a newer version
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.newer", tmp_path / "entries")
    other["configuration"]["quantizer_schedule"] = "alpha_rest=0.4"
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"quantizer_schedule is 'alpha_rest=0\.4', there None"):
        zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.three", tmp_path / "entries")
    other["configuration"]["quantizer_schedule"] = ""

    other["configuration"]["epochs"] = 3
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"another experiment.*epochs is 3, there 2"):
        zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.three", tmp_path / "entries")
    other["configuration"]["epochs"], other["epochs"] = 2, 1  # stopped early by a callback
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"another experiment.*epochs trained is 1, there 2"):
        zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.three", tmp_path / "entries")
    other["epochs"], other["sources"] = 2, {"teacher": "ab12"}
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"SHA-256 of the teacher is 'ab12', there None"):
        zoo.add_entry([run.folder, tmp_path / "b"], "digits_net.three", tmp_path / "entries")
    with pytest.raises(ValueError, match="different seeds"):
        zoo.add_entry([run.folder, run.folder], "digits_net.three", tmp_path / "entries")


@pytest.mark.slow
def test_float16_is_smaller_and_has_the_accuracy_of_an_evaluation(
    run, own_home, tmp_path, published, inputs
):
    arguments = (run.folder, "digits_net.half", tmp_path)
    entry = zoo.add_entry(*arguments, floats="float16")
    assert entry.accuracy is None, "the run measured something else"
    assert entry.weights["deployable"].bytes < published.weights["deployable"].bytes - 9_000
    outputs = zoo.get(entry.name)(inputs, training=False).numpy()
    exact = zoo.get(published.name)(inputs, training=False).numpy()
    assert 0 < np.abs(outputs - exact).max() < 0.1
    evaluation = {"model": entry.name, "dataset": "digits", "n": 360, "top1": 0.75, "loss": 1.0}
    evaluation["sha256"] = entry.weights["deployable"].sha256
    (tmp_path / "measured.json").write_text(json.dumps(evaluation))
    entry = zoo.add_entry(
        *arguments, floats="float16", evaluation=tmp_path / "measured.json", overwrite=True
    )
    assert (entry.accuracy.value, entry.accuracy.data) == (0.75, "360 test images of digits")
    assert "deployable form as stored" in entry.accuracy.how


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "mnist"}, "The evaluation is on mnist, the run on digits"),
        ({"model": "runs/Digits/model.keras"}, r"is of runs/Digits/model\.keras: evaluate digits"),
        ({}, "is of other weights than digits_net.again has now"),
        ({"model": "gone.tflite"}, "is not here any more"),
        ({"n": None}, "There is no file"),
        ({"top1": None}, "`evaluation` is what"),
    ],
)
def test_an_evaluation_of_something_else_changes_nothing(
    run, own_home, tmp_path, write_run, randomise, change, message
):
    name, folder = "digits_net.again", tmp_path / "entries"
    zoo.add_entry(run.folder, name, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = randomise(zoo.DigitsNet(quantizer="siman", pad_values=1.0))
    metrics = write_run(tmp_path / "other", other, run.images)
    count = len(run.images)
    evaluation = {"model": name, "dataset": "digits", "n": count, "top1": metrics["top1"]}
    evaluation |= {"sha256": "0" * 64, **change}
    if evaluation["n"] is None:
        evaluation = tmp_path / "gone.json"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        zoo.add_entry(tmp_path / "other", name, folder, evaluation=evaluation, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mirrors": ["example.org/w"]}, "`mirrors` is a list of http"),
        ({"recipe_class": "three-step"}, "`recipe_class` is one of"),
        ({"evaluation": {}}, "`evaluation` is what"),
    ],
)
def test_what_is_refused_late_leaves_the_old_entry_whole(
    run, own_home, tmp_path, write_run, settings, message
):
    """After the weights were written and loaded again, but not under their names."""
    name, folder = "digits_net.again", tmp_path / "entries"
    zoo.add_entry(run.folder, name, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = zoo.DigitsNet(quantizer="siman", pad_values=1.0)
    write_run(tmp_path / "other", other, run.images)
    with pytest.raises(ValueError, match=message):
        zoo.add_entry(tmp_path / "other", name, folder, overwrite=True, **settings)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(ValueError, match=message):
        zoo.add_entry(tmp_path / "other", "digits_net.new", folder, **settings)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("number", range(5))
def test_a_full_disk_leaves_the_old_entry_whole(
    run, own_home, tmp_path, write_run, monkeypatch, number
):
    """Whichever of the files it says so for."""
    name, folder = "digits_net.again", tmp_path / "entries"
    zoo.add_entry(run.folder, name, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_run(tmp_path / "other", zoo.DigitsNet(quantizer="siman", pad_values=1.0), run.images)
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_files, "sync", full)  # where disks with a quota say so
    with pytest.raises(OSError, match="No space left"):
        zoo.add_entry(tmp_path / "other", name, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_an_evaluation_of_the_converted_file(run, published, own_home, tmp_path):
    """It counts if the file is there, and computes what the weights to be stored do."""
    pytest.importorskip("larq_compute_engine")
    from larq_ext_recipes import evaluate

    file, other = tmp_path / "right.tflite", tmp_path / "other.tflite"
    lqx.deploy.convert(run.model).save(file)
    lqx.deploy.convert(zoo.DigitsNet(quantizer="siman", pad_values=1.0)).save(other)
    arguments = (run.folder, "digits_net.measured", tmp_path / "entries")
    with pytest.raises(ValueError, match="is of another model"):
        zoo.add_entry(*arguments, evaluation=evaluate(other, dataset="digits"))
    measured = evaluate(file, dataset="digits")
    entry = zoo.add_entry(*arguments, evaluation=measured)
    assert entry.accuracy.value == measured["top1"] > 0.5
    assert entry.accuracy.how.endswith("the deployable form as stored, converted")
    file.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="is not here any more, or it was changed"):
        zoo.add_entry(*arguments, evaluation=measured, overwrite=True)


def test_what_a_kill_left_behind_is_no_entry(run, own_home, tmp_path):
    zoo.add_entry(run.folder, "digits_net.again", tmp_path)
    (tmp_path / ".digits_net.again.123.json").write_text('{"name": ')
    assert [entry.name for entry in zoo.register_folder(tmp_path)] == ["digits_net.again"]


def test_classes_of_a_folder_of_pictures_come_from_the_run(run, own_home, tmp_path, write_run):
    metrics = write_run(tmp_path / "run", run.model, run.images, dataset="folder")
    metrics["classes"] = [f"kind {number}" for number in range(10)]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    preprocessing = zoo.entry("digits_net.siman").preprocessing
    entry = zoo.add_entry(
        tmp_path / "run", "digits_net.mine", tmp_path / "entries", preprocessing=preprocessing
    )
    assert list(entry.classes) == metrics["classes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "DigitNet"}, "none of the zoo's.*Did you mean DigitsNet"),
        ({"network": "ResNet20"}, r"its name is resnet20\.TAG"),
        ({"dataset": "mine"}, "does not know how images of 'mine' are prepared"),
        ({"quantizer": "fda"}, "does not"),
        ({"binarize": "inputs"}, r"has real kernels \(binarize=inputs\)"),
        ({"network_options": "pad_values=0.0"}, "does not compute what model.keras does"),
    ],
)
def test_a_run_that_cannot_be_an_entry_writes_none(
    run, own_home, tmp_path, write_run, change, message
):
    write_run(tmp_path / "run", run.model, run.images, **change)
    with pytest.raises(ValueError, match=message):
        zoo.add_entry(tmp_path / "run", "digits_net.wrong", tmp_path / "entries")
    assert not list((tmp_path / "entries").glob("*")) if (tmp_path / "entries").exists() else True
    assert "digits_net.wrong" not in zoo.list_models()


def test_an_unfinished_run_and_a_taken_name(run, own_home, tmp_path, published):
    with pytest.raises(FileNotFoundError, match=r"no file .*metrics\.json: a finished run has"):
        zoo.add_entry(tmp_path, "digits_net.none")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no record of a run: `experiment` is missing"):
        zoo.add_entry(tmp_path, "digits_net.none")
    with pytest.raises(ValueError, match=r"already has a model 'digits_net.siman'"):
        zoo.add_entry(run.folder, "digits_net.siman")
    with pytest.raises(ValueError, match=r"already has an entry digits_net.siman_test"):
        zoo.add_entry(run.folder, published.name, published.folder)


def test_recipe_class_comes_from_the_configuration():
    assert _recipe_class({"teacher": None, "first_step_epochs": 0}) == "one-step"
    assert _recipe_class({"first_step_epochs": 60}) == "two-step"
    assert _recipe_class({"initial_weights": "runs/Backbone"}) == "one-step"
    assert _recipe_class({"teacher": "runs/a"}) == "distilled"
    both = {"teacher": "runs/a", "first_step_epochs": 60}
    assert _recipe_class(both) == "two-step, distilled"


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({}, "A residual network with three binary layers, for scikit-learn's 8x8 digits; siman, "),
        ({"quantizer": None}, "DigitsNet; in floating point, "),
        ({"dataset": "mnist"}, "DigitsNet; siman, "),
        ({"network_options": "a=1"}, "DigitsNet with a=1; siman, "),
        ({"network_options": "a=1", "teacher": "b"}, "DigitsNet with a=1; siman, distilled, "),
    ],
)
def test_descriptions_do_not_tell_of_another_network(configuration, words):
    usual = {"network": "DigitsNet", "quantizer": "siman", "dataset": "digits"}
    configuration = usual | configuration
    line = _description(zoo.DigitsNet, configuration, _recipe_class(configuration))
    assert line == f"{words}trained on {configuration['dataset']}"


def test_options_are_read_as_recipes_write_them():
    assert _options("a=relu,b=true,c=1.5,d=False") == {"a": "relu", "b": True, "c": 1.5, "d": False}
    assert _options("modules=(1,2),e=none,f=3") == {"modules": [1, 2], "e": None, "f": 3}
    assert _options("modules=(1)") == {"modules": [1]}
    assert _options("") == _options(None) == {}


def test_a_network_of_your_own(run, own_home, tmp_path, write_run, inputs):
    def mine(**arguments):
        return zoo.DigitsNet(**arguments)

    write_run(tmp_path / "run", run.model, run.images, network="me.mine")
    networks = {"me.mine": mine}
    with pytest.raises(ValueError, match=r"would not know 'me.mine': give another folder"):
        zoo.add_entry(tmp_path / "run", "mine.first", networks=networks)
    zoo.add_entry(tmp_path / "run", "mine.first", tmp_path / "entries", networks=networks)
    del registry._ENTRIES["mine.first"]
    with pytest.raises(ValueError, match=r"mine\.first\.json is malformed: `network`: there is no"):
        zoo.register_folder(tmp_path / "entries")
    zoo.register_folder(tmp_path / "entries", networks)
    assert zoo.get("mine.first")(inputs, training=False).numpy().shape == (100, 10)


def test_a_network_with_layers_without_names(own_home, tmp_path, write_run, digits, inputs):
    """Keras counts them on through the process: the weights are found whatever was built before."""

    def unnamed(*, input_shape, num_classes, quantizer):
        layers = tf.keras.layers
        image = tf.keras.Input(input_shape)
        x = layers.Conv2D(32, 3)(image)
        x = layers.BatchNormalization()(x)
        x = lqx.layers.QuantConv2D(8, 3, quantizer=quantizer)(x)
        x = layers.Dense(num_classes)(layers.Flatten()(x))
        return tf.keras.Model(image, layers.Softmax()(x))

    def number():
        return int(tf.keras.layers.Conv2D(1, 1).name.rpartition("_")[2])

    tf.keras.layers.Conv2D(1, 1)
    with fresh_names():
        model = unnamed(input_shape=(8, 8, 1), num_classes=10, quantizer="siman")
    images = (digits.pixels / 16).astype(np.float32)
    settings = {"network": "me.unnamed", "network_options": ""}
    write_run(tmp_path / "run", model, images, **settings)
    networks = {"me.unnamed": unnamed}
    zoo.add_entry(tmp_path / "run", "mine.unnamed", tmp_path / "entries", networks=networks)
    expected = model(inputs, training=False)
    before = number()
    for _ in range(2):
        found = zoo.get("mine.unnamed", form="training")(inputs, training=False)
        np.testing.assert_array_equal(found, expected)
        zoo.get("mine.unnamed")
    assert zoo.get("mine.unnamed").name != zoo.get("mine.unnamed").name
    with fresh_names():
        assert tf.keras.Input((1,)).name == "input_1"
    assert number() > before, "names are not given twice"


def test_a_folder_by_another_name(run, own_home, tmp_path):
    """The user's own, through a link: it is the one that the zoo reads by itself."""
    (own_home / "entries").mkdir(parents=True)
    (tmp_path / "link").symlink_to(own_home / "entries")
    zoo.add_entry(run.folder, "digits_net.linked", tmp_path / "link")
    assert "digits_net.linked" in zoo.list_models()
    assert zoo.add_entry(run.folder, "digits_net.linked", overwrite=True)


def test_two_publishers_take_turns(run, own_home, tmp_path):
    folder = tmp_path / "entries"
    folder.mkdir()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with locked(folder, wait=False):
            with pytest.raises(BlockingIOError), locked(folder, wait=False):
                pass
            waiting = pool.submit(zoo.add_entry, run.folder, "digits_net.second", folder)
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.result(timeout=5)
            assert not list(folder.glob("*.json"))
        assert waiting.result(timeout=60).name == "digits_net.second"


@pytest.mark.slow
def test_the_command(run, own_home):
    """In a process of its own, into the local folder, whose entries are known without a word."""
    command = pathlib.Path(sys.executable).with_name("larq-ext")
    arguments = ["publish", str(run.folder), "--name", "digits_net.by_command"]
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deployable" in done.stdout and "RuntimeWarning" not in done.stderr
    assert (own_home / "entries" / "digits_net.by_command.json").is_file()
    assert "digits_net.by_command" in zoo.list_models(pretrained=True)
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert again.stderr.startswith("Error: ") and "already has an entry" in again.stderr


@pytest.mark.slow
def test_the_deployable_form_converts(published, inputs):
    pytest.importorskip("larq_compute_engine")
    model = zoo.get(published.name)
    conversion = lqx.deploy.convert(model)
    assert conversion.report.ok and conversion.report.binary == 3
    assert lqx.deploy.verify(model, conversion.flatbuffer, inputs).ok
