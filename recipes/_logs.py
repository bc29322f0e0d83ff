"""The record of a run: a row per epoch as CSV, TensorBoard scalars and a learning curve."""

from __future__ import annotations

import csv
import dataclasses
import pathlib

import tensorflow as tf

from larq_ext._files import atomic


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One row of the log.

    # Arguments
        epoch: Which epoch, from 1.
        learning_rate: At the first step of the epoch; of an optimizer of one's own, as it has it.
        loss: Mean training loss against the labels, with penalties of the network's own; without
            `weight_decay`, which is no loss, and without a teacher's share.
        accuracy: Training accuracy, with augmentation.
        test_loss: The same on the test (or held-out) images; `None` in epochs without evaluation.
        test_accuracy: Accuracy on them.
        seconds: Training time, without evaluation.
        images_per_second: Training images per second.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    seconds: float
    images_per_second: float


COLUMNS = [field.name for field in dataclasses.fields(EpochRecord)]


class CsvLog:
    """The rows so far; the file is written anew with every row, so it is always whole.

    # Arguments
        path: The file.
        epochs: Epochs that are completed; later rows of an existing file are dropped.
        evaluated: Prefix of the two evaluation columns: `"test"` or `"holdout"`.
        writes: Whether this process is the one, of several workers, that writes.
    """

    def __init__(
        self, path: pathlib.Path, epochs: int, evaluated: str, *, writes: bool = True
    ) -> None:
        self._path = path
        self._writes = writes
        self._names = [name.replace("test_", f"{evaluated}_") for name in COLUMNS]
        self.rows: list[EpochRecord] = []
        if path.exists() and epochs:
            with path.open(newline="") as file:
                rows = [_read_row(row) for row in list(csv.reader(file))[1:]]
            self.rows = [row for row in rows if row.epoch <= epochs]

    def append(self, row: EpochRecord) -> None:
        """Adds a row."""
        self.rows.append(row)
        if not self._writes:
            return
        with atomic(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self._names)
            writer.writerows(dataclasses.astuple(row) for row in self.rows)


def _read_row(cells: list[str]) -> EpochRecord:
    epoch, *numbers = cells
    return EpochRecord(int(epoch), *(float(cell) if cell else None for cell in numbers))


class TensorBoardLog:
    """Scalars per epoch for the command `tensorboard --logdir`.

    # Arguments
        folder: Where the event files go.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))

    def append(self, row: EpochRecord, evaluated: str, others: dict[str, float]) -> None:
        """Writes the numbers of an epoch.

        # Arguments
            row: The row of the log.
            evaluated: `"test"` or `"holdout"`.
            others: What callbacks reported, such as the values of the quantizers' schedules.
        """
        scalars = {
            "train/loss": row.loss,
            "train/accuracy": row.accuracy,
            f"{evaluated}/loss": row.test_loss,
            f"{evaluated}/accuracy": row.test_accuracy,
            "learning_rate": row.learning_rate,
            "images_per_second": row.images_per_second,
            **{f"callbacks/{name}": value for name, value in others.items()},
        }
        with self._writer.as_default(step=row.epoch):
            for name, value in scalars.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._writer.flush()


def draw_learning_curve(
    path: pathlib.Path, rows: list[EpochRecord], evaluated: str, labels: tuple[str, str]
) -> bool:
    """Draws loss and error over the epochs.

    # Arguments
        path: The PNG file to write.
        rows: The rows of the log.
        evaluated: `"test"` or `"holdout"`.
        labels: Names of the loss and of the error, 1 - accuracy.

    # Returns
        Whether it was drawn; matplotlib is optional.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's default backend
    losses, errors = figure.subplots(1, 2)
    loss_label, error_label = labels
    rated = [row for row in rows if row.test_loss is not None]
    marker = "o" if len(rated) < 13 else None  # a line through one point is nothing to see
    losses.plot([r.epoch for r in rows], [r.loss for r in rows], label="training")
    evaluations = [r.epoch for r in rated]
    losses.plot(evaluations, [r.test_loss for r in rated], label=evaluated, marker=marker)
    losses.set(xlabel="epoch", ylabel=loss_label, title="Loss")
    errors.plot([r.epoch for r in rows], [100 * (1 - r.accuracy) for r in rows])
    errors.plot(evaluations, [100 * (1 - r.test_accuracy) for r in rated], marker=marker)
    errors.set(xlabel="epoch", ylabel="%", title=error_label, ylim=(0, None))
    losses.legend(frameon=False)
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return True
