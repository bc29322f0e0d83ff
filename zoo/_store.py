"""Finds files of weights: beside their entry, in the local folder, or on a mirror."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

from larq_ext._files import sha256_of
from larq_ext_zoo._entry import Entry, WeightsFile
from larq_ext_zoo._weights_file import WeightsError

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # for each mirror; each goes on where the one before was cut off
_CHUNK = 1 << 16
_RESTART = 416  # "range not satisfiable": what is here cannot be continued


def home() -> pathlib.Path:
    """The local folder: the environment variable `LARQ_EXT_HOME`, or `~/.larq_ext`."""
    return pathlib.Path(os.environ.get("LARQ_EXT_HOME") or "~/.larq_ext").expanduser().resolve()


def find(entry: Entry, form: str) -> pathlib.Path:
    """A checked file of weights, downloaded if it is not here.

    # Arguments
        entry: A pretrained entry.
        form: `"deployable"` or `"training"`.

    # Returns
        The path of the file.

    # Raises
        FileNotFoundError: if the file is not here and no mirror gives it; the message says where
            to put it.
        WeightsError: if the file that is here is truncated or altered.
    """
    if form not in entry.weights:
        raise FileNotFoundError(
            f"{entry.name} has no weights of the form {form!r}, only {sorted(entry.weights)}."
        )
    file = entry.weights[form]
    if entry.folder is not None and (entry.folder / file.file).is_file():
        check(entry.folder / file.file, file)
        return entry.folder / file.file
    by_hand = home() / "weights" / file.file
    # By its content: an entry that is published again has another file of the same name.
    fetched = by_hand.with_name(f"{file.sha256[:8]}-{file.file}")
    if fetched.is_file():
        check(fetched, file)
        return fetched
    if by_hand.is_file():
        check(by_hand, file)
        return by_hand
    if not file.mirrors:
        raise FileNotFoundError(
            f"The weights of {entry.name} are not here, and its entry names no place to get them "
            f"from: {_by_hand(file, by_hand.parent)}"
        )
    download(entry.name, file, fetched)
    return fetched


def check(path: pathlib.Path, file: WeightsFile) -> None:
    """Raises a `WeightsError` unless the file is the one that the entry means."""
    size = path.stat().st_size
    advice = "Delete it, and it is fetched again; or get it from where it came from."
    if not file.mirrors:
        advice = (
            "There is no place to fetch it from: install larq-ext again if it came with it, or "
            "publish the run again. If somebody has just done so, start this program anew."
        )
    if size < file.bytes:
        raise WeightsError(f"{path} is truncated: it has {size} bytes of {file.bytes}. {advice}")
    found = sha256_of(path)
    if found != file.sha256:
        raise WeightsError(
            f"{path} was altered, or is another file: its SHA-256 is {found}, and the zoo's entry "
            f"says {file.sha256}. {advice}"
        )


def download(name: str, file: WeightsFile, path: pathlib.Path) -> None:
    """Downloads a file from the first mirror that has it.

    It comes into a `.part` file, so a download that was cut off goes on where it was, also in
    another process. The file gets its name when its SHA-256 is right.

    # Raises
        FileNotFoundError: if no mirror gives the right file; the message says why not and what to
            do without a network.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with _bar(name, file.bytes) as advance:
        for mirror in file.mirrors:
            address = f"{mirror.rstrip('/')}/{urllib.parse.quote(file.file)}"
            try:
                failure = _from_mirror(address, file, part, advance)
                if failure is None:
                    part.replace(path)
                    return
            except FileNotFoundError:
                if not path.is_file():
                    raise
                return check(path, file)  # another process was faster
            failures.append(f"{address}: {failure}")
    raise FileNotFoundError(
        f"The weights of {name} are not here and could not be downloaded ({'; '.join(failures)}). "
        f"Without a network, {_by_hand(file, path.parent)}"
    )


def _by_hand(file: WeightsFile, folder: pathlib.Path) -> str:
    return f"put the file {file.file} ({file.bytes} bytes, SHA-256 {file.sha256}) into {folder}."


def _from_mirror(
    address: str, file: WeightsFile, part: pathlib.Path, advance: Callable[[int], None]
) -> str | None:
    """Fetches from one mirror; returns why it failed, or `None`."""
    failure = ""
    for _ in range(ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        if start < file.bytes:
            try:
                _fetch(address, file.bytes, part, advance)
            except urllib.error.HTTPError as error:
                failure = f"HTTP {error.code} {error.reason}"
                if error.code != _RESTART:
                    return failure
                part.unlink(missing_ok=True)
                continue
            except (OSError, http.client.HTTPException) as error:
                failure = str(getattr(error, "reason", error)) or type(error).__name__
                continue
        if part.stat().st_size < file.bytes:
            failure = "the connection was cut off"
        elif sha256_of(part) == file.sha256:
            return None
        else:
            failure = "it gives another file (wrong SHA-256)"
            part.unlink()
            if not start:  # else the wrong bytes may be those of an earlier attempt
                return failure
    return failure


def _fetch(address: str, size: int, part: pathlib.Path, advance: Callable[[int], None]) -> None:
    """Appends what is missing to the `.part` file, at most up to `size` bytes."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "larq-ext"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # a server that knows no ranges sends everything
        # By position and never cut short, so that two processes at once write the same bytes to
        # the same place.
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as output:
            output.seek(start)
            advance(start)
            # One byte more than there should be tells that it is another file.
            while position_left := size + 1 - output.tell():
                data = response.read(min(_CHUNK, position_left))
                if not data:
                    break
                output.write(data)
                advance(output.tell())


@contextlib.contextmanager
def _bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, in a terminal; gives what moves it to a position."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(f"Downloading the weights of {name}", total=size)
        yield lambda position: progress.update(task, completed=position)
