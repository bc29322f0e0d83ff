"""Names, entries as plain data, and what `get` refuses."""

import dataclasses
import json
import os

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)

import larq_ext_zoo as zoo
from larq_ext_zoo import _store, classification, pose, registry
from larq_ext_zoo._architectures import ARCHITECTURES, PAPERS
from larq_ext_zoo._entry import Entry, read_entry


def test_every_network_is_there_with_every_method():
    networks = {architecture.network for architecture in ARCHITECTURES.values()}
    assert networks == {*classification.__all__, *pose.__all__}
    assert PAPERS.keys() == lqx.quantizers.METHODS.keys()
    real = {name for name in ARCHITECTURES if name.startswith(("simple_baseline", "hrnet"))}
    expected = {f"{name}.float" for name in real} | {
        f"{name}.{method}"
        for name in ARCHITECTURES.keys() - real
        for method in lqx.quantizers.METHODS
    }
    untrained = {name for name in zoo.list_models() if not zoo.entry(name).pretrained}
    assert untrained == expected


def test_wildcards():
    assert zoo.list_models("resnet34.*") == [
        "resnet34.fda",
        "resnet34.learnable_scale",
        "resnet34.mlp_classifier",
        "resnet34.siman",
        "resnet34.ste_sign",
    ]
    assert all(name.endswith(".siman") for name in zoo.list_models("*.siman"))
    assert zoo.list_models("nothing*") == []


def test_only_pretrained(published):
    trained = zoo.list_models("digits_net*", pretrained=True)
    assert published.name in trained and "digits_net.siman" not in trained
    assert published.name in zoo.list_models("digits_net*")


def test_what_another_process_publishes_is_known_at_once(published, own_home):
    entries = own_home / "entries"
    assert "digits_net.later" not in zoo.list_models()
    entries.mkdir(parents=True)
    file = entries / "digits_net.later.json"

    def publish(**changes):
        values = dataclasses.replace(published, name="digits_net.later").to_dict()
        file.write_text(json.dumps({**values, **changes}))
        times[0] += 1
        os.utime(file, ns=(times[0], times[0]))  # whatever the clock of the disk can tell apart

    times = [file.parent.stat().st_mtime_ns]
    publish()
    assert zoo.entry("digits_net.later").description == published.description
    publish(description="another one")
    assert zoo.entry("digits_net.later").description == "another one"
    file.unlink()
    with pytest.raises(ValueError, match=r"no model 'digits_net\.later'"):
        zoo.entry("digits_net.later")


def test_an_entry_with_the_name_of_a_network(own_home):
    known = zoo.entry("digits_net.fda")
    own = dataclasses.replace(known, name="digits_net.own", network="DigitsNet", network_name=None)
    zoo.register(own)
    assert zoo.get("digits_net.own").output_shape == (None, 10)
    with pytest.raises(ValueError, match="there is no 'DigitNet'"):
        zoo.register(dataclasses.replace(own, name="digits_net.other", network="DigitNet"))


@pytest.mark.parametrize("suffix", ["h5", "keras", "tflite"])
def test_names_that_commands_take_for_files(published, suffix):
    with pytest.raises(ValueError, match=r"`name`.*without a file's suffix"):
        dataclasses.replace(published, name=f"digits_net.{suffix}")


def test_names_of_as_many_classes_as_there_are(published):
    with pytest.raises(ValueError, match=r"`classes`.*as many as `num_classes`, 10"):
        dataclasses.replace(published, classes=("one", "two"))


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(ValueError, match=r"no model 'resnet20.fdaa'\. Did you mean resnet20\.fda"):
        zoo.get("resnet20.fdaa")
    with pytest.raises(ValueError, match=r"Known: alexnet\.fda, "):
        zoo.entry("x")


def test_a_clash_is_an_error():
    entry = zoo.entry("resnet20.fda")
    with pytest.raises(ValueError, match=r"already has a model 'resnet20.fda': take another name"):
        zoo.register(entry)


def test_an_entry_of_your_own(own_home):
    def network(*, num_classes=2, **_):
        return ("mine", num_classes)

    zoo.register(Entry("own.first", network, {"num_classes": 5}, "mine", (4, 4, 3)))
    assert zoo.get("own.first") == ("mine", 5)
    assert zoo.get("own.first", num_classes=7) == ("mine", 7)
    assert "own.first" in zoo.list_models()


def test_untrained_models_take_the_arguments_of_the_network():
    assert zoo.get("digits_net.siman", num_classes=4).output_shape == (None, 4)
    assert zoo.get("digits_net.fda", include_top=False).output_shape == (None, 4, 4, 64)
    with pytest.raises(ValueError, match=r"`form` is one of \['deployable', 'training'\]"):
        zoo.get("digits_net.fda", form="baked")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3}, "trained for 10 classes, received num_classes=3: .*include_top=False"),
        ({"quantizer": "fda"}, "trained with quantizer='siman', received 'fda': .*weights=None"),
        ({"pad_values": 0.0}, "trained with pad_values=1.0, received 0.0"),
        ({"input_tensor": 1}, r"leave input_tensor out and call the model"),
        ({"input_shape": (16, 16, 1)}, "does not fit"),
    ],
)
def test_arguments_that_do_not_go_with_trained_weights(published, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.get(published.name, **arguments)


def test_arguments_that_do(published):
    model = zoo.get(published.name, weights=None, num_classes=3)
    assert model.output_shape == (None, 3)
    assert zoo.get(published.name, quantizer="siman", pad_values=1.0).output_shape == (None, 10)
    wide = zoo.get(published.name, include_top=False, input_shape=(16, 16, 1))
    assert wide.output_shape == (None, 8, 8, 64)


@pytest.mark.parametrize("file", ["deployable", "training"])
def test_altered_weights_are_not_loaded(published, tmp_path, file):
    for path in published.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / published.weights[file].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    registry._ENTRIES[published.name] = dataclasses.replace(published, folder=tmp_path)
    try:
        with pytest.raises(ValueError, match="was altered"):
            zoo.get(published.name, form=file)
    finally:
        registry._ENTRIES[published.name] = published


def test_an_entry_is_plain_data(published):
    path = published.folder / f"{published.name}.json"
    again = read_entry(path, registry.NETWORKS)
    assert again.to_dict() == published.to_dict()
    assert again == dataclasses.replace(published, recipe=again.recipe, arguments=again.arguments)
    assert again.class_names == tuple("0123456789")


GONE = object()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "Digits Net", '`name` is "architecture.tag" in lower case, received \'Digits'),
        ("name", GONE, "`name` is missing"),
        ("wieghts", {}, "`wieghts` is no field. Did you mean weights?"),
        ("network", "DigitNet", "`network`: there is no 'DigitNet'. Did you mean DigitsNet?"),
        ("arguments", [], "`arguments` is an object, received"),
        ("description", "a\nb", "`description` is one line"),
        ("input_size", [8, 8], r"`input_size` is \[height, width, channels\], received \[8, 8\]"),
        ("task", "poses", r"`task` is one of \['classification', 'pose'\], received 'poses'"),
        ("task", "pose", "`classes` is null for pose, received 'digits'"),
        ("recipe_class", "one step", r"`recipe_class` is one of \['untrained', 'one-step'"),
        (
            "classes",
            "cifar",
            r"`classes` is a list of names or one of \['cifar10', 'digits', 'imagenette'\]",
        ),
        ("classes", [1, 2], "`classes` is a list of names"),
        ("licence", "", "`licence` is a text"),
        ("paper.arxiv", "arXiv:2102.07981", '`paper`: `arxiv` is an id like "2103.00841" or null'),
        ("preprocessing.std", [0.0], "`preprocessing`: `std` is above 0"),
        ("preprocessing.mean", "0.5", "`preprocessing`: `mean` is a list of numbers"),
        ("preprocessing.mean", [1, 2, 3], "`preprocessing`: `mean` is 1 or 1 numbers"),
        ("preprocessing.resize", 4, "`preprocessing`: `resize` is at least 8"),
        ("preprocessing.crop", 8, "`preprocessing`: `crop` is no field"),
        ("weights.deployable.sha256", "12", "`weights.deployable`: `sha256` is 64 hexadecimal"),
        ("weights.deployable.file", "../x", "`weights.deployable`: `file` is a file name without"),
        ("weights.deployable.bytes", -1, "`weights.deployable`: `bytes` is a number of bytes"),
        ("weights.baked", {}, "`weights` is an object with keys of"),
        ("weights", {}, "`weights` is there exactly if `recipe_class` is not 'untrained'"),
        ("accuracy.mean", 98.6, "`accuracy`: `mean` is a share from 0 to 1, received 98.6"),
        ("accuracy.spread", 0.1, "`accuracy`: `spread` is null for a single seed"),
        ("accuracy.seeds", [], "`accuracy`: `seeds` is a list of integers"),
        ("accuracy.how", GONE, "`accuracy`: `how` is missing"),
        ("recipe.experiment", GONE, "`recipe` is an object with the name of the `experiment`"),
        ("recipe.log", "/etc/passwd", "`recipe.log` is a file name"),
        ("folder", "/", "`folder` is not for files"),
    ],
)
def test_a_malformed_entry_names_the_field(published, tmp_path, field, value, message):
    values = json.loads((published.folder / f"{published.name}.json").read_text())
    *outer, last = field.split(".")
    part = values
    for name in outer:
        part = part[name]
    if value is GONE:
        del part[last]
    else:
        part[last] = value
    path = tmp_path / "digits_net.wrong.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{path} is malformed: {message}"):
        zoo.register_folder(tmp_path)
    assert published.name in zoo.list_models(), "the registry is as it was"


def test_a_malformed_entry_of_the_user_leaves_the_others(published, own_home):
    entries = own_home / "entries"
    entries.mkdir(parents=True)
    values = json.loads((published.folder / f"{published.name}.json").read_text())
    values["name"] = "digits_net.mine"
    (entries / "digits_net.mine.json").write_text(json.dumps(values))
    for wrong, message in (("{", "is no JSON"), ("3", "expected an object")):
        path = entries / "wrong.json"
        path.write_text(wrong)
        with pytest.warns(
            UserWarning, match=rf"model of your own is left out.*{entries}.*wrong\.json.*{message}"
        ):
            names = zoo.list_models("digits_net*")
        assert published.name in names and "digits_net.mine" in names
        path.unlink()
    path.mkdir()  # what may be mended without a trace is tried again
    for _ in range(2):
        with pytest.warns(UserWarning, match=rf"Your own models are left out .*{entries}"):
            zoo.list_models()
    path.rmdir()
    with pytest.raises(ValueError, match="already has a model"):
        zoo.register(zoo.entry("digits_net.mine"))


def test_a_model_of_the_user_with_a_name_of_the_package_is_left_out_alone(published, own_home):
    """A later version may ship a model of that name."""
    entries = own_home / "entries"
    entries.mkdir(parents=True)
    values = json.loads((published.folder / f"{published.name}.json").read_text())
    for name in ("digits_net.mine", "digits_net.fda_digits"):
        (entries / f"{name}.json").write_text(json.dumps(values | {"name": name}))
    with pytest.warns(UserWarning, match=r"is left out\. The entry 'digits_net\.fda_digits' in"):
        names = zoo.list_models("digits_net*")
    assert "digits_net.mine" in names
    assert zoo.entry("digits_net.fda_digits").folder == registry.SHIPPED


def test_a_home_that_cannot_be_read_leaves_the_others(published, own_home, monkeypatch):
    def locked():
        raise PermissionError(13, "Permission denied", "/root")

    monkeypatch.setattr(_store, "home", locked)
    with pytest.warns(UserWarning, match="models are left out .*Permission denied"):
        assert published.name in zoo.list_models("digits_net*")


def test_names_of_the_package_are_taken_from_the_start(own_home):
    """In a process that has not looked for any model yet."""
    name = "digits_net.fda_digits"
    entry = zoo.entry(name)
    registry._FOLDERS.clear()
    del registry._ENTRIES[name]
    with pytest.raises(ValueError, match=rf"already has a model '{name}'"):
        zoo.register(dataclasses.replace(entry, folder=None))
    registry._FOLDERS.clear()
    del registry._ENTRIES[name]
    with pytest.raises(ValueError, match="clashes with another of that name"):
        copy = own_home / "copy"
        copy.mkdir(parents=True)
        (copy / "a.json").write_text(json.dumps(entry.to_dict()))
        zoo.register_folder(copy)
    assert name in zoo.list_models()


def test_any_part_of_a_name_is_a_pattern():
    assert zoo.list_models("net20.si") == ["resnet20.siman", "resnet20.siman_cifar10"]
    assert zoo.list_models("net20.si*") == []


def test_arguments_of_a_trained_model(published):
    """Those from JSON are lists where Python has tuples; others do not exist at all."""
    zoo.get(published.name, input_shape=(8, 8, 1))
    entry = dataclasses.replace(published, arguments={**published.arguments, "modules": [1, 2]})
    assert registry._same((1, 2), registry._default(entry, "modules"))
    with pytest.raises(ValueError, match="has no argument 'foo'"):
        zoo.get(published.name, foo=1)


def test_a_folder_is_registered_as_a_whole(published, tmp_path, own_home):
    values = json.loads((published.folder / f"{published.name}.json").read_text())
    values["name"] = "digits_net.a_good_one"
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json is no JSON"):
        zoo.register_folder(tmp_path)
    assert "digits_net.a_good_one" not in zoo.list_models()
    with pytest.raises(FileNotFoundError, match="no folder"):
        zoo.register_folder(tmp_path / "gone")


def test_names_of_classes(published):
    scores = np.array([[0.1, 0.0, 0.5, 0.3, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0]])
    best = [("2", 0.5), ("3", 0.3), ("0", 0.1)]
    for classes in (published.name, published, "digits", [str(digit) for digit in range(10)]):
        assert zoo.decode_predictions(scores, classes, top=3) == [best]
    assert zoo.decode_predictions(scores, None, top=1) == [[("class 2", 0.5)]]
    assert zoo.decode_predictions(scores, "cifar10", 1) == [[("bird", 0.5)]]
    assert len(zoo.decode_predictions(scores, "digits", top=50)[0]) == 10
    with pytest.raises(ValueError, match=r"10 names of classes .* for 4 outputs"):
        zoo.decode_predictions(scores[:, :4], "digits")
    with pytest.raises(ValueError, match=r"\(samples, classes\), received \(10,\)"):
        zoo.decode_predictions(scores[0], "digits")
    with pytest.raises(ValueError, match=r"no class list 'cifar11', only cifar10, .*no model"):
        zoo.decode_predictions(scores, "cifar11")
