"""COCO's person keypoints: crops of single persons, each with 17 keypoints.

A folder in COCO's own layout:

```
annotations/person_keypoints_train2017.json     (or .json.gz)
annotations/person_keypoints_val2017.json
train2017/000000000009.jpg ...
val2017/000000000139.jpg ...
```

A smaller copy may be named `train` and `val` or `eval`, have its annotations next to the folders,
and its pictures in archives `train_images.zip`, `eval_images.zip`, which are read into memory.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Row, Steps
from larq_ext_recipes._pose_views import (
    PoseAugmentation,
    View,
    cut_out,
    from_crop,
    mirrored_view,
    to_crop,
)
from larq_ext_recipes.datasets._coco_files import (
    Pictures,
    find_part,
    open_pictures,
    read_annotations,
)
from larq_ext_recipes.datasets._dataset import (
    Dataset,
    DatasetError,
    fingerprint_of_pictures,
    readable_errors,
)
from larq_ext_recipes.datasets._persons import Persons, check_entries, read_persons
from larq_ext_recipes.datasets._pictures import (
    checked,
    decode,
    decode_all,
    decode_or_name,
    read_batches,
    slowly,
)

INPUT_SIZE = (256, 192)


@dataclasses.dataclass(frozen=True)
class PersonSplit:
    """Persons to train or to evaluate on.

    # Arguments
        file: Their annotations, all of them.
        image_ids: COCO's numbers of the pictures, int64.
        sizes: Heights and widths of the pictures in pixels, float32 `(pictures, 2)`.
        pictures: The pictures.
        persons: The persons; their numbers of pictures count those above.
    """

    file: pathlib.Path
    image_ids: np.ndarray
    sizes: np.ndarray
    pictures: Pictures
    persons: Persons

    def __len__(self) -> int:
        return len(self.persons)

    def part(self, chosen: slice | np.ndarray) -> PersonSplit:
        """The persons in some of the pictures, whose numbers are sorted."""
        numbers = np.arange(len(self.image_ids))[chosen]
        return PersonSplit(
            self.file,
            self.image_ids[numbers],
            self.sizes[numbers],
            self.pictures.part(numbers),
            self.persons.part(numbers),
        )

    def annotations(self) -> dict[str, Any]:
        """The annotations of these pictures in COCO's form, with all persons."""
        content = read_annotations(self.file)
        images, people = check_entries(content, str(self.file))
        kept = set(self.image_ids.tolist())
        return {
            **content,
            "images": [image for number, image in images.items() if number in kept],
            "annotations": [person for person in people if person["image_id"] in kept],
        }

    def decoded(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Pixels of pictures, uint8 `(height, width, 3)`, not turned as EXIF may say.

        So are the pictures that the annotations are of.

        # Raises
            DatasetError: if one is damaged, or has another size than the annotations say.
        """

        def read(number: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            return decode(self.content(number, size))

        numbers = np.array(numbers, np.int64)
        rows = tf.data.Dataset.from_tensor_slices((numbers, self.sizes[numbers]))
        pictures = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(8)
        with readable_errors(self, training=False):
            yield from pictures.as_numpy_iterator()

    def content(self, number: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """An encoded picture, in a graph.

        Resized pictures with annotations of the old size, or pictures that are stored lying with
        annotations of what one sees, would train without a complaint: the size is checked.

        # Arguments
            number: That of the picture.
            size: Its height and width, as `sizes` has them.
        """
        name = self.pictures.name(number)
        content = checked(self.pictures.fetch(number), name)

        def found() -> tf.Tensor:
            return tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.float32)

        found_size = tf.cond(tf.io.is_jpeg(content), found, lambda: tf.zeros([2]))
        return tf.cond(
            tf.reduce_all(found_size == size),
            lambda: content,
            lambda: slowly(self._of_size, content, name, size),
        )

    def check_size(self, number: int) -> None:
        """Decodes a picture and looks at its size.

        # Raises
            DatasetError: if it is damaged, or has another size than the annotations say.
        """
        content, name = self.pictures.fetch(number).numpy(), self.pictures.name(number).numpy()
        decode_or_name(content, name)
        self._of_size(content, name, self.sizes[number])

    def _of_size(self, content: bytes, name: bytes, size: np.ndarray) -> bytes:
        from PIL import Image

        try:
            found, (height, width) = Image.open(io.BytesIO(content)).size, size.tolist()
        except OSError:
            decode_or_name(content, name)
            raise
        if found == (width, height):
            return content
        advice = "pictures and annotations must have the same size."
        if found == (height, width):
            advice = "is it stored turned, with an orientation in its EXIF data? Store it upright."
        raise DatasetError(
            f"{name.decode(errors='replace')} has {found[0]} x {found[1]} pixels, and {self.file} "
            f"says {width:g} x {height:g}: {advice}"
        )

    def find_damage(self, training: bool) -> None:
        """As `Dataset.find_damage`; it is one part only, whichever."""
        decode_all(
            functools.partial(self.check_size, number) for number in range(len(self.image_ids))
        )

    def tensors(self, aspect: float) -> tuple[tf.Tensor, ...]:
        """Picture, its height and width, view and keypoints of each person, for a pipeline."""
        persons = self.persons
        with tf.init_scope(), tf.device("CPU"):
            return (
                tf.constant(persons.images),
                tf.constant(self.sizes[persons.images]),
                tf.constant(persons.views(aspect)),
                tf.constant(persons.keypoints),
            )


@dataclasses.dataclass(frozen=True)
class PoseDataset(Dataset):
    """Persons cut out of pictures, each an example of its own.

    Images are uint8 crops of `input_size`; labels are float32 `(17, 3)`: x, y in pixels of the
    crop, and the weight 1 or 0. To train, the view of the labelled box is changed as
    `PoseAugmentation` says; to evaluate, it is taken as it is.

    # Arguments
        train: Persons to train on.
        test: Persons to evaluate on.
        input_size: Height and width of the crops, pixels.
        evaluated: What `test` is: `"test"`, or `"holdout"` where training pictures stand in.
    """

    train: PersonSplit
    test: PersonSplit
    input_size: tuple[int, int] = INPUT_SIZE
    evaluated: str = "test"

    name = "coco_keypoints"
    classes = KEYPOINTS
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    white = 255.0
    evaluation_batch = 64

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels as a network sees them."""
        return (*self.input_size, 3)

    @property
    def train_size(self) -> int:
        """Number of persons to train on."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of persons to evaluate on."""
        return len(self.test)

    def hold_out(self, count: int) -> PoseDataset:
        """Evaluates on the persons of the last `count` training pictures with persons.

        # Raises
            UsageError: if there are not so many pictures.
        """
        self._check_count(count, "holdout")
        return dataclasses.replace(
            self,
            train=self.train.part(slice(-count)),
            test=self.train.part(slice(-count, None)),
            evaluated="holdout",
        )

    def limit(self, count: int) -> PoseDataset:
        """Trains on the persons of the first `count` training pictures with persons.

        # Raises
            UsageError: if there are not so many pictures.
        """
        self._check_count(count, "limit")
        return dataclasses.replace(self, train=self.train.part(slice(count)))

    def _check_count(self, count: int, setting: str) -> None:
        available = len(self.train.image_ids)
        if not 0 < count < available:
            raise UsageError(
                f"{setting}={count} pictures cannot be taken from {self.name}: give a number "
                f"between 1 and {available - 1}."
            )

    def find_damage(self, training: bool) -> None:
        for split in (self.test, self.train) if training else (self.test,):  # the smaller one first
            split.find_damage(training)

    def fingerprint(self) -> str:
        """A SHA-256 of boxes, keypoints and names of the pictures, and the bytes of these."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.input_size)).encode())
        for split in (self.train, self.test):
            digest.update(repr(list(split.pictures.names)).encode())
            for values in (split.persons.images, split.persons.boxes, split.persons.keypoints):
                digest.update(np.ascontiguousarray(values).tobytes())
        sizes = [*self.train.pictures.sizes(), *self.test.pictures.sizes()]
        return fingerprint_of_pictures(digest.hexdigest(), sizes)

    def shuffled(self, key: tf.Tensor, steps: Steps, start_step: tf.Tensor) -> tf.data.Dataset:
        return steps.shuffled(self.train_size, key, start_step)

    def in_order(self, steps: Steps) -> tf.data.Dataset:
        return steps.dataset()

    def read(self, rows: tf.data.Dataset, augmentation: PoseAugmentation | None) -> tf.data.Dataset:
        split = self.train if augmentation is not None else self.test
        size, aspect = self.input_size, self.input_size[1] / self.input_size[0]
        numbers, sizes, views, keypoints = split.tensors(aspect)

        def load(item: Row) -> tuple[tf.Tensor, tf.Tensor]:
            person = item["image"]
            number, picture_size = tf.gather(numbers, person), tf.gather(sizes, person)
            width = picture_size[1]
            found, points = tf.gather(views, person), tf.gather(keypoints, person)
            view = View(found[:2], found[2])
            if augmentation is not None:
                view = mirrored_view(
                    augmentation.change(view, points, item["draws"], aspect), width
                )
            content = split.content(number, picture_size)
            crop = cut_out(content, from_crop(view, size, width), size)
            return crop, to_crop(points, view, size, width)

        label = tf.TensorSpec([len(KEYPOINTS), 3], tf.float32)
        return read_batches(rows, load, self.input_shape, label)


def load(
    data_dir: str | pathlib.Path | None = None, input_size: tuple[int, int] = INPUT_SIZE
) -> PoseDataset:
    """Finds the persons of COCO.

    # Arguments
        data_dir: The folder with the annotations and the pictures.
        input_size: Height and width of the crops, pixels; both divide by 32.

    # Returns
        The data set, normalised with the statistics of ImageNet.

    # Raises
        UsageError: if the size is not possible.
        DatasetError: if annotations or pictures are missing, or not what they should be.
    """
    if len(input_size) != 2 or min(input_size) < 32 or any(side % 32 for side in input_size):
        raise UsageError(
            "input_size is height and width, each a multiple of 32, such as 256,192; received "
            f"{','.join(map(str, input_size))}."
        )
    folder = data_folder(data_dir)
    return PoseDataset(read_split(folder, "train"), read_split(folder, "test"), tuple(input_size))


def data_folder(data_dir: str | pathlib.Path | None) -> pathlib.Path:
    """The folder of the data.

    # Raises
        DatasetError: if there is none.
    """
    if data_dir is None:
        raise DatasetError(
            "coco_keypoints needs a folder: give data_dir=FOLDER with annotations/ and the "
            "pictures of train2017 and val2017, from cocodataset.org."
        )
    return pathlib.Path(data_dir).expanduser()


def read_split(folder: pathlib.Path, part: str) -> PersonSplit:
    """Reads one part of the data.

    # Arguments
        folder: Where the data is.
        part: `"train"` or `"test"`.

    # Raises
        DatasetError: if annotations or pictures are missing, or not what they should be.
    """
    file, place = find_part(folder, part)
    # A detector's boxes in pictures without a labelled person count as well: as mistakes.
    content, every = read_annotations(file), part == "test"
    images, persons = read_persons(content, str(file), every_picture=every)
    split = PersonSplit(
        file,
        np.array([image["id"] for image in images], np.int64),
        np.array([(image["height"], image["width"]) for image in images], np.float32),
        open_pictures(place, [image["file_name"] for image in images]),
        persons,
    )
    split.check_size(0)  # of all of them when they are read; this one says it at once
    return split
