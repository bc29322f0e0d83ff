"""Compares methods of binarization: the same network, data, recipe and seeds for each."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from larq_ext._text import split_options
from larq_ext.callbacks import schedule_numbers
from larq_ext.quantizers import METHODS
from larq_ext_recipes import _compare_process as process
from larq_ext_recipes._base_experiment import BaseExperiment
from larq_ext_recipes._compare_plot import draw
from larq_ext_recipes._compare_progress import Display
from larq_ext_recipes._compare_report import (
    LARQ_PAIR,
    Row,
    best_first,
    headline,
    make_row,
    table,
    write_csv,
)
from larq_ext_recipes._errors import TrainingError, TrainingInterrupted, UsageError
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._files import read_json, write_json
from larq_ext_recipes._logs import CsvLog
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes._overrides import split_words
from larq_ext_recipes._registry import get_experiment, list_experiments
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes._signals import StopRequest
from larq_ext_recipes._two_step import check_source
from larq_ext_recipes.datasets import DatasetError

FLOAT = "float"


@dataclasses.dataclass
class Run:
    """One training run of a comparison.

    # Arguments
        contender: Name of the method, or of the experiment where each has its own recipe.
        seed: Its seed.
        experiment: All of its settings.
        error: Why it failed, if it did.
    """

    contender: str
    seed: int
    experiment: Experiment
    error: str | None = None

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.experiment)
        self.messages = self.folder.path / "messages.txt"

    @property
    def status(self) -> str:
        """`"finished"`, `"failed"`, `"started"` or `"open"`."""
        if self.folder.metrics.exists():
            return "finished"
        if self.error is not None:
            return "failed"
        return "started" if self.folder.run.exists() else "open"

    def metrics(self) -> dict[str, Any]:
        """What the finished run wrote."""
        return read_json(self.folder.metrics)

    def curve(self) -> dict[int, float]:
        """Accuracy by epoch, for those with an evaluation."""
        log = CsvLog(self.folder.log, self.experiment.epochs, "test", writes=False)
        return {r.epoch: r.test_accuracy for r in log.rows if r.test_accuracy is not None}

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON has it."""
        return {
            "method": self.contender,
            "seed": self.seed,
            "status": self.status,
            "folder": str(self.folder.path),
            "error": self.error,
            "metrics": self.metrics() if self.status == "finished" else None,
        }


class Comparison:
    """The plan of a comparison, and what became of it.

    # Arguments
        As `compare` has them.
    """

    def __init__(
        self,
        experiment: str | Experiment,
        *,
        methods: Sequence[str] | None = None,
        floating_point: bool = False,
        seeds: int | Sequence[int] = 3,
        own_recipes: bool = False,
        output_dir: str | pathlib.Path | None = None,
        **overrides: Any,
    ) -> None:
        _check_overrides(overrides)
        if isinstance(experiment, str):
            experiment = get_experiment(experiment)
        _check_task(experiment)
        # Each method gets the numbers that it knows.
        self._schedule = overrides.pop("quantizer_schedule", None)
        self.base = experiment.replace(**overrides)
        if self.base.strategy == "multiworker":
            raise UsageError(
                "A comparison runs on one machine: strategy is one of none, mirrored and tpu, "
                "received 'multiworker'."
            )
        self._given = () if own_recipes else tuple(overrides)
        self.own_recipes = own_recipes
        self._facts: dict[str, Any] = {}
        self.seeds = _seeds(seeds)
        self.path = pathlib.Path(output_dir or f"runs/compare-{experiment.name}").expanduser()
        self.json = self.path / "comparison.json"
        self.csv = self.path / "comparison.csv"
        self.picture = self.path / "comparison.png"
        self.left_out: list[str] = []
        names = _methods(methods, floating_point)
        _check_schedule(self._schedule, names)
        if own_recipes:
            self.contenders = dict(self._with_own_recipes(experiment, names, overrides))
            if not self.contenders:
                raise UsageError(
                    f"No experiment has the network and the data of {self.base.name} and one of "
                    f"the methods {', '.join(names)}: leave --own-recipes out."
                )
        else:
            schedule = self.base.quantizer_schedule if self._schedule is None else self._schedule
            self.contenders = {name: _with_method(self.base, name, schedule) for name in names}
        # A round of all methods before the next seed: what is there early is a fair comparison.
        self.runs = [
            Run(name, seed, contender.replace(seed=seed, output_dir=str(self._folder(name, seed))))
            for seed in self.seeds
            for name, contender in self.contenders.items()
        ]

    def _folder(self, contender: str, seed: int) -> pathlib.Path:
        return self.path / contender / f"seed-{seed}"

    def _with_own_recipes(
        self, experiment: Experiment, methods: list[str], overrides: dict[str, Any]
    ) -> Iterator[tuple[str, Experiment]]:
        """All experiments with the network, the data and one of the methods."""
        for name in list_experiments():
            found = get_experiment(name)
            if not isinstance(found, Experiment):
                continue
            same = (found.network, found.dataset) == (experiment.network, experiment.dataset)
            if not same or (found.quantizer or FLOAT) not in methods:
                continue
            schedule = _schedule_of(found.quantizer, self._schedule or "")
            own = {"quantizer_schedule": schedule} if schedule else {}
            found = found.replace(**overrides, **own)
            if found.teacher is not None:
                try:
                    check_source(found.teacher)
                except UsageError:
                    if "teacher" in overrides:
                        raise  # what is asked for is not left out
                    self.left_out.append(
                        f"{name} is left out: its teacher {found.teacher} is not there yet."
                    )
                    continue
            yield name, found

    @property
    def rows(self) -> list[Row]:
        """A row for each contender, the best one first."""
        rows = []
        for name, experiment in self.contenders.items():
            runs = [run for run in self.runs if run.contender == name]
            metrics = {run.seed: run.metrics() for run in runs if run.status == "finished"}
            failed = [run.seed for run in runs if run.status == "failed"]
            rows.append(make_row(name, _recipe(experiment), _epochs(experiment), metrics, failed))
        return best_first(rows)

    @property
    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.status == "failed"]

    def run(self, *, resume: bool, overwrite: bool, command: list[str]) -> dict[str, Any]:
        """Trains what is not finished, one run after the other, and writes the results.

        The arguments, the result and the errors are those of `compare`.
        """
        if not resume:
            self.base.check_use(self._given)
        self._check_folder(resume, overwrite)
        begun = {
            name: all(r.status != "open" for r in self.runs if r.contender == name)
            for name in self.contenders
        }
        experiments = [
            # What has begun needs the weights that it began with no more.
            process.sent(contender.replace(initial_weights=None) if begun[name] else contender)
            for name, contender in self.contenders.items()
        ]
        with StopRequest() as stop, Display(self.base.progress, len(self.runs)) as display:
            try:
                for text in self.left_out:
                    display.say(text)
                display.say(f"Checking the data and {len(experiments)} networks ...")
                facts = process.call(process.check, experiments, stop=stop)
                self._facts = {**facts, "command": command}
                self._take_up(resume, overwrite)
                try:
                    self._train_all(stop, display)
                finally:
                    self._write()
                    if not self._draw():
                        display.say("No picture: type `pip install matplotlib` to have it drawn.")
            except TrainingInterrupted as stopped:
                raise TrainingInterrupted(self._how_to_continue(stop)) from stopped
        return self.to_dict()

    def _check_folder(self, resume: bool, overwrite: bool) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: give one of them.")
        if not resume and not overwrite and any(run.status != "open" for run in self.runs):
            raise UsageError(
                f"{self.path} already has runs: add --resume to continue them, --overwrite to "
                "delete them and start again, or another --output-dir to keep both."
            )
        if overwrite:
            for run, contender in itertools.product(self.runs, self.contenders.values()):
                run.folder.check_sources(contender)

    def _take_up(self, resume: bool, overwrite: bool) -> None:
        """Deletes the runs that are there, or refuses those with other settings or data."""
        for run in self.runs:
            if overwrite:
                if run.folder.path.is_dir():
                    with run.folder.lock():
                        run.folder.clear()
                run.messages.unlink(missing_ok=True)
            elif run.status != "open":
                run.folder.start(run.experiment, self._facts["data"], resume, overwrite)

    def _train_all(self, stop: StopRequest, display: Display) -> None:
        todo = [run for run in self.runs if run.status != "finished"]
        display.skip(len(self.runs) - len(todo))
        for run in todo:
            display.begin(f"{run.contender}, seed {run.seed}")
            try:
                self._train(run, stop, display)
                display.end(f"top-1 {run.metrics()['top1']:.2%}")
            except (TrainingError, UsageError, DatasetError) as error:
                run.error = str(error)
                display.end(f"failed: {error}")
            self._write()
            if stop.received:
                raise TrainingInterrupted

    def _train(self, run: Run, stop: StopRequest, display: Display) -> None:
        process.call(
            process.train,
            process.sent(run.experiment.replace(progress="lines")),
            self._facts["command"],
            stop=stop,
            messages=run.messages,
            report=display.progress,
        )

    def _write(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.json, self.to_dict())
            write_csv(self.csv, self.rows, self.seeds)
        except OSError as error:
            raise TrainingError(
                f"Cannot write to {self.path}: {error}. Make room there, then give the same "
                "command with --resume."
            ) from error

    def _how_to_continue(self, stop: StopRequest) -> str:
        finished = sum(run.status == "finished" for run in self.runs)
        return (
            f"Stopped{f' by {stop.received}' if stop.received else ''}; {finished} of "
            f"{len(self.runs)} runs in {self.path} are finished. To continue, give the same "
            "command with --resume (in Python: resume=True)."
        )

    def _draw(self) -> bool:
        curves: dict[str, list[dict[int, float]]] = {name: [] for name in self.contenders}
        for run in self.runs:
            if run.status == "finished":
                curves[run.contender].append(run.curve())
        if not any(curves.values()):
            return True  # nothing to draw is no lack of matplotlib
        try:
            return draw(self.picture, self.to_dict(), self.rows, curves)
        except Exception as error:  # a picture is not worth the table
            warnings.warn(f"{self.picture} could not be drawn: {error}", stacklevel=2)
            return True

    def describe(self) -> str:
        """The result as text: what was compared, the table, and what is to be known about it."""
        lines = [headline(self.to_dict()), "", table(self.rows), ""]
        if any(contender.quantizer == "ste_sign" for contender in self.contenders.values()):
            lines.append(LARQ_PAIR)
        lines += self.left_out
        lines += [f"{run.contender}, seed {run.seed}, failed: {run.error}" for run in self.failed]
        files = ", ".join(
            path.name for path in (self.json, self.csv, self.picture) if path.exists()
        )
        return "\n".join([*lines, f"Results in {self.path}: {files}"])

    def to_dict(self) -> dict[str, Any]:
        """The content of `comparison.json`."""
        configuration = self.base.to_dict()
        if self._schedule is not None:
            configuration["quantizer_schedule"] = self._schedule
        for varied in ("quantizer", "seed", "output_dir"):
            del configuration[varied]
        return {
            "experiment": self.base.name,
            "network": configuration["network"].rpartition(".")[2],
            "dataset": self.base.dataset,
            "own_recipes": self.own_recipes,
            "seeds": self.seeds,
            "finished": all(run.status == "finished" for run in self.runs),
            **self._facts,
            "methods": [dataclasses.asdict(row) for row in self.rows],
            "configuration": configuration,
            "runs": [run.to_dict() for run in self.runs],
        }


def compare(
    experiment: str | Experiment,
    *,
    methods: Sequence[str] | None = None,
    floating_point: bool = False,
    seeds: int | Sequence[int] = 3,
    own_recipes: bool = False,
    output_dir: str | pathlib.Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: Sequence[str] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Trains one network with several methods of binarization, several seeds each.

    All runs have the network, the data and the recipe of the experiment; only its `quantizer` and
    its `seed` change. Each is an ordinary run in `output_dir/METHOD/seed-N`, trained in a process
    of its own, so a program that calls this must do so below `if __name__ == "__main__":`.

    # Arguments
        experiment: Name of a registered experiment, or an `Experiment`.
        methods: Names of methods, `"float"` for floating point; default: all methods.
        floating_point: Whether to add the network in floating point.
        seeds: The seeds, or how many, which are then 0, 1, 2, ...
        own_recipes: Whether to take, instead of one recipe for all, every registered experiment
            with the same network and data set and one of the methods.
        output_dir: Where all is written; `None` is `runs/compare-EXPERIMENT`.
        resume: Whether to continue a comparison: finished runs stay, others go on from their last
            checkpoint, and what is new, such as a further seed, is added.
        overwrite: Whether to delete the runs that are there.
        command: The command line to record; default: that of this process.
        **overrides: Fields of the experiment to change, as values or as text.

    # Returns
        The content of `comparison.json`: for each method mean, sample standard deviation, smallest
        and largest of top-1 accuracy (0 to 1), loss (cross-entropy) and seconds, best method first;
        for each run its status and metrics.

    # Raises
        UsageError: if there is no such experiment, method or setting, or there are runs already.
        DatasetError: if the data is missing or damaged.
        TrainingError: if the results cannot be written; what fails in a run is in the result.
        TrainingInterrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    comparison = Comparison(
        experiment,
        methods=methods,
        floating_point=floating_point,
        seeds=seeds,
        own_recipes=own_recipes,
        output_dir=output_dir,
        **overrides,
    )
    command = list(command if command is not None else sys.argv)
    return comparison.run(resume=resume, overwrite=overwrite, command=command)


def _check_task(experiment: BaseExperiment) -> None:
    if not isinstance(experiment, Experiment):
        raise UsageError(
            f"A comparison is of classifiers, and {experiment.name} is none: train it once for "
            f"each method with `larq-ext train {experiment.name} quantizer=METHOD seed=SEED`."
        )


def _check_overrides(overrides: dict[str, Any]) -> None:
    for field, option in (("quantizer", "--methods"), ("seed", "--seeds")):
        if field in overrides:
            raise UsageError(
                f"{field} differs between the runs of a comparison: give {option} in its place, "
                f"received {field}={overrides[field]}."
            )


def _methods(names: Sequence[str] | None, floating_point: bool) -> list[str]:
    """The methods in the order of their table, floating point last."""
    known = [*METHODS, FLOAT]
    wanted = set(METHODS if names is None else names) | ({FLOAT} if floating_point else set())
    for name in wanted:
        if name not in known:
            raise UsageError(unknown_name("method", name, known))
    if not wanted:
        raise UsageError(f"Give one method or more of {', '.join(known)}.")
    return [name for name in known if name in wanted]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    result = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not result or len(set(result)) < len(result) or min(result) < 0:
        raise UsageError(
            "Seeds are how many, such as 3, or different numbers of 0 or more, such as 0,1,2; "
            f"received {seeds}."
        )
    return result


def _schedule_of(method: str | None, schedule: str) -> str:
    """The numbers of a `quantizer_schedule` that a method knows."""
    known = {} if method is None else schedule_numbers(method)
    parts = split_options(schedule)
    return ",".join(part for part in parts if part.partition("=")[0] in known)


def _check_schedule(schedule: str | None, methods: list[str]) -> None:
    """Whether each number is one of some method's."""
    if not isinstance(schedule, str | None):
        raise UsageError(
            "quantizer_schedule is a text such as 'alpha_rest=0.4,percent_start=10', received "
            f"{schedule!r}."
        )
    known = {number for name in methods if name != FLOAT for number in schedule_numbers(name)}
    for key in split_words(split_options(schedule or "")):
        if key not in known:
            raise UsageError(
                f"quantizer_schedule={schedule}: the schedules of {', '.join(methods)} have no "
                f"number {key!r}; those that can be given are {', '.join(sorted(known)) or 'none'}."
            )


def _with_method(experiment: Experiment, method: str, schedule: str) -> Experiment:
    """The experiment with another method."""
    if method != FLOAT:
        own = _schedule_of(method, schedule)
        return experiment.replace(quantizer=method, quantizer_schedule=own)
    # What only binary layers have a use for.
    return experiment.replace(
        quantizer=None,
        binarize="all",
        first_step_epochs=0,
        binary_optimizer="same",
        quantizer_learning_rate=None,
        quantizer_schedule="",
        bfloat16_convolutions=False,
    )


def _recipe(experiment: Experiment) -> str:
    parts = ["two-step" if experiment.first_step_epochs else "one-step"]
    if experiment.teacher is not None:
        parts.append("distilled")
    return ", ".join(parts)


def _epochs(experiment: Experiment) -> str:
    first = f"{experiment.first_step_epochs}+" if experiment.first_step_epochs else ""
    return f"{first}{experiment.epochs}"
