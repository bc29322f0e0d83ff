"""The models of the zoo by name: `architecture.tag`, an architecture and what it was made with."""

from __future__ import annotations

import fnmatch
import inspect
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf
from tf_keras.src.backend import unique_object_name

from larq_ext._scope import fresh_names
from larq_ext_zoo import _checks, _store, _weights, classification, pose
from larq_ext_zoo._architectures import ARCHITECTURES
from larq_ext_zoo._data import DATASETS
from larq_ext_zoo._entry import FORMS, Entry, read_entry, with_network

NETWORKS: dict[str, Callable[..., tf.keras.Model]] = {
    name: getattr(room, name) for room in (classification, pose) for name in room.__all__
}
# The entries of the package.
SHIPPED = pathlib.Path(__file__).resolve().parent / "entries"
_ENTRIES: dict[str, Entry] = {}
# What was read of the two known folders: their files, and when these were written.
_FOLDERS: dict[pathlib.Path, dict[pathlib.Path, int]] = {}


def register(entry: Entry) -> Entry:
    """Adds an entry of your own.

    # Arguments
        entry: The entry. Its `network` may be any function with the arguments of the zoo's.

    # Returns
        The entry, with the function if it had the name of one.

    # Raises
        ValueError: if the name is taken, or there is no network of that name.
    """
    check_free(entry.name, None)
    _ENTRIES[entry.name] = with_network(entry, NETWORKS)
    return _ENTRIES[entry.name]


def register_folder(
    folder: str | pathlib.Path,
    networks: Mapping[str, Callable[..., tf.keras.Model]] | None = None,
) -> list[Entry]:
    """Adds the entries of a folder: all its `.json` files, or none if one is wrong.

    The folders `entries` in the package and in `LARQ_EXT_HOME` (default: `~/.larq_ext`) are known
    without this.

    # Arguments
        folder: Where the entries and the files they name are, as `add_entry` writes them.
        networks: Functions that make networks, by the names the entries use, for networks that
            are not the zoo's.

    # Returns
        The new entries.

    # Raises
        FileNotFoundError: if there is no such folder.
        ValueError: if an entry is malformed, with its file and field, or a name is taken.
    """
    folder = pathlib.Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    _entries()  # else a name that is known only later would clash there
    return _read_folder(folder, networks)


def _read_folder(
    folder: pathlib.Path,
    networks: Mapping[str, Callable[..., tf.keras.Model]] | None = None,
    *,
    leave_out: bool = False,
) -> list[Entry]:
    """Adds the entries of a folder; `leave_out` those that cannot be added, with a warning."""
    known = {**NETWORKS, **(networks or {})}
    entries = []
    for path in sorted(_files(folder)):
        try:
            entries.append(read_entry(path, known))
        except ValueError as error:
            if not leave_out:
                raise
            warnings.warn(f"A model of your own is left out. {error}", stacklevel=4)
    names = [entry.name for entry in entries]
    for entry in list(entries):
        other = _ENTRIES.get(entry.name, entry)
        if other.folder != folder or names.count(entry.name) > 1:
            message = (
                f"The entry {entry.name!r} in {folder} clashes with another of that name"
                f"{_origin(other)}: give it another name."
            )
            if not leave_out:
                raise ValueError(message)
            warnings.warn(f"A model of your own is left out. {message}", stacklevel=4)
            entries.remove(entry)
    # One that was just published there is read again, from the same file.
    _ENTRIES.update({entry.name: entry for entry in entries})
    return entries


def _files(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    """The files of entries in a folder, each with the time when it was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.glob("*.json")
        if not path.name.startswith(".")
    }


def write_over(entry: Entry) -> None:
    """Adds an entry that was just written to its folder, in the place of the one from there."""
    check_free(entry.name, entry.folder)
    _ENTRIES[entry.name] = entry


def check_free(name: str, folder: pathlib.Path | None) -> None:
    """Raises a `ValueError` if an entry from elsewhere has the name."""
    other = _entries().get(name)
    if other is not None and (other.folder is None or other.folder != folder):
        raise ValueError(
            f"The zoo already has a model {name!r}{_origin(other)}: take another name."
        )


def _origin(entry: Entry) -> str:
    return "" if entry.folder is None else f" (from {entry.folder})"


def _entries() -> dict[str, Entry]:
    """All entries; what lies in the two known folders is read when it is first asked for.

    The user's folder is read again when something in it has changed: another process publishes.
    """
    if SHIPPED not in _FOLDERS:
        _read_folder(SHIPPED)
        _FOLDERS[SHIPPED] = {}
    try:
        own = _store.home() / "entries"
        files = _files(own)
        if files != _FOLDERS.get(own, {}):
            before = {name: entry for name, entry in _ENTRIES.items() if entry.folder == own}
            networks = {entry.name_in_files: entry.network for entry in before.values()}
            there = {entry.name for entry in _read_folder(own, networks, leave_out=True)}
            for name in before.keys() - there:
                del _ENTRIES[name]
            _FOLDERS[own] = files
    except (ValueError, OSError, RuntimeError) as error:
        # What is wrong with the user's folder must not keep them from the models of the package.
        message = "Your own models are left out (or stay as they were) until this is mended"
        warnings.warn(f"{message}: {error}", stacklevel=3)
    return _ENTRIES


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the models, sorted.

    # Arguments
        pattern: Shell-style wildcard, such as `"resnet20*"`; without `*`, `?` and `[` any part of
            the name.
        pretrained: Whether to list only those with trained weights.

    # Returns
        The names.
    """
    entries = _entries()
    if not set(pattern) & set("*?["):
        pattern = f"*{pattern}*"
    names = fnmatch.filter(sorted(entries), pattern)
    return [name for name in names if not pretrained or entries[name].pretrained]


def entry(name: str) -> Entry:
    """The entry of this name.

    # Raises
        ValueError: if there is none, with the names that come near.
    """
    entries = _entries()
    if name not in entries:
        raise ValueError(f"The zoo has no model {name!r}.{_checks.near(name, entries)}")
    return entries[name]


def get(
    name: str, *, form: Literal["deployable", "training"] = "deployable", **kwargs: Any
) -> tf.keras.Model:
    """Makes the model of this name, with its trained weights if it has any.

    # Arguments
        name: A name of `list_models()`.
        form: What a trained model is for. `"deployable"` has kernels of +-1, as
            `larq_ext.deploy.bake` makes them, to predict, to take features from and to convert;
            its file is small. `"training"` is the network as it was trained, with its latent
            weights, to train on. A model that is not trained is always the network to train.
        **kwargs: Arguments of the network instead of the entry's, such as
            `include_top=False`, `num_classes` or `input_shape`; `weights=None` makes the
            network without its trained weights.

    # Returns
        The model.

    # Raises
        ValueError: for an unknown name, with the names that come near; for arguments that do not
            go with trained weights; if a file of weights is damaged.
        FileNotFoundError: if the weights are not here and cannot be downloaded.
    """
    found = entry(name)
    if form not in FORMS:
        raise ValueError(f"`form` is one of {list(FORMS)}, received {form!r}.")
    arguments = {**found.arguments, **kwargs}
    if not found.pretrained or "weights" in kwargs:
        return found.network(**arguments)
    _check_arguments(found, kwargs)
    path = _store.find(found, form)  # before the network, which takes longer
    with fresh_names():
        model = found.network(**arguments)
    if re.fullmatch(r"(model|sequential)(_\d+)?", model.name):
        # Layers are found by their names, but two models without one go into the same model.
        model._name = unique_object_name("model", zero_based=True)
    if form == "deployable":
        model = _weights.bake(model)
        for layer in model.layers:
            if isinstance(layer, lqx.deploy.BinaryConv2D):
                layer.trainable = False  # a gradient step would take its kernels off +-1
    _weights.load(
        path,
        model,
        form=form,
        network=found.name_in_files,
        without_top=not arguments.get("include_top", True),
    )
    return model


def _check_arguments(entry: Entry, kwargs: Mapping[str, Any]) -> None:
    """Whether these arguments leave the trained network what it is."""
    free = {"include_top", "input_shape"}
    if entry.task == "classification":
        free.add("num_classes")
    for name, value in kwargs.items():
        if name == "input_tensor" and value is not None:
            raise ValueError(
                f"{entry.name} has trained weights and is no part of another model while they are "
                f"loaded: leave input_tensor out and call the model, get({entry.name!r})(tensor)."
            )
        if name == "num_classes" and name in free and value != entry.num_classes:
            if kwargs.get("include_top", True):
                raise ValueError(
                    f"{entry.name} was trained for {entry.num_classes} classes, received "
                    f"num_classes={value}: give include_top=False and add a classifier of your "
                    "own (form='training' trains the rest too), or weights=None for a network that "
                    "is not trained."
                )
        elif not _has_argument(entry, name):
            raise ValueError(f"The network of {entry.name} has no argument {name!r}.")
        elif name not in free and not _same(value, _default(entry, name)):
            raise ValueError(
                f"{entry.name} was trained with {name}={_default(entry, name)!r}, received "
                f"{value!r}: give weights=None for a network that is not trained."
            )


def _has_argument(entry: Entry, name: str) -> bool:
    parameters = inspect.signature(entry.network).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _same(value: Any, other: Any) -> bool:
    """Whether two arguments are equal, of which one may come from JSON."""
    listed = [list(one) if isinstance(one, tuple) else one for one in (value, other)]
    return listed[0] == listed[1]


def _default(entry: Entry, name: str) -> Any:
    """The value of an argument in the entry, or else the network's own."""
    return entry.arguments[name] if name in entry.arguments else default_of(entry.network, name)


def default_of(network: Callable[..., tf.keras.Model], name: str) -> Any:
    """The default of an argument of a network; `None` if it has none."""
    parameters = inspect.signature(network).parameters
    return parameters[name].default if name in parameters else None


def what(network: Callable[..., tf.keras.Model]) -> str:
    """The first line of a network's documentation, or its name."""
    text = inspect.getdoc(network)
    return text.splitlines()[0].rstrip(".") if text else network.__name__


def _register_untrained() -> None:
    for name, architecture in ARCHITECTURES.items():
        function = NETWORKS[architecture.network]
        data = DATASETS[architecture.data]
        for tag, paper in architecture.papers.items():
            method = {} if architecture.paper else {"quantizer": tag}
            _ENTRIES[f"{name}.{tag}"] = Entry(
                name=f"{name}.{tag}",
                network=function,
                arguments={**architecture.arguments, **method},
                description=f"{what(function)}; {tag}, not trained",
                input_size=inspect.signature(function).parameters["input_shape"].default,
                paper=paper,
                preprocessing=data.preprocessing,
                classes=data.classes,
                task=data.task,
            )


_register_untrained()
