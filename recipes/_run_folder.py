"""The folder of a run: what is in it, whether it may be written, whether it may be resumed."""

from __future__ import annotations

import pathlib
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from larq_ext._files import locked
from larq_ext_recipes._base_experiment import BaseExperiment
from larq_ext_recipes._checkpoints import saved
from larq_ext_recipes._environment import environment, hardware, versions
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._files import read_json, write_json
from larq_ext_recipes._strategy import Placement
from larq_ext_recipes._two_step import check_source, source_sha256
from larq_ext_recipes.datasets._dataset import are_repaired

_SOURCES = ("teacher", "initial_weights")


class RunFolder:
    """Paths of one run.

    # Arguments
        experiment: The experiment; its `output_dir`, or else `runs/<name>`, is the folder.
        writes: Whether this process is the one, of several workers, that writes.
    """

    def __init__(self, experiment: BaseExperiment, *, writes: bool = True) -> None:
        self._writes = writes
        self._to_clear = False
        self.sessions: list[dict[str, Any]] = []
        self._free = experiment.free_fields
        default = pathlib.Path("runs", experiment.name)
        self.path = pathlib.Path(experiment.output_dir or default).expanduser()
        self.run = self.path / "run.json"
        self.log = self.path / "log.csv"
        self.curve = self.path / "learning_curve.png"
        self.metrics = self.path / "metrics.json"
        self.model = self.path / "model.keras"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.first_step = self.path / "first_step"

    def start(self, experiment: BaseExperiment, data: str, resume: bool, overwrite: bool) -> None:
        """Prepares the folder for a new run, or checks that an old one may go on.

        # Arguments
            experiment: What is to be trained.
            data: Fingerprint of the data.
            resume: Whether an interrupted run is to be continued.
            overwrite: Whether an existing run may be deleted.

        # Raises
            UsageError: if there is a run and neither was asked for, there is none to resume, or
                it was started with other settings.
        """
        if resume and overwrite:
            raise UsageError("resume and overwrite exclude each other: give one of them.")
        self._content = {
            "configuration": experiment.to_dict(),
            "data": data,
            "sources": _sources(experiment),
        }
        self._defaults = experiment.defaults()
        if not self._writes:
            return None
        if resume:
            return self._check_same(self._content)
        self._to_clear = overwrite
        if overwrite:
            self.check_sources(experiment)
        if not overwrite and self.run.exists():
            raise UsageError(
                f"{self.path} already has a run: add --resume to continue it, --overwrite to "
                "delete it and start again (in Python: resume=True, overwrite=True), or "
                "output_dir=FOLDER to keep both."
            )
        if not overwrite and self.exists:
            raise UsageError(
                f"{self.path} has checkpoints or numbers of a run without its run.json: add "
                "--overwrite to delete them, or output_dir=FOLDER to keep them."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The output folder {self.path} cannot be made: {error}.") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second process from writing here at the same time.

        # Raises
            UsageError: if another process trains here.
        """
        with ExitStack() as stack:
            try:
                if self._writes:
                    stack.enter_context(locked(self.path, wait=False))
            except BlockingIOError as error:
                raise UsageError(
                    f"Another process trains in {self.path}: stop it or wait for its end, or give "
                    "output_dir=FOLDER."
                ) from error
            yield

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of the models that the run is made with."""
        return self._content["sources"]

    def record(self) -> None:
        """Writes down that there is a run here, with what settings, and what it is made with.

        Only now is a run that was there before deleted: not for one that cannot start.
        """
        session = {"hardware": hardware(), "versions": versions(), "environment": environment()}
        if session not in self.sessions[-1:]:
            self.sessions.append(session)
        if self._writes:
            if self._to_clear:
                self.clear()
                self._to_clear = False
            write_json(self.run, {**self._content, "sessions": self.sessions})

    def describe_last(self) -> str:
        """Where the last checkpoint is."""
        if not self._writes:
            return "Worker 0 has the checkpoints."
        last = saved(self.checkpoints)
        return f"The last checkpoint is {last[-1]}." if last else "There is no checkpoint yet."

    def check_agreement(self, placement: Placement) -> None:
        """Compares the settings and the data of this worker with those of the first one.

        # Raises
            UsageError: if they are not the same.
        """
        first = placement.from_chief(self._content)
        others, own = first["configuration"], self._content["configuration"]
        may_differ = self._free - {"checkpoint_steps"} | {"initial_weights"}
        differing = [
            f"{field} is {own.get(field)!r} here, {others.get(field)!r} there"
            for field in _differing(others, own, may_differ)
        ]
        if first["data"] != self._content["data"]:
            differing.append("the images or labels are not the same")
        if first["sources"].get("teacher") != self._content["sources"].get("teacher"):
            differing.append("the teacher is another model")
        if differing:
            raise UsageError(
                f"Worker {placement.worker} cannot train with worker 0: {'; '.join(differing)}. "
                "Give all workers the same settings and data."
            )

    def _check_same(self, content: dict[str, Any]) -> None:
        if not self.run.exists():
            raise UsageError(f"{self.path} has no run to resume: leave --resume out.")
        before = read_json(self.run)
        self.sessions = before.get("sessions", [])
        # A run of an older version did what the default of a setting says that it did not have.
        old, new = self._defaults | before["configuration"], content["configuration"]
        was, now = before.get("sources", {}), content["sources"]
        if "teacher" in was and "teacher" not in now and not self.metrics.exists():
            check_source(new["teacher"] or old["teacher"])  # it was moved, or is in another folder
        moved = {"teacher"} if was.get("teacher", "") == now.get("teacher") else set()
        differing = [
            f"{field} was {old.get(field)!r}, now {new.get(field)!r}"
            for field in _differing(old, new, self._free | moved)
        ]
        if are_repaired(before["data"], content["data"]):
            warnings.warn(
                "Some pictures have another size than when the run began, which is right where "
                "damaged ones were replaced.",
                stacklevel=2,
            )
        elif before["data"] != content["data"]:
            differing.append("the images or labels are not the same")
        if "teacher" in now and was.get("teacher", now["teacher"]) != now["teacher"]:
            differing.append("the teacher is another model")
        # Where the weights began counts no more, so that model may be gone or trained again.
        content["sources"] = {**now, **was}
        if differing:
            raise UsageError(
                f"The run in {self.path} cannot be resumed with other settings: "
                f"{'; '.join(differing)}. Give the old ones, or --overwrite to start again."
            )

    def check_sources(self, experiment: BaseExperiment) -> None:
        """Refuses to `clear` away what a new run is made with.

        # Raises
            UsageError: if something of it lies here.
        """
        found = []
        for field in _SOURCES:
            if getattr(experiment, field) is None:
                continue
            source = pathlib.Path(getattr(experiment, field)).expanduser()
            file = (source / self.model.name if source.is_dir() else source).resolve()
            places = (self.model.resolve(), self.first_step.resolve())
            if file.is_file() and any(file.is_relative_to(place) for place in places):
                found.append(f"the {field} ({source})")
        if found:
            raise UsageError(
                f"--overwrite would delete {' and '.join(found)} of the new run, in {self.path}: "
                "give another folder for the results."
            )

    @property
    def exists(self) -> bool:
        """Whether there is a run, or a part of one, which must not be taken for another's."""
        files = (self.run, self.metrics, self.first_step / self.run.name)
        return any(file.exists() for file in files) or bool(saved(self.checkpoints))

    def clear(self) -> None:
        """Deletes what a run wrote, and nothing else that someone may have put here."""
        if not self.exists:
            return
        for path in (self.checkpoints, self.tensorboard, self.first_step):
            if path.exists():
                shutil.rmtree(path)
        # The last one: as long as it is there, what is left of the rest is known to be a run's.
        for path in (self.log, self.curve, self.metrics, self.model, self.run):
            path.unlink(missing_ok=True)


def _sources(experiment: BaseExperiment) -> dict[str, str]:
    """SHA-256 of the models that the experiment is made with, of those that are there."""
    sums = {}
    for field in _SOURCES:
        source = getattr(experiment, field)
        sha256 = None if source is None else source_sha256(source)
        if sha256 is not None:
            sums[field] = sha256
    return sums


def _differing(one: dict[str, Any], other: dict[str, Any], free: Iterable[str]) -> list[str]:
    """The settings, except some, that are not the same."""
    fields = sorted((one.keys() | other.keys()) - set(free))
    return [field for field in fields if one.get(field) != other.get(field)]
