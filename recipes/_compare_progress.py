"""What a comparison shows while it runs: a bar in a terminal, a line per run anywhere."""

from __future__ import annotations

import datetime
import time

from rich.progress import BarColumn, TextColumn

from larq_ext_recipes._progress import Bar


class Display(Bar):
    """Shows which run of how many it is, and the time that is left.

    # Arguments
        mode: `"auto"`, `"bar"`, `"lines"` or `"none"`.
        runs: Number of runs.
    """

    def __init__(self, mode: str, runs: int) -> None:
        columns = (
            TextColumn("run {task.fields[number]}/" + str(runs)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
        )
        super().__init__(mode, columns, runs, number=0, text="")
        self._runs, self._number = runs, 0
        self._left = float(runs)  # in runs
        self._work = 0.0  # of this process, in runs
        self._began = time.monotonic()

    def skip(self, runs: int) -> None:
        """Counts runs that were finished before."""
        self._number += runs
        self._left -= runs
        self._began = time.monotonic()
        if runs:
            self.say(f"{runs} of {self._runs} runs are finished already.")

    def begin(self, name: str) -> None:
        """Begins the next run."""
        self._number += 1
        self._name, self._share = name, None
        self._started = time.monotonic()
        self._show("starting")

    def progress(self, share: float, text: str) -> None:
        """Updates the share of the run that is done; a resumed one does not begin at zero."""
        if self._share is None:
            self._left -= share
        else:
            self._work += share - self._share
            self._left -= share - self._share
        self._share = share
        self._show(text)

    def end(self, result: str) -> None:
        """Prints the line of the run."""
        rest = 1.0 - (self._share or 0.0)
        self._left -= rest
        self._work += rest
        seconds = time.monotonic() - self._started
        left = f", {self._remaining()} left" if self._number < self._runs else ""
        self.say(f"run {self._number}/{self._runs}  {self._name}  {result}  {seconds:.0f} s{left}")

    def _show(self, text: str) -> None:
        if not self._bar:
            return
        left = f"  {self._remaining()} left" if self._work else ""
        done = self._number - 1 + (self._share or 0)
        self._bar.update(
            self._task, completed=done, number=self._number, text=f"{self._name}  {text}{left}"
        )

    def _remaining(self) -> str:
        """Time for the rest at the speed of this process so far."""
        seconds = (time.monotonic() - self._began) / self._work * max(self._left, 0)
        return str(datetime.timedelta(seconds=round(seconds)))
