"""`larq-ext pose` on pictures of every kind, good and bad."""

import io
import json
import struct

import numpy as np
import pytest
from click.testing import CliRunner
from spots import BOX, SPOTS, spot_picture

from larq_ext import cli
from larq_ext.pose import pictures
from larq_ext.pose.keypoints import KEYPOINTS

Image = pytest.importorskip("PIL.Image")

INDICES = [KEYPOINTS.index(name) for name in SPOTS]
PLACES = np.array(list(SPOTS.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--threshold", 0.5], "--threshold does nothing without -o"),
        (["--json", "--show-boxes"], "--show-boxes does nothing without -o"),
        (["--json", "--min-score", 0.5], "--min-score does nothing without --boxes"),
    ],
)
def test_options_that_would_do_nothing(options, message):
    result = run("model.keras", "image.jpg", *options)
    assert result.exit_code == 2 and message in result.stderr


def run(*arguments):
    result = CliRunner().invoke(cli.main, ["pose", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def places(record):
    return np.reshape(record["keypoints"], (17, 3))[INDICES, :2]


@pytest.fixture
def folder(tmp_path):
    """Two pictures with the same person; the second is turned by its EXIF data."""
    path = tmp_path / "photos"
    path.mkdir()
    picture = Image.fromarray(spot_picture())
    picture.save(path / "a1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path / "b2.jpg", exif=exif, quality=98)
    return path


@pytest.fixture
def boxes(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a1.png": [BOX], "b2.jpg": [BOX, [500, 5, 10, 10]]}))
    return path


def test_keypoints_and_pictures_of_a_folder(network_file, folder, boxes, tmp_path):
    output = tmp_path / "drawn"
    options = ["--decoding", "dark", "--no-flip", "--json"]
    result = run(network_file, folder, "--boxes", boxes, "-o", output, *options)
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)
    assert [record["file_name"] for record in records] == ["a1.png", "b2.jpg"]
    assert [record["image_id"] for record in records] == [1, 2]
    assert all(record["category_id"] == 1 and 0.9 < record["score"] < 1.1 for record in records)
    for record in records:
        np.testing.assert_allclose(places(record), PLACES, atol=0.5)
    note = f"Note: {folder / 'b2.jpg'}: box 2 of 2, [500, 5, 10, 10], is outside of the picture"
    assert result.stderr.splitlines() == [f"{note}: skipped."]
    assert sorted(path.name for path in output.iterdir()) == ["a1.png", "b2.png"]
    drawn = np.asarray(Image.open(output / "a1.png")).astype(int)
    changed = np.abs(drawn - spot_picture()).max(-1) > 20
    assert changed[np.round(PLACES[:, 1]).astype(int), np.round(PLACES[:, 0]).astype(int)].all()
    assert Image.open(output / "b2.png").size == (200, 240)  # upright


def test_one_picture_without_boxes(network_file, folder, tmp_path):
    output = tmp_path / "new" / "out.jpg"
    result = run(network_file, folder / "a1.png", "--whole-image", "-o", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"Wrote {output}: 1 image, persons found: 1.\n"
    assert Image.open(output).size == (200, 240)
    (record,) = json.loads(run(network_file, folder / "a1.png", "--json").stdout)
    assert np.abs(places(record) - PLACES).max() < 12.5


def test_bad_pictures_are_reported_and_the_rest_goes_on(network_file, folder, tmp_path):
    rgb = Image.open(folder / "a1.png")
    good = {
        "grey.png": rgb.convert("L"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "palette.gif": rgb.quantize(64),
        "alpha.png": rgb.convert("RGBA"),
        "one.png": rgb.resize((1, 1)),
        "line.png": rgb.resize((1, 300)),
    }
    for name, image in good.items():
        image.save(folder / name)
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "a1.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    output = tmp_path / "drawn"
    result = run(network_file, folder, tmp_path / "gone.png", "-o", output, "--json")
    assert result.exit_code == 1
    bad = [folder / "cut.png", folder / "empty.jpg", folder / "text.png", tmp_path / "gone.png"]
    errors = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in errors] == list(map(str, bad))
    assert all(line.startswith("Error: ") for line in errors)
    records = json.loads(result.stdout)
    assert {record["file_name"] for record in records} == {"a1.png", "b2.jpg", *good}
    assert np.isfinite([record["keypoints"] for record in records]).all()
    assert len(list(output.iterdir())) == len(good) + 2
    assert Image.open(output / "one.png").size == (1, 1)


def test_a_target_that_cannot_be_written(network_file, folder, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(network_file, folder, "-o", tmp_path / "file")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.count("Error: ") == 2


def test_a_picture_upside_down_with_annotations_of_what_is_stored(network_file, tmp_path):
    """Which has the same size either way; training and evaluation see what is stored."""
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(spot_picture()).save(tmp_path / "a1.png", exif=exif)
    content = {
        "images": [{"id": 5, "file_name": "a1.png", "width": 200, "height": 240}],
        "annotations": [{"image_id": 5, "bbox": BOX}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    options = ["--boxes", tmp_path / "coco.json", "--json", "--decoding", "dark"]
    result = run(network_file, tmp_path / "a1.png", *options)
    assert "it is not turned as its EXIF data say" in result.stderr
    (record,) = json.loads(result.stdout)
    np.testing.assert_allclose(places(record)[0], PLACES[0], atol=1.5)


@pytest.mark.parametrize("stored", [True, False], ids=["as stored", "upright"])
def test_annotations_of_a_turned_picture(network_file, folder, tmp_path, stored):
    width, height = (240, 200) if stored else (200, 240)
    x, y, across, down = BOX
    box = [y, 200 - x - across, down, across] if stored else BOX  # turned to the left
    content = {
        "images": [{"id": 5, "file_name": "b2.jpg", "width": width, "height": height}],
        "annotations": [{"image_id": 5, "bbox": box}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    output = tmp_path / "out.png"
    options = ["--boxes", tmp_path / "coco.json", "--json", "-o", output, "--decoding", "dark"]
    result = run(network_file, folder / "b2.jpg", *options)
    assert ("it is not turned as its EXIF data say" in result.stderr) == stored
    assert Image.open(output).size == (width, height)
    (record,) = json.loads(result.stdout)
    nose = [PLACES[0, 1], 199 - PLACES[0, 0]] if stored else PLACES[0]
    np.testing.assert_allclose(places(record)[0], nose, atol=1.5)


def test_annotations_of_another_size(network_file, folder, tmp_path):
    content = {
        "images": [{"id": 5, "file_name": "a1.png", "width": 20, "height": 24}],
        "annotations": [{"image_id": 5, "bbox": BOX}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    result = run(network_file, folder / "a1.png", "--boxes", tmp_path / "coco.json", "--json")
    assert "it has 200 x 240 pixels, its annotations say 20 x 24." in result.stderr


def test_two_pictures_of_one_number(network_file, folder, tmp_path):
    other = tmp_path / "c1.png"
    other.write_bytes((folder / "a1.png").read_bytes())
    result = run(network_file, folder / "a1.png", other, "--json")
    assert result.exit_code == 0
    assert f"Note: {folder / 'a1.png'} and {other} have the same image_id, 1." in result.stderr
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 1, "bbox": BOX}]))
    boxes = ["--boxes", tmp_path / "boxes.json", "--json"]
    result = run(network_file, folder / "a1.png", other, *boxes)
    assert result.exit_code == 2
    assert "the same image_id, 1, and so the same boxes: give" in result.stderr
    (tmp_path / "b").mkdir()
    again = tmp_path / "b" / "a1.png"
    again.write_bytes(other.read_bytes())
    (tmp_path / "boxes.json").write_text(json.dumps({"a1.png": [BOX]}))
    result = run(network_file, folder / "a1.png", again, *boxes)
    assert result.exit_code == 2 and "one after the other." in result.stderr
    (tmp_path / "boxes.json").write_text(json.dumps({"a1.png": [BOX], "c1.png": [BOX]}))
    assert run(network_file, folder / "a1.png", other, *boxes).exit_code == 0


def test_odd_exif_data_stop_nothing(network_file, folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    picture = Image.fromarray(spot_picture()).transpose(Image.Transpose.ROTATE_90)
    content = io.BytesIO()
    picture.save(content, "jpeg", exif=exif, quality=98)
    # XResolution as text, which it never is: Pillow cannot write such a block again.
    entry = struct.pack(">HHI", 0x011A, 5, 1)
    assert content.getvalue().count(entry) == 1
    odd = content.getvalue().replace(entry, struct.pack(">HHI", 0x011A, 2, 8))
    (folder / "c3.jpg").write_bytes(odd)
    result = run(network_file, folder, "--json", "--decoding", "dark")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(places(json.loads(result.stdout)[2]), PLACES, atol=12.5)


def test_interruption_loses_nothing_that_is_done(network_file, folder, tmp_path, monkeypatch):
    real = pictures.estimate

    def estimate(estimator, picture, *arguments, **options):
        if picture.name == "b2.jpg":
            raise KeyboardInterrupt
        return real(estimator, picture, *arguments, **options)

    monkeypatch.setattr(pictures, "estimate", estimate)
    result = run(network_file, folder, "-o", tmp_path / "drawn", "--json")
    assert result.exit_code == 130 and "Stopped." in result.stderr
    (record,) = json.loads(result.stdout)
    assert record["file_name"] == "a1.png"
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["a1.png"]


def test_a_picture_without_a_box(network_file, folder, tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    result = run(network_file, folder / "a1.png", "--boxes", boxes, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == []
    assert result.stderr == f"Note: {folder / 'a1.png'}: there is no box for it.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "{image}"], "-o OUT.png draws skeletons, --json prints keypoints"),
        (["{model}", "{image}", "--boxes", "x", "--whole-image", "--json"], "exclude each other"),
        (["{model}", "{image}", "--boxes", "gone.json", "--json"], "no file gone.json"),
        (["gone.keras", "{image}", "--json"], "no file gone.keras"),
        (["{model}", "{folder}", "-o", "out.png"], "2 pictures need a folder for the output"),
        (["{model}", "{image}", "-o", "out.pdf"], r"a folder or a picture (.png, "),
        (["{model}", "{folder}", "-o", "{folder}"], "a1.png would be written over a picture"),
        (["{model}", "{image}", "{other}", "-o", "out"], "would both become out/a1.png.png"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments, message, network_file, folder, tmp_path):
    places = {"model": network_file, "image": folder / "a1.png", "folder": folder}
    result = run(*(each.format(**places, other=tmp_path / "a1.png") for each in arguments))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line


def test_pictures_of_one_name_get_outputs_of_their_own(tmp_path):
    inputs = [tmp_path / name for name in ("a.jpg", "a.png", "b.png")]
    found = pictures.targets(inputs, tmp_path / "out")
    assert [path.name for path in found] == ["a.jpg.png", "a.png.png", "b.png"]


def test_the_command_is_listed_with_examples():
    assert "pose" in CliRunner().invoke(cli.main, ["--help"]).stdout
    assert "Examples:\n    larq-ext pose " in run("--help").stdout
