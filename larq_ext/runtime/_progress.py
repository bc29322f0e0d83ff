"""A progress bar on standard error, by whatever is installed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(samples: Iterator[T], total: int | None) -> Iterable[T]:
    """Shows how many samples are done: with rich, else with tqdm, else not at all.

    # Arguments
        samples: what is worked on.
        total: their number, if it is known.

    # Returns
        The same samples.
    """
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return _plain(samples, total)
    return track(samples, "Running", total=total, console=Console(stderr=True), transient=True)


def _plain(samples: Iterator[T], total: int | None) -> Iterable[T]:
    try:
        from tqdm import tqdm
    except ImportError:
        return samples
    return tqdm(samples, "Running", total=total, leave=False)
