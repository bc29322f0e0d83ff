"""Folders of pictures: what a network sees of them, and what is said where they are not right."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_experiment

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD, load_image
from larq_ext_recipes import UsageError, datasets
from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes.datasets import DatasetError, imagenette, readable_errors
from larq_ext_recipes.datasets._dataset import are_repaired
from larq_ext_recipes.datasets._pictures import decode

image_module = pytest.importorskip("PIL.Image")

PLAIN = Augmentation(crop_padding=0, flip=False)


def smooth(seed, height=40, width=60):
    """A picture without edges, which all decoders and resizers agree on well."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return image_module.fromarray(small).resize((width, height), image_module.BICUBIC)


@pytest.fixture(scope="session")
def made_pictures(tmp_path_factory):
    """Two classes with five and four pictures to train, three and two to evaluate."""
    folder = tmp_path_factory.mktemp("pictures")
    counts = {("train", "b"): 4, ("train", "a"): 5, ("val", "a"): 3, ("val", "b"): 2}
    for (split, name), count in counts.items():
        (folder / split / name).mkdir(parents=True)
        for number in range(count):
            path = folder / split / name / f"{number}.jpg"
            smooth(len(split) + ord(name) + number).save(path, quality=95)
    return folder


@pytest.fixture
def pictures(made_pictures, tmp_path):
    return shutil.copytree(made_pictures, tmp_path / "pictures")


@pytest.fixture(scope="session")
def some_imagenette(real_data, tmp_path_factory):
    """The first six training and three test pictures of each class of Imagenette."""
    folder = tmp_path_factory.mktemp("imagenette")
    taken: dict[str, int] = {}
    with tarfile.open(real_data / "imagenette104" / "imagenette104.tar.xz") as archive:
        for member in archive:
            path = pathlib.PurePath(member.name)
            if not member.isfile() or len(path.parts) != 4:
                continue
            place = str(path.parent)
            taken[place] = taken.get(place, 0) + 1
            if taken[place] <= (6 if "train" in path.parts else 3):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    return folder


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 9])
def test_a_limit_is_spread_over_the_classes(made_pictures, limit):
    """Folders are sorted by class: the first pictures would all be of one."""
    data = datasets.load("folder", made_pictures, image_size=32)
    images, labels = collect(data.evaluation(100))
    chosen = np.arange(min(limit, 5)) * 5 // min(limit, 5)
    for batch_size in (2, 100):
        some, answers = collect(data.evaluation(batch_size, limit=limit))
        np.testing.assert_array_equal(answers, labels[chosen])
        np.testing.assert_array_equal(some, images[chosen])
    with pytest.raises(UsageError, match="limit must be 1 or more, received 0"):
        data.evaluation(100, limit=0)


def unnormalised(images):
    return images * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)


def test_finds_classes_and_pictures(made_pictures):
    dataset = datasets.load("folder", made_pictures, image_size=32)
    assert (dataset.train_size, dataset.test_size) == (9, 5)
    assert dataset.classes == ("a", "b")
    assert dataset.input_shape == (32, 32, 3)
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 4
    assert (dataset.name, dataset.evaluated) == ("folder", "test")


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_names_and_the_folder_above(pictures, name):
    (pictures / "val").rename(pictures / name)
    (pictures / "train" / "a" / "notes.txt").touch()
    (pictures / "train" / ".hidden").mkdir()
    dataset = datasets.load("folder", pictures.parent)
    assert (dataset.train_size, dataset.test_size) == (9, 5)
    assert dataset.input_shape == (224, 224, 3)


def test_every_picture_once_an_epoch_and_the_same_after_resuming(made_pictures):
    dataset = datasets.load("folder", made_pictures, image_size=16)
    data = dataset.training(4, 7, Augmentation(crop_padding=0, crop_scale=(0.08, 1.0)))
    assert data.steps_per_epoch == 3
    images, labels = collect(data.stream(0, 2))
    assert images.shape == (18, 16, 16, 3) and images.dtype == np.float32
    assert np.bincount(labels[:9]).tolist() == np.bincount(labels[9:]).tolist() == [5, 4]
    resumed = collect(data.stream(1, 2, 2))
    np.testing.assert_array_equal(resumed[0], images[17:])
    np.testing.assert_array_equal(resumed[1], labels[17:])
    parts = [dataset.training(4, 7, data._augmentation, shard=(i, 2)) for i in range(2)]
    # 9 pictures in batches of 4: the last one, of one picture, cannot be shared.
    assert [part.steps_per_epoch for part in parts] == [2, 2]
    steps = zip(*(part.batches(0).as_numpy_iterator() for part in parts), strict=True)
    together = np.concatenate([np.concatenate([part[0] for part in step]) for step in steps])
    np.testing.assert_array_equal(together, images[:8])


def test_evaluation_resizes_and_cuts_out_the_centre(made_pictures):
    """Against Pillow: shorter side to 256/224, then the centre."""
    dataset = datasets.load("folder", made_pictures, image_size=28)
    images, labels = collect(dataset.evaluation(2))
    assert labels.tolist() == [0, 0, 0, 1, 1]
    for image, file in zip(unnormalised(images), dataset.test.files, strict=True):
        picture = image_module.open(made_pictures / "val" / file.decode())
        resized = picture.resize((48, 32), image_module.BILINEAR)  # 40 x 60: the sides as 2 to 3
        expected = np.asarray(resized.crop((10, 2, 38, 30)), np.float32)
        assert np.abs(image - expected).mean() < 1.5
        assert np.abs(image - expected).max() < 10


def test_shifted_crops_come_from_around_the_centre(tmp_path):
    """Pictures whose colours are the coordinates show where each pixel comes from."""
    rows, columns = np.mgrid[:64, :64]
    picture = np.stack([2 * rows, 2 * columns, 0 * rows + 99], -1).astype(np.uint8)
    for split, count in (("train", 60), ("val", 1)):
        folder = tmp_path / split / "a"
        folder.mkdir(parents=True)
        for number in range(count):
            image_module.fromarray(picture).save(folder / f"{number}.png")
    dataset = datasets.load("folder", tmp_path, image_size=56)  # 64 is 256/224 of it
    images = np.round(unnormalised(collect(dataset.evaluation())[0]))
    np.testing.assert_array_equal(images[0], picture[4:60, 4:60])
    padded = np.pad(picture, [(2, 2), (2, 2), (0, 0)])  # 6 pixels off, where there are 4
    images = np.round(unnormalised(collect(dataset.training(20, 0, Augmentation(6)).batches(0))[0]))
    found = set()
    for image in images:
        (place,) = [
            (top, left, flip)
            for top in range(13)
            for left in range(13)
            for flip in (False, True)
            if np.array_equal(padded[top : top + 56, left : left + 56][:, :: 1 - 2 * flip], image)
        ]
        found.add(place)
    assert len({place[0] for place in found}) > 9 and len({place[2] for place in found}) == 2


def test_random_resized_crops_of_pictures(tmp_path):
    rows, columns = np.mgrid[:100, :80]
    picture = np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8)
    for split, count in (("train", 30), ("val", 1)):
        folder = tmp_path / split / "a"
        folder.mkdir(parents=True)
        for number in range(count):
            image_module.fromarray(picture).save(folder / f"{number}.png")
    augmentation = Augmentation(crop_padding=0, crop_scale=(0.08, 1.0))
    data = datasets.load("folder", tmp_path, image_size=20).training(30, 5, augmentation)
    ((images, _),) = data.batches(0)
    key = tf.stack([tf.constant(5, tf.int64), 0])
    draws = augmentation.draw(tf.random.split(key, 3)[1], 30)
    windows = augmentation.crop_windows(draws, np.full(30, 100), np.full(30, 80)).numpy()
    mirrored = draws["flip"].numpy()[:, 0] < 0.5
    for image, (top, left, height, width), flip in zip(
        unnormalised(images.numpy()), windows, mirrored, strict=True
    ):
        image = image[:, ::-1] if flip else image
        # Away from the edges, where there is nothing to average with.
        down = 2 * (top + (np.arange(20) + 0.5) * height / 20 - 0.5)
        right = 2 * (left + (np.arange(20) + 0.5) * width / 20 - 0.5)
        assert np.abs(image[2:-2, 5, 0] - down[2:-2]).max() < 1.1
        assert np.abs(image[5, 2:-2, 1] - right[2:-2]).max() < 1.1


def encoded(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG")],
)
def test_gray_and_cmyk(mode, form):
    picture = smooth(3).convert(mode)
    content = encoded(picture, format=form, **({"quality": 95} if form == "JPEG" else {}))
    expected = np.asarray(image_module.open(io.BytesIO(content)).convert("RGB"), np.float32)
    result = decode(tf.constant(content)).numpy()
    assert result.shape == (40, 60, 3)
    assert np.abs(result - expected).max() <= 4
    window = decode(tf.constant(content), lambda *size: tf.constant([3, 5, 20, 30])).numpy()
    assert np.abs(window - expected[3:23, 5:35]).max() <= 4


def test_hold_out_takes_the_last_of_each_class(made_pictures):
    dataset = datasets.load("folder", made_pictures, image_size=16)
    held = dataset.hold_out(4)
    assert (held.train_size, held.test_size, held.evaluated) == (5, 4, "holdout")
    assert [file.decode() for file in held.test.files] == [
        "a/3.jpg",
        "a/4.jpg",
        "b/2.jpg",
        "b/3.jpg",
    ]
    assert len(collect(held.evaluation())[0]) == 4
    assert held.fingerprint() != dataset.fingerprint()
    with pytest.raises(UsageError, match="holdout=8 cannot be taken from folder"):
        dataset.hold_out(8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(pictures, orientation):
    """As `larq-ext predict` turns them, in whole and in part."""
    exif = image_module.Exif()
    exif[0x0112] = orientation
    path = pictures / "train" / "a" / "0.png"
    smooth(1, 30, 50).save(path, exif=exif)
    dataset = datasets.load("folder", pictures, image_size=16)
    content = tf.constant(path.read_bytes())
    upright = load_image(path, 3)
    np.testing.assert_array_equal(dataset._decode(content), upright)
    part = dataset._decode(content, lambda height, width: tf.constant([2, 3, 20, 10]))
    np.testing.assert_array_equal(part, upright[2:22, 3:13])
    stored = dataclasses.replace(dataset, upright=False)._decode(content)
    np.testing.assert_array_equal(stored, load_image(path, 3, upright=False))
    smooth(1, 30, 50).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    photo = dataset._decode(tf.constant(path.with_suffix(".jpg").read_bytes())).numpy()
    assert np.abs(photo - upright.astype(int)).mean() < 5


def test_a_very_long_picture_takes_no_gigabytes(pictures):
    image_module.new("RGB", (20_000, 1), (9, 99, 199)).save(pictures / "val" / "a" / "1.png")
    dataset = datasets.load("folder", pictures, image_size=32)
    images, _ = collect(dataset.evaluation())
    np.testing.assert_allclose(unnormalised(images[2]), [[[9, 99, 199]] * 32] * 32, atol=1e-3)


def test_damaged_pictures_can_be_replaced_in_the_middle_of_a_run(pictures, tmp_path):
    load = lambda: datasets.load("folder", pictures, image_size=16)  # noqa: E731
    before = load().fingerprint()
    smooth(1).save(pictures / "train" / "a" / "1.jpg", quality=94)
    repaired = load().fingerprint()
    first, second = (pictures / "train" / name / "0.jpg" for name in "ab")
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert load().fingerprint() != repaired, "swapped"
    for path in pictures.rglob("*.jpg"):
        smooth(1, 20, 30).save(path, quality=50)
    smaller = load().fingerprint()
    assert are_repaired(before, repaired) and not are_repaired(before, before)
    assert not are_repaired(before, smaller), "another edition with the same names"
    assert not are_repaired("ab12", "ab13") and not are_repaired(before, "0" + repaired)

    experiment = tiny_experiment(tmp_path / "run")
    folder = RunFolder(experiment)
    folder.start(experiment, before, resume=False, overwrite=False)
    folder.record()
    with pytest.warns(UserWarning, match="which is right where damaged ones were replaced"):
        RunFolder(experiment).start(experiment, repaired, resume=True, overwrite=False)
    with pytest.raises(UsageError, match="the images or labels are not the same"):
        RunFolder(experiment).start(experiment, smaller, resume=True, overwrite=False)


def test_fingerprint_is_of_names_and_sizes(pictures, tmp_path):
    load = lambda: datasets.load("folder", pictures, image_size=16)  # noqa: E731
    before = load().fingerprint()
    assert before == load().fingerprint()
    shutil.move(pictures, tmp_path / "moved")
    assert datasets.load("folder", tmp_path / "moved", image_size=16).fingerprint() == before
    shutil.move(tmp_path / "moved", pictures)
    (pictures / "train" / "a" / "0.jpg").rename(pictures / "train" / "a" / "00.jpg")
    renamed = load().fingerprint()
    smooth(1).save(pictures / "train" / "a" / "1.jpg", quality=20)
    assert len({before, renamed, load().fingerprint()}) == 3


# What is said where something is missing


def refuses(folder, message, name="folder"):
    with pytest.raises(DatasetError, match=message):
        datasets.load(name, folder)


def test_no_folder(tmp_path):
    refuses(None, "folder needs a folder: give data_dir=FOLDER")
    refuses(None, r"imagenette needs a folder.*imagenette2-160\.tgz", "imagenette")
    refuses(None, r"imagenet needs a folder.*image-net\.org", "imagenet")
    refuses(tmp_path / "nowhere", "No pictures in .*nowhere.*found no such folder")
    refuses(tmp_path, r"looked for train/<class>/\*\.jpg and val/<class>/\*\.jpg.*an empty folder")
    (tmp_path / "a.txt").touch()
    refuses(tmp_path, r"found a\.txt")


@pytest.mark.parametrize(
    ("archive", "command"),
    [
        ("imagenette2-160.tgz", "tar -xzf {0}/imagenette2-160.tgz -C {0}"),
        ("imagenette104.tar.xz", "tar -xJf {0}/imagenette104.tar.xz -C {0}"),
        ("all.tar", "tar -xf {0}/all.tar -C {0}"),
        ("all.zip", "unzip -q {0}/all.zip -d {0}"),
    ],
)
def test_archive_that_is_not_extracted(tmp_path, archive, command):
    (tmp_path / archive).write_bytes(b"x")
    for place in (tmp_path, tmp_path / archive):
        refuses(place, f"extract it with `{command.format(tmp_path)}`", "imagenette")


def test_half_extracted(pictures):
    shutil.move(pictures / "val", pictures / "later")
    refuses(pictures, "has no folder val or validation or test: extract the archive again")
    (pictures / "val.tar").write_bytes(b"x")
    refuses(pictures, r"extract the archive with `tar -xf .*/val\.tar -C")
    (pictures / "val").mkdir()
    refuses(pictures, "val has no class folders; found an empty folder")
    (pictures / "val" / "n1.tar").touch()
    refuses(pictures, r"archives of the classes.*for f in \*\.tar; do mkdir")
    (pictures / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    refuses(pictures, "not sorted by class: move each into a folder .*valprep")


def test_classes_that_are_not_in_both(pictures):
    shutil.move(pictures / "val" / "b", pictures / "b")
    refuses(pictures, "val has no folder for b, which .*train has")
    shutil.move(pictures / "train" / "b", pictures / "train-b")
    shutil.move(pictures / "b", pictures / "val" / "b")
    refuses(pictures, "train has no folder for b, which .*val has")


def test_class_without_pictures(pictures):
    for file in (pictures / "train" / "b").iterdir():
        file.rename(file.with_suffix(".txt"))
    refuses(pictures, "b has no pictures .*extract the archive again")


def test_wrong_number_of_classes(pictures):
    refuses(pictures, "train has 2 class folders, and imagenet has 1000 classes", "imagenet")
    for split in ("train", "val"):
        for number in range(997):
            (pictures / split / f"c{number}").symlink_to(pictures / split / "a")
    refuses(pictures, "train has 999 class folders", "imagenet")
    for split in ("train", "val"):
        (pictures / split / "d").symlink_to(pictures / split / "a")
    assert len(datasets.load("imagenet", pictures).classes) == 1000


def test_wrong_classes(pictures):
    refuses(pictures, "lacks n01440764, n02102040, .* and 5 more and has a, b", "imagenette")


def test_empty_files(pictures):
    (pictures / "train" / "a" / "2.jpg").write_bytes(b"")
    refuses(pictures, r"1 files in .*train are empty \(a/2\.jpg\): extract the archive again")


def test_last_file_cut_off(pictures):
    file = pictures / "val" / "b" / "1.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    refuses(pictures, r"val/b/1\.jpg is damaged or no picture \(\d+ bytes\)")


@pytest.mark.parametrize("damage", ["cut off", "no picture", "middle"])
def test_damaged_file_is_named_when_it_is_read(pictures, damage):
    file = pictures / "train" / "a" / "3.jpg"
    content = file.read_bytes()
    tables = content.index(b"\xff\xc4")  # of the Huffman codes; the ends of the file are right
    damaged = {
        "cut off": content[:-200],
        "no picture": b"<html>not found</html>",
        "middle": content[: tables + 4] + b"\xff" * 40 + content[tables + 44 :],
    }
    file.write_bytes(damaged[damage])
    (pictures / "train" / "b" / "last.jpg").write_bytes(content)  # so the damaged one is not last
    dataset = datasets.load("folder", pictures, image_size=16)
    batches = dataset.training(4, 0, PLAIN).batches(0)
    with (
        pytest.raises(DatasetError, match=r"^\S*/train/a/3\.jpg is damaged or no picture"),
        readable_errors(dataset, training=True),
    ):
        collect(batches)


def test_what_is_not_read_is_not_searched_for_damage(pictures):
    for path in (pictures / "train" / "a" / "3.jpg", pictures / "val" / "b" / "1.jpg"):
        content = path.read_bytes()
        tables = content.index(b"\xff\xc4")
        path.write_bytes(content[: tables + 4] + b"\xff" * 40 + content[tables + 44 :])
    for split in ("train", "val"):  # not the damaged ones
        (pictures / split / "b" / "last.jpg").write_bytes((pictures / "train/a/1.jpg").read_bytes())
    dataset = datasets.load("folder", pictures, image_size=16)
    with (
        pytest.raises(DatasetError, match=r"val/b/1\.jpg is damaged"),
        readable_errors(dataset, training=False),
    ):
        collect(dataset.evaluation(2))


def test_other_errors_stay_as_they_are(pictures):
    dataset = datasets.load("folder", pictures)
    with pytest.raises(tf.errors.InvalidArgumentError), readable_errors(dataset, training=True):
        tf.reshape(tf.zeros([2]), [3])


def test_bytes_after_the_end_of_a_picture_are_no_damage(pictures):
    file = pictures / "train" / "a" / "3.jpg"
    file.write_bytes(file.read_bytes() + b"\0" * 50)
    dataset = datasets.load("folder", pictures, image_size=16)
    assert len(collect(dataset.training(4, 0, PLAIN).batches(0))[0]) == 9


def test_image_size(made_pictures):
    with pytest.raises(UsageError, match="image_size must be 1 or more, received 0"):
        datasets.load("folder", made_pictures, image_size=0)
    with pytest.raises(UsageError, match="the images of digits have 8 x 8 pixels: leave it out"):
        datasets.load("digits", image_size=16)
    assert datasets.load("digits", image_size=8).train_size == 1437


def test_imagenette(some_imagenette):
    dataset = datasets.load("imagenette", some_imagenette, image_size=96)
    assert (dataset.train_size, dataset.test_size) == (60, 30)
    assert dataset.classes[0] == "tench" and len(dataset.classes) == len(imagenette.CLASSES)
    images, labels = collect(dataset.evaluation(7))
    assert images.shape == (30, 96, 96, 3)
    assert labels.tolist() == np.repeat(np.arange(10), 3).tolist()
    # Pictures normalised with the right statistics in the right order are about standard normal.
    assert abs(images.mean()) < 0.3 and 0.8 < images.std() < 1.4
    augmentation = Augmentation(crop_padding=0, crop_scale=(0.08, 1.25), color_jitter=0.4)
    images, labels = collect(dataset.training(16, 0, augmentation).batches(0))
    assert np.bincount(labels).tolist() == [6] * 10
    assert np.isfinite(images).all()
