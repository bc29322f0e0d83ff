"""`larq-ext predict` on images of every kind, and `larq-ext list`."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

from larq_ext import cli
from larq_ext._images import load_image

Image = pytest.importorskip("PIL.Image")


def run(*arguments):
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """Five digits as PNG files of 8 bits, white on black."""
    path = tmp_path_factory.mktemp("images")
    for index in range(5):
        values = np.round(digits.pixels[index, ..., 0] * 255 / 16).astype("uint8")
        Image.fromarray(values).save(path / f"digit{index}.png")
    return path


@pytest.fixture(scope="module")
def expected(run_model, digits):
    pixels = np.round(digits.pixels[:5] * 255 / 16).astype("uint8").astype("float32")
    return run_model((pixels / 255 - 0.5) / 0.5, training=False).numpy()


@pytest.fixture(scope="module")
def run_model(run_folder):
    return tf.keras.models.load_model(run_folder / "model.keras", compile=False)


@pytest.fixture(scope="module")
def run_folder(request):
    return request.getfixturevalue("run").folder


def scores(result):
    """Class to score for each image."""
    return [
        {row["class"]: row["score"] for row in image["predictions"]}
        for image in json.loads(result.stdout)
    ]


def check(result, expected):
    assert result.exit_code == 0, result.stderr
    for found, row in zip(scores(result), expected, strict=True):
        assert list(found) == [str(index) for index in np.argsort(-row, kind="stable")[:5]]
        for name, score in found.items():
            assert score == pytest.approx(row[int(name)], abs=1e-3)


def test_a_model_of_the_zoo_knows_how(published, folder, expected):
    images = [folder / f"digit{index}.png" for index in range(5)]
    result = run("predict", published.name, *images, "--json")
    check(result, expected)
    assert [image["image"] for image in json.loads(result.stdout)] == [str(p) for p in images]
    assert result.stderr == ""


def test_a_folder_and_the_table(published, folder, expected):
    result = run("predict", published.name, folder, "--top", 2)
    lines = result.stdout.splitlines()
    assert lines[0] == str(folder / "digit0.png")
    best = expected[0].argmax()
    assert lines[1].split()[:2] == ["1", str(best)]
    assert float(lines[1].split()[2]) == pytest.approx(expected[0][best], abs=1e-3)
    assert len(lines) == 5 * 3


def test_a_file_of_ones_own(run_folder, folder, expected, tmp_path):
    model = shutil.copy(run_folder / "model.keras", tmp_path / "model.keras")
    check(run("predict", run_folder, folder, "--json"), expected)  # its record says how
    check(run("predict", model, folder, "--like", "digits", "--json"), expected)
    check(run("predict", model, folder, "--like", "digits_net.fda", "--json"), expected)
    # No names are known with explicit numbers.
    settings = ["--scale", 1 / 255, "--mean", 0.5, "--std", 0.5]
    result = run("predict", model, folder, *settings, "--top", 1, "--json")
    assert [list(row) for row in scores(result)] == [[f"class {i}"] for i in expected.argmax(-1)]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {index}" for index in range(10)))
    result = run("predict", model, folder, *settings, "--classes", names, "--top", 1, "--json")
    assert [list(row) for row in scores(result)] == [[f"digit {i}"] for i in expected.argmax(-1)]
    text = json.dumps([f"number {index}" for index in range(10)])
    names.write_text(text, encoding="utf-8-sig")  # with a mark in front, as on Windows
    result = run("predict", model, folder, *settings, "--classes", names, "--top", 1)
    assert f"number {expected[0].argmax()}" in result.stdout


def test_a_run_names_its_own_classes(run_folder, folder, expected, tmp_path):
    here = tmp_path / "flowers"
    shutil.copytree(run_folder, here)
    record = json.loads((here / "metrics.json").read_text())
    record["configuration"]["dataset"] = "folder"
    record["classes"] = [f"flower {index}" for index in range(10)]
    (here / "metrics.json").write_text(json.dumps(record))
    own = [[f"flower {index}"] for index in expected.argmax(-1)]
    settings = ["--scale", 1 / 255, "--mean", 0.5, "--std", 0.5]
    for options in (["--like", "digits"], settings):
        result = run("predict", here, folder, *options, "--top", 1, "--json")
        assert [list(row) for row in scores(result)] == own


@pytest.mark.slow
def test_a_converted_file(run_model, folder, expected, tmp_path):
    pytest.importorskip("larq_compute_engine")
    lqx.deploy.convert(run_model).save(tmp_path / "model.tflite")
    check(run("predict", tmp_path / "model.tflite", folder, "--like", "digits", "--json"), expected)


def pixels_model(weights=None):
    """A network that prepares its images itself, from integers."""
    pixels = tf.keras.Input((8, 8, 1), dtype="uint8")
    x = tf.keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    x = tf.keras.layers.Conv2D(32, 3)(x)
    x = lqx.layers.QuantConv2D(16, 3, quantizer="ste_sign")(x)
    model = tf.keras.Model(pixels, tf.keras.layers.Dense(10)(tf.keras.layers.Flatten()(x)))
    if weights is not None:
        model.layers[-1].set_weights([np.full(w.shape, weights) for w in model.get_weights()[-2:]])
    return model


@pytest.mark.slow
def test_a_converted_file_that_takes_pixels(folder, tmp_path):
    pytest.importorskip("larq_compute_engine")
    model = pixels_model()
    model.save(tmp_path / "u8.keras")
    lqx.deploy.convert(model).save(tmp_path / "u8.tflite")
    found = [
        scores(run("predict", tmp_path / f"u8.{form}", folder, "--scale", 1, "--json"))
        for form in ("keras", "tflite")
    ]
    assert all(len(image) == 5 for image in found[0])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_model_of_nan_is_an_error(folder, tmp_path):
    pixels_model(np.nan).save(tmp_path / "nan.keras")
    result = run("predict", tmp_path / "nan.keras", folder, "--scale", 1, "--json")
    assert result.exit_code == 2 and "The model gives NaN" in result.stderr


def test_a_name_that_is_no_unicode(folder, tmp_path):
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("any bytes are a name here")
    odd = shutil.copy(folder / "digit0.png", tmp_path / os.fsdecode(b"\xff.png"))
    images = [folder / "digit0.png", odd, folder / "digit1.png"]
    result = subprocess.run(
        [sys.executable, "-m", "larq_ext.cli", "predict", "digits_net.fda_digits", *images],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3 * 6


def test_what_was_found_before_an_interruption_is_printed(published, folder, monkeypatch):
    def stopped(self, paths, top):
        yield {"image": str(paths[0]), "predictions": []}
        raise KeyboardInterrupt

    monkeypatch.setattr("larq_ext._predict.Classifier.predict", stopped)
    result = run("predict", published.name, folder, "--json")
    assert result.exit_code == 130
    assert len(json.loads(result.stdout)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"caf\xe9\n", "cannot be read"), (b"[1, ", "cannot be read"), (None, "is a folder")],
)
def test_files_of_names_that_are_none(published, folder, tmp_path, content, message):
    path = tmp_path / "names.txt"
    path.write_bytes(content) if content else path.mkdir()
    result = run("predict", published.name, folder, "--classes", path)
    assert result.exit_code == 2
    assert str(path) in result.stderr and message in result.stderr


def test_bad_images_are_reported_and_the_rest_goes_on(published, folder, tmp_path, expected):
    broken, cut, empty = tmp_path / "broken.png", tmp_path / "cut.png", tmp_path / "empty"
    broken.write_text("no image")
    content = (folder / "digit0.png").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    empty.mkdir()
    images = [broken, folder / "digit1.png", cut, tmp_path / "gone.png", empty]
    result = run("predict", published.name, *images, "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [("error" in row, "predictions" in row) for row in rows] == [
        (True, False),
        (False, True),
        (True, False),
        (True, False),
        (True, False),
    ]
    assert rows[1]["predictions"][0]["class"] == str(expected[1].argmax())
    errors = result.stderr.splitlines()
    assert errors[0].startswith(f"Error: {broken}: cannot be read as an image")
    assert errors[1].startswith(f"Error: {cut}: cannot be read as an image")
    assert errors[2] == f"Error: {tmp_path / 'gone.png'}: there is no such file"
    assert errors[3].startswith(f"Error: {empty}: the folder has no images (.png")
    assert len(errors) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{alone}", "{image}"], "How are images prepared for .*Say --like NAME"),
        (["{model}", "{image}", "--like", "digit"], "no model 'digit'.*Data sets: cifar10, digits"),
        (["{model}", "{image}", "--like", "digits", "--std", "1"], "--like says all of it"),
        (["{model}", "{image}", "--mean", "a"], "--mean takes numbers with commas, received 'a'"),
        (["{model}", "{image}", "--mean", "1,2"], "`mean` is 1 or 1 numbers"),
        (["{model}", "{image}", "--like", "digits", "--classes", "gone"], "no file gone"),
        (["{model}", "{image}", "--like", "digits", "--classes", "{three}"], "3 names of classes"),
        (["gone.keras", "{image}", "--like", "digits"], "no file gone.keras"),
        (["gone.tflite", "{image}", "--like", "digits"], "no file gone.tflite"),
        (["digits_net.siman_tset", "{image}"], "no model .* Did you mean digits_net.siman_test"),
        (["{model}"], "Missing argument 'IMAGE...'"),
    ],
)
def test_wrong_use_is_one_clear_line(
    arguments, message, run_folder, published, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three").write_text("a\nb\nc\n")
    places = {
        "model": run_folder / "model.keras",
        "alone": shutil.copy(run_folder / "model.keras", tmp_path / "alone.keras"),
        "image": folder / "digit0.png",
        "three": tmp_path / "three",
    }
    result = run("predict", *(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(message, line), line


def test_an_untrained_model_says_so(folder):
    result = run("predict", "digits_net.ste_sign", folder / "digit0.png")
    assert result.exit_code == 0
    assert (
        "digits_net.ste_sign is not trained: its weights are random and mean nothing"
        in result.stderr
    )


# Four pixels: red, green / blue, white.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], "uint8")


def saved(tmp_path, image, name="image.png", **settings):
    image.save(tmp_path / name, **settings)
    return tmp_path / name


def test_modes_become_rgb(tmp_path):
    rgb = Image.fromarray(COLOURS)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(100)
    images = {"RGB": rgb, "RGBA": rgba, "P": rgb.quantize(4)}
    for mode, image in images.items():
        assert image.mode == mode
        np.testing.assert_array_equal(load_image(saved(tmp_path, image), 3), COLOURS, mode)
    cmyk = load_image(saved(tmp_path, rgb.resize((16, 16), 0).convert("CMYK"), "a.jpg"), 3)
    assert cmyk.shape == (16, 16, 3)
    np.testing.assert_allclose(cmyk[4, 4], COLOURS[0, 0], atol=40)
    grey = Image.fromarray(np.array([[0, 128], [255, 7]], "uint8"))
    np.testing.assert_array_equal(
        load_image(saved(tmp_path, grey), 3), np.repeat(np.asarray(grey)[..., None], 3, -1)
    )
    palette_with_transparency = saved(tmp_path, rgb.quantize(4), "p.png", transparency=0)
    np.testing.assert_array_equal(load_image(palette_with_transparency, 3), COLOURS)


def test_modes_become_grey(tmp_path):
    weights = np.array([0.299, 0.587, 0.114])
    found = load_image(saved(tmp_path, Image.fromarray(COLOURS)), 1)
    np.testing.assert_allclose(found[..., 0], COLOURS @ weights, atol=1)
    deep = np.array([[0, 257 * 100], [65535, 257 * 7 + 3]], "uint16")
    found = load_image(saved(tmp_path, Image.fromarray(deep)), 1)
    np.testing.assert_array_equal(found[..., 0], [[0, 100], [255, 7]])
    ones = Image.fromarray(np.array([[0, 255], [255, 0]], "uint8")).convert("1")
    np.testing.assert_array_equal(
        load_image(saved(tmp_path, ones), 1)[..., 0], [[0, 255], [255, 0]]
    )


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda x: x), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1))],
)
def test_a_rotated_photo_is_turned(tmp_path, orientation, upright, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(COLOURS), name, exif=exif)
    np.testing.assert_array_equal(load_image(path, 3), upright(COLOURS))


def test_an_image_too_large_to_be_true(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"cannot be read as an image: .*exceeds limit"):
        load_image(saved(tmp_path, Image.fromarray(COLOURS)), 3)


def test_without_pillow_the_error_is_what_to_type(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(COLOURS))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"type `pip install 'pillow>=10'`"):
        load_image(path, 3)


def test_list(published):
    table = run("list", "digits_net*").stdout.splitlines()
    assert table[0].split() == ["NAME", "ACCURACY", "SIZE", "WHAT"]
    (line,) = [line for line in table if line.startswith(published.name)]
    assert f"{published.accuracy.mean:.2%}" in line and "68 kB" in line
    assert published.description in line
    untrained = run("list", "resnet34*").stdout.splitlines()
    assert untrained[0].split() == ["NAME", "WHAT"]
    assert len(untrained) == 6


def test_list_for_scripts(published):
    assert run("list", "digits_net.s*", "--names").stdout.splitlines() == [
        "digits_net.siman",
        "digits_net.siman_digits",
        published.name,
        "digits_net.ste_sign",
        "digits_net.ste_sign_digits",
    ]
    trained = run("list", "--pretrained", "--names").stdout.splitlines()
    assert published.name in trained and "digits_net.siman" not in trained
    (entry,) = json.loads(run("list", published.name, "--json").stdout)
    assert entry == json.loads((published.folder / f"{published.name}.json").read_text())
    empty = run("list", "x*", "--pretrained")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "No pretrained model matches 'x*'" in empty.stderr
    assert json.loads(run("list", "x*", "--json").stdout) == []


@pytest.mark.slow
def test_the_installed_command(published, folder, own_home):
    """In a process of its own, with the entry in the local folder."""
    shutil.copytree(published.folder, own_home / "entries")
    command = pathlib.Path(sys.executable).with_name("larq-ext")
    arguments = ["predict", published.name, folder, "--json"]
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 5
    assert done.stderr == ""


def test_another_size_alone_is_no_preparation(published, folder):
    result = run("predict", published.name, folder, "--resize", 64)
    assert result.exit_code == 2
    assert "knows how its images are prepared: leave --resize out" in result.output


def test_a_trained_model_is_inspected_with_its_latent_weights(published):
    found = json.loads(run("inspect", published.name, "--samples", 1, "--json").stdout)
    assert len(found["layers"]) == 3
