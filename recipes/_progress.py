"""What a run shows while it trains: a bar in a terminal, a line per epoch anywhere."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from larq_ext_recipes._logs import EpochRecord


class Bar:
    """A bar in a terminal, and lines above it.

    # Arguments
        mode: `"auto"`, `"bar"`, `"lines"` or `"none"`.
        columns: What the bar consists of.
        total: Where it ends.
        **fields: What the columns show at first.
    """

    def __init__(self, mode: str, columns: Iterable[ProgressColumn], total: int, **fields: Any):
        self._console = Console(quiet=mode == "none", highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        if mode == "bar" or (mode == "auto" and self._console.is_terminal):
            self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._bar.add_task("", total=total, **fields)

    def __enter__(self) -> Any:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(text, markup=False)


class Display(Bar):
    """Shows the state of a run.

    # Arguments
        mode: `"auto"`, `"bar"`, `"lines"` or `"none"`.
        epochs: Epochs of the run.
        steps: Steps of an epoch.
        done: Steps that were taken before this process, for the remaining time.
    """

    def __init__(self, mode: str, epochs: int, steps: int, done: int) -> None:
        columns = (
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        super().__init__(mode, columns, steps, epoch=1, numbers="")
        self._epochs, self._steps, self._first = epochs, steps, done
        self._started = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)  # time, images

    def step(self, epoch: int, step: int, images: int, logs: dict[str, float]) -> None:
        """Updates the bar after a step.

        # Arguments
            epoch: From 0.
            step: From 1.
            images: Images of the epoch so far.
            logs: Running `loss` and `accuracy`.
        """
        if not self._bar:
            return
        if step == 1:
            self._recent.clear()  # the images before were those of another epoch
        self._recent.append((time.monotonic(), images))
        (then, before), (now, _) = self._recent[0], self._recent[-1]
        speed = f"{(images - before) / (now - then):,.0f}" if images > before else "..."
        numbers = (
            f"loss {digits(logs['loss'])}  accuracy {logs['accuracy']:.2%}  {speed} images/s  "
            f"{self._remaining(epoch * self._steps + step)} left"
        )
        self._bar.update(self._task, completed=step, epoch=epoch + 1, numbers=numbers)

    def epoch(self, row: EpochRecord, evaluated: str) -> None:
        """Prints the line of an epoch."""
        parts = [
            f"epoch {row.epoch}/{self._epochs}",
            f"loss {digits(row.loss)}",
            f"accuracy {row.accuracy:.2%}",
        ]
        if row.test_accuracy is not None:
            parts += [
                f"{evaluated} loss {digits(row.test_loss)}",
                f"{evaluated} accuracy {row.test_accuracy:.2%}",
            ]
        parts += [
            f"lr {row.learning_rate:.3g}",
            f"{row.images_per_second:,.0f} images/s",
            f"{self._remaining(row.epoch * self._steps)} left",
        ]
        self.say("  ".join(parts))

    def _remaining(self, done: int) -> str:
        """Time for the rest of the run at the speed of this process so far."""
        seconds = time.monotonic() - self._started
        left = self._epochs * self._steps - done
        estimate = seconds / max(done - self._first, 1) * left
        return str(datetime.timedelta(seconds=round(estimate)))


def digits(loss: float) -> str:
    """Four decimals, or six of a loss that would have no digits left, as those of heat maps."""
    return f"{loss:.4f}" if loss >= 0.05 else f"{loss:.6f}"
