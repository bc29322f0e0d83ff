"""Persons from a folder in COCO's layout to crops and coordinates."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import math
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from stick_figures import HEIGHT, WIDTH, annotation_file, make_coco

from larq_ext.pose import geometry
from larq_ext.pose.keypoints import FLIPPED
from larq_ext.pose.scoring import evaluate, record
from larq_ext_recipes import UsageError
from larq_ext_recipes._pose_views import (
    PoseAugmentation,
    View,
    cut_out,
    from_crop,
    half_body,
    mirrored_view,
    to_crop,
)
from larq_ext_recipes.datasets import DatasetError, readable_errors
from larq_ext_recipes.datasets.coco_keypoints import load, read_split

SIZE = (96, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def data(folder):
    return load(folder, SIZE)


def changed(folder, target, change):
    """A copy of the folder with other annotations to train on."""
    shutil.copytree(folder, target)
    content = json.loads(annotation_file(target).read_text())
    change(content)
    annotation_file(target).write_text(json.dumps(content))
    return target


def test_persons_of_both_parts(data):
    assert (data.train_size, data.test_size) == (16, 8)
    assert data.input_shape == (96, 64, 3) and data.evaluated == "test"
    images, labels = next(iter(data.evaluation()))
    assert images.shape == (8, 96, 64, 3) and labels.shape == (8, 17, 3)
    assert float(tf.reduce_sum(labels[..., 2])) == 8 * 16


def test_who_is_left_out(folder, tmp_path):
    def change(content):
        for field, value, person in (
            ("iscrowd", 1, 0),
            ("area", 0, 1),
            ("category_id", 2, 2),
            ("keypoints", [0] * 51, 3),
            ("bbox", [WIDTH + 5, 3, 20, 20], 4),
        ):
            content["annotations"][person][field] = value
        content["annotations"][5]["bbox"][0] = -30  # of which a part is left

    data = load(changed(folder, tmp_path / "coco", change), SIZE)
    assert data.train_size == 16 - 5
    x, _, width, _ = data.train.persons.boxes[0]
    assert x == 0 and width > 5
    assert len(data.train.image_ids) == 12 - 4  # of these pictures there is no person left


def test_a_small_copy_with_archives(folder, data, tmp_path):
    for part, name in (("train2017", "train"), ("val2017", "eval")):
        content = annotation_file(folder, part).read_bytes()
        (tmp_path / f"person_keypoints_{name}.json.gz").write_bytes(gzip.compress(content))
        with zipfile.ZipFile(tmp_path / f"{name}_images.zip", "w") as archive:
            for file in sorted((folder / part).iterdir()):
                archive.write(file, f"{name}/{file.name}")
    packed = load(tmp_path, SIZE)
    assert packed.fingerprint() == data.fingerprint() != load(folder, (64, 64)).fingerprint()
    for one, other in zip(packed.evaluation(3), data.evaluation(3), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.parametrize(
    ("box", "rotation", "expected"),
    [
        ((100, 50, 80, 200), 0, [[1.024, 0, -47.36], [0, 1.024, -25.6]]),
        ((100, 50, 80, 200), 30, [[0.88681, 0.512, -104.9534], [-0.512, 0.88681, 66.6585]]),
        (
            (10, 20, 300, 100),
            -45,
            [[0.362039, -0.362039, 63.41652], [0.362039, 0.362039, 44.73111]],
        ),
    ],
)
def test_maps_of_the_official_construction(box, rotation, expected):
    centre, scale = geometry.box_to_view(box, 0.75)
    view = View(tf.constant(centre, tf.float32), 200 * scale[0], math.radians(rotation))
    points = np.random.default_rng(0).uniform(0, 300, (17, 3)).astype(np.float32)
    found = to_crop(points, view, (256, 192), 640.0).numpy()
    wanted = points[:, :2] @ np.array(expected)[:, :2].T + np.array(expected)[:, 2]
    np.testing.assert_allclose(found[:, :2], wanted, atol=2e-3)
    back = from_crop(view, (256, 192), 640.0).numpy()
    np.testing.assert_allclose(wanted @ back[:, :2].T + back[:, 2], points[:, :2], atol=5e-3)


@pytest.mark.parametrize(
    ("rotation", "mirrored"), [(0, False), (35, False), (-50, True), (0, True)]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_crops_are_those_of_the_estimator(folder, data, rotation, mirrored, form):
    """Every crop, whatever part of the picture was decoded for it."""
    source = Image.open(folder / "val2017" / data.test.pictures.names[2])
    stream = io.BytesIO()
    source.save(stream, form, quality=95)
    picture = np.asarray(Image.open(stream).convert("RGB"))
    boxes = [(60, 40, 30, 50), (-20, 70, 60, 60), (0, 0, WIDTH, HEIGHT), (400, 10, 20, 30)]
    for box in boxes:
        centre, scale = geometry.box_to_view(box, SIZE[1] / SIZE[0])
        view = View(
            tf.constant(centre, tf.float32),
            tf.constant(200 * scale[0], tf.float32),
            tf.constant(math.radians(rotation)),
            tf.constant(mirrored),
        )
        view = mirrored_view(view, float(WIDTH))
        found = cut_out(stream.getvalue(), from_crop(view, SIZE, float(WIDTH)), SIZE).numpy()
        seen = picture[:, ::-1] if mirrored else picture
        matrix = geometry.affine(view.centre.numpy().astype(float), scale, rotation, SIZE)
        expected = geometry.crop(seen, matrix, SIZE).astype(int)
        assert abs(found - expected).max() <= 1
        assert abs(found - expected).mean() < 1e-3


def test_labels_of_a_mirrored_view_change_sides(data):
    points = tf.constant(data.test.persons.keypoints[0])
    view = View(tf.constant([50.0, 60.0]), tf.constant(64.0), mirrored=tf.constant(True))
    found = to_crop(points, view, (96, 64), float(WIDTH)).numpy()
    wanted = points.numpy()[FLIPPED]
    wanted[:, 0] = WIDTH - 1 - wanted[:, 0] - 50 + 32
    wanted[:, 1] += -60 + 48
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def official_half_body(keypoints, draw, aspect):
    """The official code's, with its normal draw as an argument."""
    upper = [p[:2] for i, p in enumerate(keypoints) if p[2] > 0 and i < 11]
    lower = [p[:2] for i, p in enumerate(keypoints) if p[2] > 0 and i >= 11]
    takes_upper = draw < 0.5 and len(upper) > 2
    chosen = upper if takes_upper or len(lower) <= 2 else lower
    if len(chosen) < 2 or len(upper) + len(lower) <= 8:
        return None
    chosen = np.array(chosen)
    width, height = np.ptp(chosen, axis=0)
    return chosen.mean(0), 1.5 * max(width, aspect * height)


def test_half_body_is_the_official_one():
    generator = np.random.default_rng(3)
    kinds = set()
    for share in np.linspace(0.1, 1, 25):
        keypoints = generator.uniform(0, 100, (17, 3)).astype(np.float32)
        keypoints[:, 2] = generator.uniform(size=17) < share
        if share > 0.7 and len(kinds) % 2:
            keypoints[11:, 2] = 0
        draw = np.float32(generator.normal())
        expected = official_half_body(keypoints, draw, 0.75)
        fits, centre, width = half_body(tf.constant(keypoints), draw, 0.75)
        assert bool(fits) == (expected is not None)
        kinds.add((bool(fits), bool(draw < 0.5)))
        if expected is not None:
            np.testing.assert_allclose(centre, expected[0], rtol=1e-5)
            assert float(width) == pytest.approx(expected[1], rel=1e-5)
    assert len(kinds) == 4


@pytest.mark.parametrize(
    ("normal", "uniform", "width", "degrees", "mirrored"),
    [
        ((0, 0.5, 0.5), (1, 0, 1), 100 * 1.175, 22.5, False),
        ((0, 3, 5), (1, 0.59, 0.4), 100 * 1.35, 90, True),  # both are clipped
        ((0, -3, 5), (1, 0.61, 0.6), 100 * 0.65, 0, False),  # not rotated
    ],
)
def test_scale_rotation_and_flip(normal, uniform, width, degrees, mirrored):
    draws = {"normal": tf.constant(normal, tf.float32), "uniform": tf.constant(uniform, tf.float32)}
    view = View(tf.constant([50.0, 60.0]), tf.constant(100.0))
    found = PoseAugmentation().change(view, tf.ones((17, 3)), draws, 0.75)
    assert float(found.width) == pytest.approx(width)
    assert math.degrees(found.rotation) == pytest.approx(degrees, abs=1e-4)
    assert bool(found.mirrored) == mirrored
    same = PoseAugmentation(0, 0, 0, flip=False).change(view, tf.ones((17, 3)), draws, 0.75)
    assert (float(same.width), float(same.rotation), bool(same.mirrored)) == (100, 0, False)


def test_order_and_changes_depend_on_seed_epoch_and_position_alone(data):
    training = data.training(5, 7, PoseAugmentation())
    assert (training.steps_per_epoch, training.size) == (4, 16)
    whole = [(i.numpy(), k.numpy()) for i, k in training.stream(0, 2)]
    resumed = [(i.numpy(), k.numpy()) for i, k in training.stream(0, 2, start_step=3)]
    assert len(whole) == 8 and len(resumed) == 5
    for one, other in zip(whole[3:], resumed, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(whole[0][1], whole[4][1])  # another epoch


def test_holdout_and_limit_are_pictures(data):
    held = data.hold_out(3)  # the last three, of which every third has two persons
    assert (held.train_size, held.test_size, held.evaluated) == (12, 4, "holdout")
    assert set(held.test.image_ids) == {10, 11, 12}
    assert {a["image_id"] for a in held.test.annotations()["annotations"]} == {10, 11, 12}
    assert data.limit(2).train_size == 2
    for count in (0, 12):
        with pytest.raises(UsageError, match=rf"limit={count} pictures .* between 1 and 11"):
            data.limit(count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][3].pop("width"), "image 3 lacks width"),
        (lambda c: c["annotations"][2].pop("bbox"), "annotation 2 lacks bbox"),
        (
            lambda c: c["annotations"][2]["keypoints"].pop(),
            "annotation 2: keypoints must be a list of 51 finite numbers",
        ),
        (
            lambda c: c["annotations"][2]["keypoints"].__setitem__(3, math.nan),
            "annotation 2: keypoints must be a list of 51 finite numbers",
        ),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), "annotation 2: bbox must be a list"),
        (lambda c: c["annotations"][2].update(bbox="1234"), "bbox must be .*, received '1234'"),
        (lambda c: c["annotations"][2].update(area=None), "annotation 2: area must be a finite"),
        (lambda c: c["annotations"][2].update(area=math.inf), "area must be a finite .* inf"),
        (lambda c: c["annotations"][2].update(image_id=[1]), "image_id must be an integer"),
        (lambda c: c["annotations"][2].update(num_keypoints="3"), "num_keypoints must be an integ"),
        (lambda c: c["annotations"][2].pop("id"), "annotation 2 lacks id"),
        (lambda c: c["annotations"].append(None), "annotation 16 lacks id"),
        (lambda c: c["images"][1].update(id="1"), "image 1: id must be an integer, received '1'"),
        (lambda c: c["images"][1].update(width="9"), "image 1: width must be a number above 0"),
        (lambda c: c["images"][1].update(height=0), "image 1: height must be a number above 0"),
        (lambda c: c["images"][1].update(file_name=7), "image 1: file_name must be a text"),
        (lambda c: c.update(images={}), "no lists `images` and `annotations`"),
        (lambda c: c["annotations"][2].update(image_id=99), "in the picture 99, which is not"),
        (lambda c: c["annotations"].clear(), "no person with a labelled keypoint"),
        (lambda c: c.pop("images"), "no lists `images` and `annotations`"),
        (
            lambda c: c["images"][0].update(file_name="a.jpg"),
            "1 of 12 pictures are missing .* a.jpg",
        ),
        (lambda c: c["images"][0].update(width=640), "160 x 120 pixels, and .* says 640 x 120"),
    ],
)
def test_bad_annotations(folder, tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        load(changed(folder, tmp_path / "coco", change), SIZE)


def test_each_picture_has_the_size_of_its_annotations(folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "coco")
    file = target / "val2017" / "000000000003.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    data = load(target, SIZE)
    message = f"{file} has {HEIGHT} x {WIDTH} pixels, and .* says {WIDTH} x {HEIGHT}: is it stored"
    with pytest.raises(DatasetError, match=message), readable_errors(data, training=False):
        list(data.evaluation())
    with pytest.raises(DatasetError, match=message):
        list(data.test.decoded(range(6)))


@pytest.mark.parametrize("archive", [False, True])
def test_pictures_in_folders_of_their_own(folder, tmp_path, archive):
    target = shutil.copytree(folder, tmp_path / "coco")
    place = target / "train2017"
    (place / "camera").mkdir()
    (place / "000000000002.jpg").rename(place / "camera" / "2.jpg")
    content = json.loads(annotation_file(target).read_text())
    content["images"][1]["file_name"] = "camera/2.jpg"
    annotation_file(target).write_text(json.dumps(content))
    if archive:
        shutil.make_archive(target / "train2017_images", "zip", target, "train2017")
        shutil.rmtree(place)
    split, expected = load(target, SIZE).train, load(folder, SIZE).train
    for found, wanted in zip(split.decoded([0, 1]), expected.decoded([0, 1]), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_scoring_needs_is_filled_in(folder, tmp_path):
    def change(content):
        for person in content["annotations"]:
            del person["num_keypoints"], person["category_id"], person["iscrowd"]

    data = load(changed(folder, tmp_path / "coco", change), SIZE)
    people = data.train.annotations()["annotations"]
    assert {(person["num_keypoints"], person["category_id"]) for person in people} == {(16, 1)}
    assert evaluate(data.train.annotations(), [])["AP"] == 0


def encrypted(content):
    """A bit in the headers of all entries."""
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(start)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(start, place + 1)
    return content


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        (zipfile.ZIP_STORED, lambda c: c[:300] + bytes(50) + c[350:], "Bad CRC-32"),
        (zipfile.ZIP_DEFLATED, lambda c: c[:90] + b"\xff" * 60 + c[150:], "decompressing|CRC"),
        (zipfile.ZIP_STORED, encrypted, "encrypted"),
        (zipfile.ZIP_STORED, lambda c: c[:200], "not a zip file"),
    ],
)
def test_a_damaged_archive_is_named(folder, tmp_path, kind, damage, message):
    content = json.loads(annotation_file(folder, "val2017").read_text())
    (tmp_path / "person_keypoints_eval.json").write_text(json.dumps(content))
    place = tmp_path / "eval_images.zip"
    with zipfile.ZipFile(place, "w", kind) as archive:
        for file in sorted((folder / "val2017").iterdir()):
            archive.write(file, f"eval/{file.name}")
    place.write_bytes(damage(bytearray(place.read_bytes())))
    with pytest.raises(DatasetError, match=rf"eval_images\.zip cannot be read: .*({message})"):
        read_split(tmp_path, "test")


def test_a_damaged_picture_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "coco")
    file = tmp_path / "coco" / "val2017" / "000000000004.jpg"
    file.write_bytes(file.read_bytes()[:300])
    data = load(tmp_path / "coco", SIZE)
    damaged = pytest.raises(DatasetError, match=r"000000000004\.jpg is damaged")
    with damaged, readable_errors(data, training=False):
        list(data.evaluation())


def test_folders_without_the_data(folder, tmp_path):
    with pytest.raises(DatasetError, match="needs a folder: give data_dir=FOLDER"):
        load()
    with pytest.raises(
        DatasetError, match=r"No person_keypoints_train2017.json in .* an empty folder"
    ):
        load(tmp_path)
    with pytest.raises(UsageError, match="each a multiple of 32, such as 256,192; received 100,64"):
        load(folder, (100, 64))
    (tmp_path / "annotations").mkdir()
    shutil.copy(annotation_file(folder), annotation_file(tmp_path))
    with pytest.raises(DatasetError, match="pictures of train2017 are missing"):
        load(tmp_path)


def test_the_real_persons(real_data):
    """As many as the data's own description says; perfect detections have an AP of 1."""
    data = load(real_data / "coco_person", (128, 96))
    assert (data.train_size, data.test_size) == (5365, 1762)
    assert (len(data.train.image_ids), len(data.test.image_ids)) == (1963, 634)
    labels = next(iter(data.evaluation(16)))[1]
    assert 0 < float(tf.reduce_max(labels[..., 0])) < 130
    persons = data.test.persons
    ids = data.test.image_ids[persons.images]
    # Without a label there is no wrong place, but the tool decides by all keypoints how large.
    keypoints = persons.keypoints.astype(float)
    middle = np.nanmean(np.where(keypoints[..., 2:] > 0, keypoints, np.nan), 1, keepdims=True)
    keypoints = np.where(keypoints[..., 2:] > 0, keypoints, middle)
    records = [record(int(i), each, 1.0) for i, each in zip(ids, keypoints, strict=True)]
    numbers = evaluate(data.test.annotations(), records)
    assert numbers["AP"] == numbers["AR"] == pytest.approx(1.0)
    assert dataclasses.replace(data, train=data.train.part(slice(9))).train_size < 60
