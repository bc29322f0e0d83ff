"""What the zoo knows about a model: plain data, checked field by field."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from larq_ext._models_io import SUFFIXES
from larq_ext_zoo import _checks
from larq_ext_zoo._checks import check, is_count, is_file_name, is_number, is_text
from larq_ext_zoo._class_lists import CLASS_LISTS
from larq_ext_zoo._preprocessing import Preprocessing

RECIPE_CLASSES = ("untrained", "one-step", "two-step", "distilled", "two-step, distilled")
# Fields of an entry in memory alone.
_NOT_IN_FILES = ("network_name", "folder")
TASKS = ("classification", "pose")
FORMS = ("deployable", "training")
FLOATS = ("float32", "float16")


@dataclass(frozen=True)
class Paper:
    """The paper of a method.

    # Arguments
        title: Its title.
        arxiv: Its arXiv id, such as `"2103.00841"`, or `None`.
    """

    title: str
    arxiv: str | None = None

    def __post_init__(self) -> None:
        check(is_text(self.title), "title", "a text", self.title)
        right = self.arxiv is None or bool(re.fullmatch(r"\d{4}\.\d{4,5}", str(self.arxiv)))
        check(right, "arxiv", 'an id like "2103.00841" or null', self.arxiv)


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, without its content.

    # Arguments
        file: Its name, without a folder.
        sha256: SHA-256 of its content, hexadecimal.
        bytes: Its size.
        floats: What the values are stored in that are not binary, `"float32"` or `"float16"`.
        mirrors: Addresses of folders that have the file, tried in this order.
    """

    file: str
    sha256: str
    bytes: int
    floats: str = "float32"
    mirrors: Sequence[str] = ()

    def __post_init__(self) -> None:
        check(is_file_name(self.file), "file", "a file name without a folder", self.file)
        right = bool(re.fullmatch("[0-9a-f]{64}", str(self.sha256)))
        check(right, "sha256", "64 hexadecimal digits in lower case", self.sha256)
        check(is_count(self.bytes), "bytes", "a number of bytes", self.bytes)
        check(self.floats in FLOATS, "floats", f"one of {list(FLOATS)}", self.floats)
        right = isinstance(self.mirrors, list | tuple) and all(
            isinstance(mirror, str) and mirror.startswith(("http://", "https://"))
            for mirror in self.mirrors
        )
        check(right, "mirrors", "a list of http(s) addresses", self.mirrors)
        object.__setattr__(self, "mirrors", tuple(self.mirrors))


@dataclass(frozen=True)
class Accuracy:
    """Measured accuracy, with its history.

    # Arguments
        value: Share of right answers of the stored weights, from 0 to 1.
        mean: Mean over the seeds.
        spread: Standard deviation over the seeds (of a sample), or `None` for one seed.
        seeds: The seeds; the first is that of the stored weights.
        data: What it was measured on, such as `"10000 test images of cifar10"`.
        how: What was run, and on which form of the network.
        metric: What is measured.
    """

    value: float
    mean: float
    spread: float | None
    seeds: Sequence[int]
    data: str
    how: str
    metric: str = "top-1"

    def __post_init__(self) -> None:
        for name in ("value", "mean"):
            right = is_number(getattr(self, name)) and 0 <= getattr(self, name) <= 1
            check(right, name, "a share from 0 to 1", getattr(self, name))
        right = isinstance(self.seeds, list | tuple) and len(self.seeds) > 0
        right = right and all(is_count(seed, 0) for seed in self.seeds)
        check(right, "seeds", "a list of integers", self.seeds)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if len(self.seeds) == 1:
            check(self.spread is None, "spread", "null for a single seed", self.spread)
        else:
            right = is_number(self.spread) and self.spread >= 0
            check(right, "spread", "a number of 0 or more", self.spread)
        for name in ("data", "how", "metric"):
            check(is_text(getattr(self, name)), name, "a text", getattr(self, name))


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    # Arguments
        name: `architecture.tag`.
        network: Name of a function of `larq_ext_zoo` that makes the network, or the function.
        arguments: What the function is called with.
        description: One line.
        input_size: Height, width and channels.
        paper: Title and arXiv id of the method's paper.
        recipe_class: `"untrained"`, `"one-step"`, `"two-step"`, `"distilled"` or `"two-step,
            distilled"`.
        preprocessing: What is done to images, or `None` if it is not known.
        classes: Class names in the order of the outputs, or the name of a class list.
        weights: The files of weights by form, `"deployable"` and `"training"`; empty if the model
            is not trained.
        accuracy: What was measured.
        recipe: How it was trained: `experiment`, `log` and `curve` (files beside the entry), and
            more.
        licence: Licence of the weights, as an SPDX identifier.
        network_name: The name of the network in files; `None` is the function's own.
        folder: Where the entry was read from; its files are looked for there first.
        task: `"classification"`, or `"pose"` for a network that makes heatmaps of keypoints.
    """

    name: str
    network: str | Callable[..., tf.keras.Model]
    arguments: Mapping[str, Any]
    description: str
    input_size: Sequence[int]
    paper: Paper | None = None
    recipe_class: str = "untrained"
    preprocessing: Preprocessing | None = None
    classes: Sequence[str] | str | None = None
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    recipe: Mapping[str, Any] | None = None
    licence: str = "Apache-2.0"
    network_name: str | None = None
    folder: pathlib.Path | None = None
    task: str = "classification"

    def __post_init__(self) -> None:
        right = isinstance(self.name, str) and re.fullmatch(
            r"[a-z0-9][a-z0-9_-]*\.[a-z0-9][a-z0-9._-]*", self.name
        )
        check(bool(right), "name", '"architecture.tag" in lower case', self.name)
        # Commands would take it for a file's.
        check(not self.name.endswith(SUFFIXES), "name", "without a file's suffix", self.name)
        right = callable(self.network) or is_text(self.network)
        check(right, "network", "the name of a network", self.network)
        right = isinstance(self.arguments, Mapping)
        check(right, "arguments", "an object", self.arguments)
        check(is_text(self.description), "description", "a text", self.description)
        check("\n" not in self.description, "description", "one line", self.description)
        right = isinstance(self.input_size, list | tuple) and len(self.input_size) == 3
        right = right and all(map(is_count, self.input_size))
        check(right, "input_size", "[height, width, channels]", self.input_size)
        object.__setattr__(self, "input_size", tuple(self.input_size))
        right = self.recipe_class in RECIPE_CLASSES
        check(right, "recipe_class", f"one of {list(RECIPE_CLASSES)}", self.recipe_class)
        check(self.task in TASKS, "task", f"one of {list(TASKS)}", self.task)
        check(is_text(self.licence), "licence", "a text", self.licence)
        self._check_classes()
        self._read_parts()
        self._check_together()

    def check_task(self, task: str, instead: str) -> None:
        """Refuses an entry that is for another task.

        # Raises
            ValueError: with what to do instead.
        """
        if self.task != task:
            raise ValueError(f"{self.name} is for {self.task}, not for {task}: {instead}.")

    def _check_classes(self) -> None:
        if self.task != "classification":
            check(self.classes is None, "classes", f"null for {self.task}", self.classes)
        if isinstance(self.classes, str):
            known = f"a list of names or one of {sorted(CLASS_LISTS)}"
            check(self.classes in CLASS_LISTS, "classes", known, self.classes)
        elif self.classes is not None:
            right = isinstance(self.classes, list | tuple) and len(self.classes) > 0
            right = right and all(map(is_text, self.classes))
            check(right, "classes", "a list of names", self.classes)
            object.__setattr__(self, "classes", tuple(self.classes))
        count, names = self.arguments.get("num_classes"), self.class_names
        fit = count is None or names is None or count == len(names)
        check(fit, "classes", f"as many as `num_classes`, {count}", self.classes)

    def _read_parts(self) -> None:
        for name, cls in (
            ("paper", Paper),
            ("preprocessing", Preprocessing),
            ("accuracy", Accuracy),
        ):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checks.part(cls, name, value))
        if self.preprocessing is not None:
            try:
                self.preprocessing.check_size(self.input_size)
            except ValueError as error:
                raise ValueError(f"`preprocessing`: {error}") from error
        check(isinstance(self.weights, Mapping), "weights", "an object", self.weights)
        weights = {}
        for form, value in self.weights.items():
            check(form in FORMS, "weights", f"an object with keys of {list(FORMS)}", form)
            weights[form] = _checks.part(WeightsFile, f"weights.{form}", value)
        object.__setattr__(self, "weights", weights)

    def _check_together(self) -> None:
        trained = self.recipe_class != "untrained"
        check(
            trained == bool(self.weights),
            "weights",
            "there exactly if `recipe_class` is not 'untrained'",
            {"recipe_class": self.recipe_class, "weights": sorted(self.weights)},
        )
        check(trained or self.accuracy is None, "accuracy", "null without weights", self.accuracy)
        if trained:
            right = isinstance(self.recipe, Mapping) and is_text(self.recipe.get("experiment"))
            check(right, "recipe", "an object with the name of the `experiment`", self.recipe)
        if self.recipe is not None:
            check(isinstance(self.recipe, Mapping), "recipe", "an object", self.recipe)
            for part in ("log", "curve"):
                file = self.recipe.get(part)
                check(file is None or is_file_name(file), f"recipe.{part}", "a file name", file)

    @property
    def pretrained(self) -> bool:
        """Whether there are weights."""
        return bool(self.weights)

    @property
    def num_classes(self) -> int | None:
        """How many classes the network has, if the entry says so."""
        count = self.arguments.get("num_classes")
        return count if count is not None else len(self.class_names or ()) or None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the outputs, if they are known."""
        if isinstance(self.classes, str):
            return CLASS_LISTS[self.classes]
        return None if self.classes is None else tuple(self.classes)

    @property
    def name_in_files(self) -> str:
        """What files call the network."""
        if self.network_name is not None or isinstance(self.network, str):
            return self.network_name or self.network
        return getattr(self.network, "__name__", type(self.network).__name__)

    def to_dict(self) -> dict[str, Any]:
        """All fields but the folder, as JSON has them."""
        values = {**dataclasses.asdict(self), "network": self.name_in_files}
        for field_of_here in _NOT_IN_FILES:
            del values[field_of_here]
        return json.loads(json.dumps(values))


def read_entry(path: pathlib.Path, networks: Mapping[str, Callable[..., tf.keras.Model]]) -> Entry:
    """Reads an entry from its JSON file.

    # Arguments
        path: The file.
        networks: Functions that make networks, by name.

    # Raises
        ValueError: if it is no entry; the message names the file and the field.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The entry {path} is no JSON: {error}.") from error
    try:
        entry = _checks.read(Entry, values)
        for name in _NOT_IN_FILES:
            check(name not in values, name, "not for files", "it")
        entry = with_network(entry, networks)
    except ValueError as error:
        raise ValueError(f"The entry {path} is malformed: {error}.") from error
    return dataclasses.replace(entry, folder=path.parent)


def with_network(entry: Entry, networks: Mapping[str, Callable[..., tf.keras.Model]]) -> Entry:
    """The entry with the function that makes its network, where it has the name of one.

    # Raises
        ValueError: if there is none of this name.
    """
    if not isinstance(entry.network, str):
        return entry
    name = entry.network
    if name not in networks:
        raise ValueError(f"`network`: there is no {name!r}.{_checks.near(name, networks)}")
    return dataclasses.replace(entry, network=networks[name], network_name=name)
