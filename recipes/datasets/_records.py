"""Pictures in the record files of tensorflow-datasets."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import tensorflow as tf

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Steps, untransformed
from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._looking import describe
from larq_ext_recipes.datasets._pictures import PictureDataset

TFDS_PIP = "pip install 'tensorflow-datasets>=4.8.3,<4.9' 'tensorflow-metadata<1.15' 'etils<1.14'"

FILES_AT_ONCE = 16
RECORDS_IN_A_ROW = 16
BUFFER = 4096  # pictures, which is half a gigabyte of ImageNet


@dataclasses.dataclass(frozen=True)
class RecordDataset(PictureDataset):
    """Pictures that tensorflow-datasets has prepared.

    Record files can only be read one after the other. So the order of an epoch is not any order
    with the same chance: the files are shuffled, 16 of them are read at a time, and their records
    go through a buffer of 4,096. It is still a function of seed and epoch alone. A resumed run
    reads the records before its position without decoding them, and each of several workers reads
    all records and decodes its own.

    # Arguments
        name: Name of the data set.
        info: `tfds.core.DatasetInfo` of it.
        train: The split to train on, in the language of tensorflow-datasets.
        test: The split to evaluate on.
        image_size: Height and width as a network sees them, pixels.
        evaluated: What `test` is: `"test"`, or `"holdout"` where training pictures stand in.
    """

    name: str
    info: Any
    train: str
    test: str
    image_size: int
    evaluated: str = "test"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(self.info.features["label"].names)

    @property
    def train_size(self) -> int:
        """Number of training pictures."""
        return self.info.splits[self.train].num_examples

    @property
    def test_size(self) -> int:
        """Number of pictures to evaluate on."""
        return self.info.splits[self.test].num_examples

    def hold_out(self, count: int) -> RecordDataset:
        """Replaces the test set by the last `count` training pictures.

        tensorflow-datasets has shuffled them when it prepared them, always in the same way; so
        the classes have about, not exactly, the same number of them.

        # Raises
            UsageError: if there are not so many.
        """
        if not 0 < count < self.train_size:
            raise UsageError(
                f"holdout={count} cannot be taken from {self.name}: give a number between 1 and "
                f"{self.train_size - 1}."
            )
        return dataclasses.replace(
            self,
            train=f"{self.train}[:-{count}]",
            test=f"{self.train}[-{count}:]",
            evaluated="holdout",
        )

    def limit(self, count: int) -> RecordDataset:
        """Trains on the first `count` pictures as tensorflow-datasets has shuffled them.

        # Raises
            UsageError: if there are not so many.
        """
        if not 0 < count < self.train_size:
            raise UsageError(
                f"limit={count} cannot be taken from {self.name}: give a number between 1 and "
                f"{self.train_size - 1}."
            )
        if "[" in self.train:
            raise UsageError(
                "tensorflow-datasets can give holdout or limit: leave one of them out."
            )
        return dataclasses.replace(self, train=f"{self.train}[:{count}]")

    def fingerprint(self) -> str:
        """A SHA-256 of the record files' names and sizes, not of the pictures, in hexadecimal."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.image_size)).encode())
        digest.update(self.info.full_name.encode())
        for split in (self.train, self.test):
            for part in self.info.splits[split].file_instructions:
                file = pathlib.Path(part.filename)
                known = (file.name, file.stat().st_size, part.skip, part.take)
                digest.update(repr(known).encode())
        return digest.hexdigest()

    def shuffled(self, key: tf.Tensor, steps: Steps, start_step: tf.Tensor) -> tf.data.Dataset:
        files = self._files(self.train)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files[0])), key)
        records = tf.data.Dataset.from_tensor_slices(
            tuple(tf.gather(part, order) for part in files)
        ).interleave(
            _records,
            cycle_length=FILES_AT_ONCE,
            block_length=RECORDS_IN_A_ROW,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return _by_step(_shuffled(records, key), steps, start_step)

    def in_order(self, steps: Steps) -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices(self._files(self.test)).flat_map(_records)
        return _by_step(records, steps, 0)

    def fetch(self, image: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        import tensorflow_datasets as tfds

        decoders = {"image": tfds.decode.SkipDecoding()}
        example = self.info.features.deserialize_example(image, decoders=decoders)
        name = example.get("file_name", tf.constant("a record without a file name"))
        return example["image"], tf.cast(example["label"], tf.int64), name

    def _files(self, split: str) -> tuple[list[str], list[int], list[int]]:
        """Names of the files of a split, and which of their records it has: skip and take."""
        parts = self.info.splits[split].file_instructions
        return (
            [part.filename for part in parts],
            [part.skip for part in parts],
            [part.take for part in parts],
        )


@untransformed
def _records(file: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
    return tf.data.TFRecordDataset(file, buffer_size=1 << 20).skip(skip).take(take)


def _shuffled(records: tf.data.Dataset, key: tf.Tensor) -> tf.data.Dataset:
    """`Dataset.shuffle`, which itself takes no seed that is computed in a graph."""
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=BUFFER,
        seed=tf.cast(key[0], tf.int64),
        seed2=tf.cast(key[1], tf.int64),
        reshuffle_each_iteration=False,
        output_types=[tf.string],
        output_shapes=[[]],
    )
    return tf.data.experimental.from_variant(shuffled, records.element_spec)


def _by_step(
    records: tf.data.Dataset, steps: Steps, start_step: int | tf.Tensor
) -> tf.data.Dataset:
    """Chooses the records at the positions of each step from a stream of all of them."""
    size, last = steps.batch_size, len(steps) - 1
    if steps.positions.max() < len(steps) * size:
        batches = records.batch(size)
    else:  # the last step has the images of a smaller one after it, too
        batches = records.take(last * size).batch(size)
        batches = batches.concatenate(records.skip(last * size).batch(2 * size))
    start = tf.cast(start_step, tf.int64)

    @untransformed
    def choose(step: tf.Tensor, chosen: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        positions, batch = chosen
        return tf.gather(batch, tf.maximum(positions - step * size, 0))

    steps_left = tf.data.Dataset.zip((steps.dataset(start), batches.skip(start)))
    return steps_left.enumerate(start).map(choose)


def find_prepared(name: str, data_dir: str | pathlib.Path | None) -> pathlib.Path | None:
    """Finds what tensorflow-datasets has prepared.

    # Arguments
        name: Its name for the data set.
        data_dir: The folder with a folder of that name, or that folder itself.

    # Returns
        The folder of the newest version, or `None` if there is no such data set.

    # Raises
        DatasetError: if the data set is there, but not complete.
    """
    if data_dir is None:
        return None
    folder = pathlib.Path(data_dir).expanduser()
    folder = folder if folder.name == name else folder / name
    if not folder.is_dir() or (folder / "train").is_dir():
        return None
    versions = [path.parent for path in folder.glob("*/dataset_info.json")]
    if not versions:
        raise DatasetError(
            f"{folder} has no version that tensorflow-datasets has finished preparing (found "
            f"{describe(folder)}): run `tfds build {name} --data_dir {folder.parent}` to its end."
        )
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])


def read_records(
    name: str, folder: pathlib.Path, image_size: int, *, count: int | None = None
) -> RecordDataset:
    """Reads what tensorflow-datasets knows of a data set that it has prepared.

    # Arguments
        name: Name of the data set.
        folder: Where `dataset_info.json` is.
        image_size: Height and width as a network sees them, pixels.
        count: How many classes there must be.

    # Returns
        The data set: split `train`, and `validation` or `test` to evaluate on.

    # Raises
        DatasetError: if it is not complete, or tensorflow-datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            f"{folder} was prepared by tensorflow-datasets, which is not installed: type "
            f"`{TFDS_PIP}`, or give a folder of pictures."
        ) from error
    try:
        info = tfds.builder_from_directory(str(folder)).info
    except Exception as error:  # what it raises is not documented
        raise DatasetError(
            f"tensorflow-datasets cannot read {folder}: {str(error).splitlines()[0]}"
        ) from error
    test = next((split for split in ("validation", "test") if split in info.splits), None)
    if test is None or "train" not in info.splits:
        raise DatasetError(
            f"{folder} has the splits {', '.join(info.splits) or 'none'}, and needs train and "
            "validation or test: prepare it again."
        )
    for split in ("train", test):
        for part in info.splits[split].file_instructions:
            if not pathlib.Path(part.filename).is_file():
                raise DatasetError(
                    f"{part.filename} is missing: copy the data again, or have "
                    "tensorflow-datasets prepare it again."
                )
    dataset = RecordDataset(name, info, "train", test, image_size)
    if count is not None and len(dataset.classes) != count:
        raise DatasetError(
            f"{folder} has {len(dataset.classes)} classes, and {name} has {count}: prepare it "
            "again."
        )
    return dataset
