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

from larq_ext._files import atomic
from larq_ext._models_io import load_model
from larq_ext._scope import quantized_scope
from larq_ext._text import read_option, split_options
from larq_ext_zoo import _checks, _store, _weights, registry
from larq_ext_zoo._architectures import ARCHITECTURES, PAPERS
from larq_ext_zoo._data import DATASETS
from larq_ext_zoo._entry import FLOATS, Accuracy, Entry, Paper, WeightsFile
from larq_ext_zoo._preprocessing import Preprocessing

# What tells how good a run is, for each task: in its metrics, and as people write it.
_SCORES = {"classification": ("top1", "top-1"), "pose": ("AP", "AP of keypoints")}
# What differs between runs that are the same but for the seed.
_FREE = ("name", "description", "seed", "data_dir", "output_dir", "progress")
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
        name: `architecture.tag`, such as `"resnet20.fda_cifar10"`.
        folder: Where to write. `None` is the folder `entries` in `LARQ_EXT_HOME` (default:
            `~/.larq_ext`), whose entries the zoo always knows.
        description: One line; `None` makes one.
        recipe_class: `"one-step"`, `"two-step"` or `"distilled"`; `None` tells it by the
            configuration.
        floats: What the deployable form stores values in that are not binary: `"float32"`, or
            `"float16"` for a smaller file.
        evaluation: What `larq-ext evaluate NAME --json` printed, or the file with it: the
            accuracy of the stored deployable form, or of the `.tflite` file made of it.
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
    folder = known if folder is None else pathlib.Path(folder).expanduser().absolute()
    if isinstance(runs, str | pathlib.Path):
        runs = [runs]
    folders = [pathlib.Path(run).expanduser() for run in runs]
    registry.check_free(name, folder)
    if (folder / f"{name}.json").exists() and not overwrite:
        raise ValueError(f"{folder} already has an entry {name}: take another name or overwrite.")
    metrics = [_read_json(run / "metrics.json") for run in folders]
    first = metrics[0]
    _check_same(folders, metrics)
    configuration = first["configuration"]
    network = _network(configuration["network"], networks or {}, name)
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
        description=description or _description(network, configuration),
        input_size=arguments["input_shape"],
        paper=paper or _paper(name, configuration["quantizer"]),
        preprocessing=preprocessing or data.for_side(arguments["input_shape"][0]),
        classes=classes or (data and data.classes) or first.get("classes"),
        licence=licence,
        folder=folder,
        task=task,
    )
    accuracy = _accuracy(name, task, metrics, evaluation, floats)  # before an old file is replaced
    with quantized_scope(False):
        weights = _write_weights(draft, trained, floats, tuple(mirrors))
    beside = {"log": f"{name}.log.csv"}
    with atomic(folder / beside["log"]) as temporary:
        shutil.copyfile(log, temporary)
    curve = folders[0] / "learning_curve.png"
    if curve.is_file():  # where matplotlib was not there, it is not
        beside["curve"] = f"{name}.curve.png"
        with atomic(folder / beside["curve"]) as temporary:
            shutil.copyfile(curve, temporary)
    entry = dataclasses.replace(
        draft,
        recipe_class=recipe_class or _recipe_class(configuration),
        weights=weights,
        accuracy=accuracy,
        recipe=_recipe(metrics, beside),
    )
    values = {**entry.to_dict(), "network": configuration["network"]}
    with atomic(folder / f"{name}.json") as temporary:  # last: without it there is no entry
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    registry.write_over(entry)
    return entry


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
        if not any(score in values for score, _ in _SCORES.values()):
            raise ValueError("`top1` (of a pose network `AP`) is missing")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no record of a run: {error}.") from error
    return values


def _task(metrics: Mapping[str, Any]) -> str:
    return next(task for task, (score, _) in _SCORES.items() if score in metrics)


def _check_same(folders: Sequence[pathlib.Path], metrics: Sequence[Mapping[str, Any]]) -> None:
    """Whether the runs differ by their seed alone."""
    first = _recorded(metrics[0])
    for folder, other in zip(folders[1:], metrics[1:], strict=True):
        for field in sorted(first.keys() | _recorded(other).keys()):
            if first.get(field) != _recorded(other).get(field):
                raise ValueError(
                    f"{folder} is another experiment than {folders[0]}: {field} is "
                    f"{_recorded(other).get(field)!r}, there {first.get(field)!r}."
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
    return {**configuration, "data": metrics.get("data"), "evaluated on": metrics["evaluated_on"]}


def _network(
    name: str, own: Mapping[str, Callable[..., tf.keras.Model]], entry_name: str
) -> Callable[..., tf.keras.Model]:
    if name in own:
        return own[name]
    if name not in registry.NETWORKS:
        raise ValueError(
            f"The run's network {name!r} is none of the zoo's: give it in `networks`."
            f"{_checks.near(name, registry.NETWORKS)}"
        )
    known = [key for key, value in ARCHITECTURES.items() if value.network == name]
    if entry_name.split(".")[0] not in known:
        wanted = " or ".join(f"{architecture}.TAG" for architecture in known)
        raise ValueError(
            f"The run's network is {name}: its name is {wanted}, received {entry_name!r}."
        )
    return registry.NETWORKS[name]


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
    entry: Entry, trained: tf.keras.Model, floats: str, mirrors: tuple[str, ...]
) -> dict[str, WeightsFile]:
    """Writes both forms, and loads them again before they get their names."""
    baked = _weights.bake(trained)
    images = np.random.default_rng(0).normal(size=(4, *entry.input_size)).astype("float32")
    network = entry.network(**entry.arguments)
    written = {}
    for form, original, copy in (
        ("training", trained, network),
        ("deployable", baked, _weights.bake(network)),
    ):
        stored = floats if form == "deployable" else "float32"
        path = entry.folder / f"{entry.name}.{form}.safetensors"
        with atomic(path) as temporary:
            function = entry.network.__name__
            sha256 = _weights.save(temporary, original, form=form, network=function, floats=stored)
            _weights.load(temporary, copy, form=form, network=function)
            outputs = copy(images, training=False)
            same = stored == "float16" or np.array_equal(outputs, original(images, training=False))
            if not same or not np.isfinite(outputs).all():
                raise ValueError(
                    f"{entry.network.__name__} with the arguments {dict(entry.arguments)} does not "
                    f"compute what model.keras does ({form} form): the run has settings of the "
                    "network that its configuration does not tell."
                )
            size = temporary.stat().st_size
        written[form] = WeightsFile(path.name, sha256, size, stored, mirrors)
    return dict(sorted(written.items()))


def _accuracy(
    name: str,
    task: str,
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any] | str | pathlib.Path | None,
    floats: str,
) -> Accuracy | None:
    score, metric = _SCORES[task]
    shares = [float(values[score]) for values in metrics]
    first = metrics[0]
    value, how = shares[0], "larq-ext train, at its end, in the training form"
    data = f"{first['evaluated_on']} of {first['configuration']['dataset']}"
    if evaluation is not None:
        if not isinstance(evaluation, Mapping):
            evaluation = json.loads(_existing_evaluation(pathlib.Path(evaluation)))
        examples = "persons" if task == "pose" else "n"
        right = isinstance(evaluation, Mapping) and {score, examples, "dataset"} <= {*evaluation}
        wanted = "what `larq-ext evaluate NAME --json` prints"
        _checks.check(right, "evaluation", wanted, evaluation)
        value = float(evaluation[score])
        _check_evaluated(name, evaluation, evaluation[examples], value, first, floats)
        if task == "pose":
            data = (
                f"{evaluation['persons']} persons in {evaluation.get('images')} pictures of "
                f"{evaluation['dataset']}, boxes: {evaluation.get('boxes')}, "
                f"{'with' if evaluation.get('flip_test') else 'without'} flip test, decoding: "
                f"{evaluation.get('decoding')}"
            )
        else:
            data = f"{evaluation['n']} test images of {evaluation['dataset']}"
        how = "larq-ext evaluate, the deployable form as stored"
        if str(evaluation.get("model", "")).endswith(".tflite"):
            how += ", converted"
        if len(shares) > 1:
            how += "; mean and spread: larq-ext train, at its end, in the training form"
        else:
            shares = [value]
    elif floats != "float32":
        return None
    return Accuracy(
        value=value,
        mean=statistics.fmean(shares),
        spread=statistics.stdev(shares) if len(shares) > 1 else None,
        seeds=[values["seed"] for values in metrics],
        data=data,
        how=how,
        metric=metric,
    )


def _check_evaluated(
    name: str,
    evaluation: Mapping[str, Any],
    examples: int,
    value: float,
    metrics: Mapping[str, Any],
    floats: str,
) -> None:
    """Whether an evaluation can be that of the stored form of this run."""
    model, dataset = str(evaluation.get("model")), evaluation["dataset"]
    if dataset != metrics["configuration"]["dataset"]:
        raise ValueError(
            f"The evaluation is on {dataset}, the run on {metrics['configuration']['dataset']}."
        )
    if model != name and not model.endswith(".tflite"):
        raise ValueError(
            f"The evaluation is of {model}: evaluate {name}, as it is stored, or a .tflite file "
            "made of it."
        )
    trained = metrics.get("top1")
    same_images = metrics["evaluated_on"] == f"{examples} test images"
    if trained is not None and same_images and floats == "float32" and abs(value - trained) > 0.01:
        raise ValueError(
            f"The evaluation of {model} says {value:.2%}, the run itself {trained:.2%} on the same "
            "images: it is of another model."
        )


def _existing_evaluation(path: pathlib.Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return path.read_text(encoding="utf-8")


def _recipe_class(configuration: Mapping[str, Any]) -> str:
    if configuration.get("teacher"):
        return "distilled"
    steps = configuration.get("first_step_epochs") or configuration.get("initial_weights")
    return "two-step" if steps else "one-step"


def _description(network: Callable[..., tf.keras.Model], configuration: Mapping[str, Any]) -> str:
    method = configuration["quantizer"] or "all of it in floating point"
    return f"{registry.what(network)}; {method}, trained on {configuration['dataset']}"


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
    kept = ("epochs", "data", "hardware", "versions", "sessions", "seconds")
    return {
        "experiment": first["experiment"],
        **beside,
        "configuration": configuration,
        **{field: first[field] for field in kept if field in first},
        "accuracies": {
            str(values["seed"]): values[_SCORES[_task(values)][0]] for values in metrics
        },
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and pathlib.PurePath(value).is_absolute()
