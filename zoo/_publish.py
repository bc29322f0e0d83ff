"""Makes an entry of the zoo, with its files of weights, from the folder of a training run."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._files import locked, together
from larq_ext._models_io import load_model
from larq_ext._scope import fresh_names, quantized_scope
from larq_ext._text import read_option, split_options
from larq_ext_zoo import _checks, _store, _weights, registry
from larq_ext_zoo._architectures import ARCHITECTURES, PAPERS
from larq_ext_zoo._data import DATASETS
from larq_ext_zoo._entry import FLOATS, Accuracy, Entry, Paper, WeightsFile
from larq_ext_zoo._evaluations import SCORES, evaluated_accuracy, read_evaluation
from larq_ext_zoo._preprocessing import Preprocessing

# What differs between runs that are the same but for the seed.
_FREE = ("name", "description", "seed", "data_dir", "output_dir", "progress", "evaluate_every")
_FREE_PREFIXES = ("checkpoint_",)


def add_entry(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    name: str,
    folder: str | pathlib.Path | None = None,
    *,
    description: str | None = None,
    recipe_class: str | None = None,
    floats: str = "float32",
    evaluation: Mapping[str, Any] | str | pathlib.Path | None = None,
    mirrors: Sequence[str] = (),
    licence: str = "Apache-2.0",
    paper: Paper | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | str | None = None,
    networks: Mapping[str, Callable[..., tf.keras.Model]] | None = None,
    overwrite: bool = False,
) -> Entry:
    """Makes an entry from training runs and writes it with its files of weights.

    The entry has both forms of the weights, and each was loaded again and computed the same
    before it is written: the training form as `model.keras`, the deployable one as
    `larq_ext.deploy.bake` of it, bit for bit (with `floats="float16"`: the kernels are the same,
    and the accuracy is that of `evaluation`, because rounding changes the outputs).

    # Arguments
        runs: Folder of a run (`model.keras`, `metrics.json`, `log.csv`), or several folders of
            the same experiment with other seeds: the weights of the first are stored, and mean
            and spread are over all.
        name: `architecture.tag`, such as `"resnet20.mine"`.
        folder: Where to write. `None` is the folder `entries` in `LARQ_EXT_HOME` (default:
            `~/.larq_ext`), whose entries the zoo always knows.
        description: One line; `None` makes one.
        recipe_class: `"one-step"`, `"two-step"`, `"distilled"` or `"two-step, distilled"`; `None`
            tells it by the configuration.
        floats: What the deployable form stores values in that are not binary: `"float32"`, or
            `"float16"` for a smaller file.
        evaluation: What `larq-ext evaluate --json` printed, or the file with it: the accuracy of
            the stored deployable form (by its name), or of the `.tflite` file made of it, which
            still has to be there.
        mirrors: Addresses of folders that will have the files.
        licence: Licence of the weights, as an SPDX identifier.
        paper: The paper; `None` is that of the quantizer.
        preprocessing: What is done to images; `None` is that of the run's data set.
        classes: Class names or the name of a class list; `None` is that of the run's data set.
        networks: Functions that make networks by the names in the runs, if they are not the
            zoo's.
        overwrite: Whether an entry of this name in the folder is replaced.

    # Returns
        The entry, which the zoo now knows.

    # Raises
        FileNotFoundError: if a file of a run is missing.
        ValueError: if the runs do not belong together, the network or the data set is unknown, the
            name is taken, or the weights do not compute the same when they are loaded again.
    """
    _checks.check(floats in FLOATS, "floats", f"one of {list(FLOATS)}", floats)
    known = _store.home() / "entries"
    folder = known if folder is None else pathlib.Path(folder).expanduser().resolve()
    if isinstance(runs, str | pathlib.Path):
        runs = [runs]
    folders = [pathlib.Path(run).expanduser() for run in runs]
    registry.check_free(name, folder)
    _check_absent(folder, name, overwrite)
    metrics = [_read_json(run / "metrics.json") for run in folders]
    first = metrics[0]
    _check_same(folders, metrics)
    configuration = first["configuration"]
    recipe_class = recipe_class or _recipe_class(configuration)
    if configuration.get("binarize", "all") != "all":
        raise ValueError(
            f"{folders[0]} has real kernels (binarize={configuration['binarize']}): an entry of "
            "the zoo is binary, or real throughout."
        )
    network = _network(configuration["network"], networks or {})
    if network not in registry.NETWORKS.values() and folder == known:
        raise ValueError(
            f"The zoo reads {folder} by itself and would not know {configuration['network']!r}: "
            "give another folder, and read it with register_folder(folder, networks=...)."
        )
    trained = load_model(_existing(folders[0] / "model.keras"))
    task = _task(first)
    arguments = {
        "quantizer": configuration["quantizer"],
        "num_keypoints" if task == "pose" else "num_classes": int(trained.output_shape[-1]),
        "input_shape": list(trained.input_shape[1:]),
        **_options(configuration.get("network_options")),
    }
    _check_name(name, configuration["network"], network, arguments)
    data = DATASETS.get(configuration["dataset"])
    if data is None and preprocessing is None:
        raise ValueError(
            f"The zoo does not know how images of {configuration['dataset']!r} are prepared: give "
            f"`preprocessing` (and `classes`). Known: {', '.join(sorted(DATASETS))}."
        )
    log = _existing(folders[0] / "log.csv")
    draft = Entry(
        name=name,
        network=network,
        arguments=arguments,
        description=description or _description(network, configuration, recipe_class),
        input_size=arguments["input_shape"],
        paper=paper or _paper(name, configuration["quantizer"]),
        preprocessing=preprocessing or data.for_side(arguments["input_shape"][0]),
        classes=classes or (data and data.classes) or first.get("classes"),
        licence=licence,
        network_name=configuration["network"],
        folder=folder,
        task=task,
    )
    folder.mkdir(parents=True, exist_ok=True)
    # Without the lock, files of two publishers could mix.
    with locked(folder, wait=True), together() as new_file:
        _check_absent(folder, name, overwrite)
        with quantized_scope(False):
            weights, baked = _write_weights(new_file, draft, trained, floats, tuple(mirrors))
        beside = {"log": f"{name}.log.csv"}
        shutil.copyfile(log, new_file(folder / beside["log"]))
        curve = folders[0] / "learning_curve.png"
        if curve.is_file():  # where matplotlib was not there, it is not
            beside["curve"] = f"{name}.curve.png"
            shutil.copyfile(curve, new_file(folder / beside["curve"]))
        entry = dataclasses.replace(
            draft,
            recipe_class=recipe_class,
            weights=weights,
            accuracy=_accuracy(task, metrics, floats)
            if evaluation is None
            else evaluated_accuracy(
                name, task, metrics, read_evaluation(evaluation), weights["deployable"], baked
            ),
            recipe=_recipe(metrics, beside),
        )
        # The last one: without it there is no entry.
        text = json.dumps(entry.to_dict(), indent=2) + "\n"
        new_file(folder / f"{name}.json").write_text(text, encoding="utf-8")
    registry.write_over(entry)
    return entry


def _check_absent(folder: pathlib.Path, name: str, overwrite: bool) -> None:
    if (folder / f"{name}.json").exists() and not overwrite:
        raise ValueError(f"{folder} already has an entry {name}: take another name or overwrite.")


def _existing(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}: a finished run has model.keras, metrics.json and log.csv."
        )
    return path


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = json.loads(_existing(path).read_text(encoding="utf-8"))
        for field in ("experiment", "seed", "epochs", "evaluated_on", "configuration"):
            if field not in values:
                raise ValueError(f"`{field}` is missing")
        for field in ("network", "quantizer", "dataset"):
            if field not in values["configuration"]:
                raise ValueError(f"`configuration.{field}` is missing")
        if not any(score in values for score, _ in SCORES.values()):
            raise ValueError("`top1` (of a pose network `AP`) is missing")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no record of a run: {error}.") from error
    return values


def _task(metrics: Mapping[str, Any]) -> str:
    return next(task for task, (score, _) in SCORES.items() if score in metrics)


def _check_same(folders: Sequence[pathlib.Path], metrics: Sequence[Mapping[str, Any]]) -> None:
    """Whether the runs differ by their seed alone."""
    first = _recorded(metrics[0])
    for folder, values in zip(folders[1:], metrics[1:], strict=True):
        other = _recorded(values)
        for field in sorted(first.keys() | other.keys()):
            here, there = other.get(field), first.get(field)
            # An older version had no such setting, or none of its use.
            is_new = not (field in first and field in other) and not (here or there)
            if here != there and not is_new:
                raise ValueError(
                    f"{folder} is another experiment than {folders[0]}: {field} is {here!r}, "
                    f"there {there!r}."
                )
    seeds = [values["seed"] for values in metrics]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"Runs for a mean have different seeds, received {seeds}.")


def _recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be equal in runs of one experiment."""
    configuration = {
        field: value
        for field, value in metrics["configuration"].items()
        if field not in _FREE and not field.startswith(_FREE_PREFIXES)
    }
    return {
        **configuration,
        "epochs trained": metrics["epochs"],
        "data": str(metrics.get("data")).partition("+")[0],  # pictures may have been repaired
        "evaluated on": metrics["evaluated_on"],
        "SHA-256 of the teacher": metrics.get("sources", {}).get("teacher"),
    }


def _network(
    name: str, own: Mapping[str, Callable[..., tf.keras.Model]]
) -> Callable[..., tf.keras.Model]:
    if name in own:
        return own[name]
    if name not in registry.NETWORKS:
        raise ValueError(
            f"The run's network {name!r} is none of the zoo's: give it in `networks`."
            f"{_checks.near(name, registry.NETWORKS)}"
        )
    return registry.NETWORKS[name]


def _check_name(
    name: str,
    network_name: str,
    network: Callable[..., tf.keras.Model],
    arguments: Mapping[str, Any],
) -> None:
    """Whether the first part of a name is that of another architecture."""
    first = name.split(".")[0]
    in_zoo = network in registry.NETWORKS.values()
    fitting = [
        key
        for key, architecture in ARCHITECTURES.items()
        if architecture.network == network_name
        and all(
            arguments.get(argument, registry.default_of(network, argument)) == value
            for argument, value in architecture.arguments.items()
        )
    ]
    if first in fitting or (first not in ARCHITECTURES and not (in_zoo and fitting)):
        return
    wanted = " or ".join(f"{architecture}.TAG" for architecture in fitting)
    raise ValueError(
        f"The run's network is {network_name} with {dict(arguments)}: its name is "
        f"{wanted or 'one that no architecture of the zoo has'}, received {name!r}."
    )


def _options(options: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Further arguments of a network, from `key=value,key=value`."""
    if not isinstance(options, str):
        return dict(options or {})
    values: dict[str, Any] = {}
    for part in split_options(options):
        key, _, text = part.partition("=")
        value = read_option(text)
        values[key] = list(value) if isinstance(value, tuple) else value  # as JSON has it
    return values


def _write_weights(
    new_file: Callable[[pathlib.Path], pathlib.Path],
    entry: Entry,
    trained: tf.keras.Model,
    floats: str,
    mirrors: tuple[str, ...],
) -> tuple[dict[str, WeightsFile], tf.keras.Model]:
    """Writes both forms and loads them again; gives the deployable one as it is stored too."""
    baked = _weights.bake(trained)
    images = np.random.default_rng(0).normal(size=(4, *entry.input_size)).astype("float32")
    with fresh_names():
        network = entry.network(**entry.arguments)
    written = {}
    for form, original, copy in (
        ("training", trained, network),
        ("deployable", baked, _weights.bake(network)),
    ):
        stored = floats if form == "deployable" else "float32"
        path = entry.folder / f"{entry.name}.{form}.safetensors"
        temporary = new_file(path)
        function = entry.name_in_files
        sha256 = _weights.save(temporary, original, form=form, network=function, floats=stored)
        _weights.load(temporary, copy, form=form, network=function)
        outputs = copy(images, training=False)
        same = stored == "float16" or np.array_equal(outputs, original(images, training=False))
        if not same or not np.isfinite(outputs).all():
            raise ValueError(
                f"{function} with the arguments {dict(entry.arguments)} does not compute what "
                f"model.keras does ({form} form): the run has settings of the network that its "
                "configuration does not tell."
            )
        size = temporary.stat().st_size
        written[form] = WeightsFile(path.name, sha256, size, stored, mirrors)
    return dict(sorted(written.items())), copy


def _accuracy(task: str, metrics: Sequence[Mapping[str, Any]], floats: str) -> Accuracy | None:
    """What the runs measured: not that of weights that were rounded."""
    if floats != "float32":
        return None
    score, metric = SCORES[task]
    shares = [float(values[score]) for values in metrics]
    first = metrics[0]
    return Accuracy(
        value=shares[0],
        mean=statistics.fmean(shares),
        spread=statistics.stdev(shares) if len(shares) > 1 else None,
        seeds=[values["seed"] for values in metrics],
        data=f"{first['evaluated_on']} of {first['configuration']['dataset']}",
        how="larq-ext train, at its end, in the training form",
        metric=metric,
    )


def _recipe_class(configuration: Mapping[str, Any]) -> str:
    # What a run started from (`initial_weights`) may be anything; the configuration names it.
    steps = "two-step" if configuration.get("first_step_epochs") else "one-step"
    if not configuration.get("teacher"):
        return steps
    return "distilled" if steps == "one-step" else "two-step, distilled"


def _description(
    network: Callable[..., tf.keras.Model], configuration: Mapping[str, Any], recipe_class: str
) -> str:
    """The network's own line tells of it as it is made without arguments, and binarized."""
    method, options = configuration["quantizer"], configuration.get("network_options")
    usual = [a.data for a in ARCHITECTURES.values() if a.network == configuration["network"]]
    what = registry.what(network)
    if method is None or options or configuration["dataset"] not in usual:
        what = configuration["network"] + (f" with {options}" if options else "")
    how = "distilled, " if "distilled" in recipe_class else ""
    return f"{what}; {method or 'in floating point'}, {how}trained on {configuration['dataset']}"


def _paper(name: str, quantizer: str | None) -> Paper | None:
    """That of the quantizer, or else of the architecture if it is one of the zoo's."""
    architecture = ARCHITECTURES.get(name.split(".")[0])
    return PAPERS.get(quantizer) or (architecture.paper if architecture else None)


def _recipe(metrics: Sequence[Mapping[str, Any]], beside: Mapping[str, str]) -> dict[str, Any]:
    """How the weights came about; folders of somebody's machine are not part of it."""
    first = metrics[0]
    configuration = {
        field: pathlib.PurePath(value).name if _is_path(value) else value
        for field, value in first["configuration"].items()
        if field not in ("data_dir", "output_dir", "progress")
    }
    kept = ("epochs", "changed", "data", "sources", "hardware", "versions", "sessions", "seconds")
    return {
        "experiment": first["experiment"],
        **beside,
        "configuration": configuration,
        **{field: first[field] for field in kept if field in first},
        "accuracies": {str(values["seed"]): values[SCORES[_task(values)][0]] for values in metrics},
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and pathlib.PurePath(value).is_absolute()
