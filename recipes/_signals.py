"""Ctrl-C and SIGTERM as a request that is met between two training steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Collects a signal inside a `with` block; a second one acts at once, as usual.

    # Attributes
        second_acts: Whether it does, of the whole process. Where a signal comes from several
            sides, such as a parent and a system that ends all of a job's processes, it must not.
    """

    second_acts = True
    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            self._previous = {name: signal.signal(name, self._note) for name in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if self.second_acts:
            self._restore()

    def _restore(self) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)
        self._previous = {}
