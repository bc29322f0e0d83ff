"""The command `python -m larq_ext_zoo.cards`: a page for each trained model, from its entry."""

from __future__ import annotations

import pathlib
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from larq_ext._files import atomic
from larq_ext_zoo._architectures import ARCHITECTURES, VARIANT_PAPERS
from larq_ext_zoo._entry import Entry, Paper

# Fields of a configuration that say nothing of how a network was trained.
_FREE = {"name", "description", "data_dir", "output_dir", "progress"}
_FREE |= {"evaluate_every", "checkpoint_minutes", "checkpoint_steps"}
# Fields that name models.
_SOURCES = {"teacher", "initial_weights"}
_SAID_ELSEWHERE = {"network", "quantizer", "dataset", "seed"}
# Values that stand for nothing; so do 0, false, null and nothing.
_OFF = {"strategy": "none", "binarize": "all", "binary_optimizer": "same"}
# Top-1 accuracy as the papers of the methods print it, SiMaN's as the README of its code does.
_CLAIMS = {
    ("resnet20", "cifar10"): {"fda": "86.20%", "siman": "87.4%"},
    ("vgg_small", "cifar10"): {"fda": "92.54%", "siman": "92.5%", "learnable_scale": "92.3%"},
    ("resnet18_cifar", "cifar10"): {"siman": "92.5%"},
}
_FORMS = {
    "deployable": "to predict, to take features from and to convert",
    "training": "latent weights, to train on",
}


def card(entry: Entry) -> str:
    """A model's page in Markdown: what it is, how good, how made, how used.

    # Arguments
        entry: A trained model of the zoo.

    # Returns
        The page.

    # Raises
        ValueError: if the model is not trained.
    """
    if not entry.pretrained:
        raise ValueError(f"{entry.name} is not trained: only trained models have a card.")
    parts = [f"# {entry.name}", f"{entry.description}.", _table(_facts(entry))]
    curve = (entry.recipe or {}).get("curve")
    if curve:
        parts.append(f"![Loss and error over the epochs]({curve})")
    parts += [
        "## Accuracy",
        _accuracy(entry),
        "## Training",
        _table(_training(entry)),
        "## Files",
        _table(_files(entry), head=("form", "for", "bytes", "values", "SHA-256")),
        "## Use",
        _use(entry),
    ]
    return "\n\n".join(parts) + "\n"


def results(entries: Sequence[Entry]) -> str:
    """A page with all trained models, those of one network and one data set side by side.

    # Arguments
        entries: Trained models of the zoo.

    # Returns
        The page in Markdown.
    """
    score = "Top-1 accuracy" if all(e.task == "classification" for e in entries) else "The score"
    parts = [
        "# Trained models",
        f"{score} after the last epoch, of the weights that are stored; the page of a model "
        "says how it was measured. Where there are several seeds, mean and standard deviation are "
        "over all of them. The class says how a model was trained: in one step, in two, or with a "
        "float network's outputs as well (distilled). Rows of different numbers of epochs, or that "
        "start from another model's weights, do not compare the methods. The bytes are those of "
        "the deployable weights here; a converted `.tflite` file has another size.",
    ]
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        key = (entry.name.split(".")[0], _configuration(entry).get("dataset", ""))
        groups.setdefault(key, []).append(entry)
    for (network, data), members in sorted(groups.items()):
        rows = [
            (
                f"[{entry.name}]({entry.name}.md)",
                entry.recipe_class,
                _percent(entry),
                entry.accuracy.data if entry.accuracy else "",
                _mean(entry),
                _epochs(entry),
                _machines(entry),
                f"{entry.weights['deployable'].bytes:,}" if "deployable" in entry.weights else "",
            )
            for entry in members
        ]
        metrics = sorted({entry.accuracy.metric for entry in members if entry.accuracy})
        head = ("model", "class", ", ".join(metrics), "on", "mean of the seeds")
        head += ("epochs", "trained on", "bytes")
        parts += [f"## {network} on {data}", _table(rows, head=head)]
        claims = _CLAIMS.get((network, data), {})
        if claims:
            parts += [
                "What the papers of the methods claim for networks of this name (SiMaN: the README "
                "of its code, the best epoch). Blocks, training and number of epochs are their "
                "own, so these numbers do not compare with those above:",
                _table(claims.items(), head=("method", "claimed top-1")),
            ]
    return "\n\n".join(parts) + "\n"


def write(folder: pathlib.Path, pattern: str = "*") -> list[pathlib.Path]:
    """Writes the pages of all trained models and the one of the results.

    # Arguments
        folder: Where to; it is made if it is not there.
        pattern: Shell-style wildcard for the names.

    # Returns
        The files that were written.

    # Raises
        ValueError: if there is no such trained model.
    """
    import larq_ext_zoo as zoo

    names = zoo.list_models(pattern, pretrained=True)
    if not names:
        known = zoo.list_models(pretrained=True)
        raise ValueError(f"No trained model is called {pattern!r}; there are {known}.")
    folder.mkdir(parents=True, exist_ok=True)
    entries = [zoo.entry(name) for name in names]
    pages = {f"{entry.name}.md": card(entry) for entry in entries}
    if pattern == "*":
        pages["README.md"] = results(entries)
    for name, text in pages.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    written = [folder / name for name in pages]
    for entry in entries:
        curve = (entry.recipe or {}).get("curve")
        if curve and entry.folder is not None:
            with atomic(folder / curve) as temporary:
                shutil.copyfile(entry.folder / curve, temporary)
            written.append(folder / curve)
    return written


def _configuration(entry: Entry) -> dict[str, Any]:
    return dict((entry.recipe or {}).get("configuration", {}))


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "input", f"{' x '.join(map(str, entry.input_size))} (height, width, channels)"
    names = entry.class_names
    if names:
        yield "classes", f"{len(names)}: {', '.join(names[:10])}{' ...' * (len(names) > 10)}"
    if entry.preprocessing is not None:
        made = entry.preprocessing
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (made.mean, made.std))
        formula = f"(image x {made.scale:g} - ({mean})) / ({std}), pixels of 0 to 255"
        if made.resize is not None and entry.task == "classification":
            height, width, _ = entry.input_size
            formula = (
                f"shorter side to {made.resize} pixels ({made.interpolation}), centre of "
                f"{height} x {width}, {formula}"
            )
        yield "preparation", formula
    if entry.paper is not None:
        yield "method from", _cited(entry.paper)
    blocks = VARIANT_PAPERS.get(entry.arguments.get("variant"))
    if blocks is not None:
        yield "blocks from", _cited(blocks)
    yield "licence of the weights", entry.licence


def _cited(paper: Paper) -> str:
    return f"*{paper.title}*" + (f", arXiv:{paper.arxiv}" if paper.arxiv else "")


def _epochs(entry: Entry) -> str:
    trained = str((entry.recipe or {}).get("epochs", ""))
    start = _configuration(entry).get("initial_weights")
    return f"{trained}, from {start}" if start else trained


def _percent(entry: Entry) -> str:
    return f"{entry.accuracy.value:.2%}" if entry.accuracy else "not measured"


def _mean(entry: Entry) -> str:
    accuracy = entry.accuracy
    if accuracy is None:
        return ""
    if accuracy.spread is None:
        return "one seed"
    return f"{accuracy.mean:.2%} ± {accuracy.spread:.2%} ({len(accuracy.seeds)} seeds)"


def _accuracy(entry: Entry) -> str:
    accuracy = entry.accuracy
    if accuracy is None:
        return "Not measured."
    text = f"{accuracy.metric} {accuracy.value:.2%} on {accuracy.data} ({accuracy.how})."
    if accuracy.spread is not None:
        each = (entry.recipe or {}).get("accuracies", {})
        listed = ", ".join(f"seed {seed}: {value:.2%}" for seed, value in each.items())
        text += f" Mean and standard deviation of the seeds: {_mean(entry)}; {listed}."
    return text


def _training(entry: Entry) -> Iterator[tuple[str, str]]:
    recipe = dict(entry.recipe or {})
    yield "recipe", f"`{recipe['experiment']}`, {entry.recipe_class}"
    # A callback may have ended it before the configured number of epochs.
    trained = {"epochs": recipe["epochs"]} if "epochs" in recipe else {}
    configuration = {**_configuration(entry), **trained}
    unused = _FREE | _SAID_ELSEWHERE | _without_effect(configuration)
    for name, value in configuration.items():
        if value and name not in unused and value != _OFF.get(name):
            yield _label(name, configuration), str(value)
    if recipe.get("accuracies"):
        yield "seeds", ", ".join(recipe["accuracies"])
    if recipe.get("changed") is not None:
        yield "command", f"`{_command(recipe)}`"
    sessions = recipe.get("sessions") or [recipe]
    if _machines(entry):
        yield "hardware", _machines(entry)
    if recipe.get("seconds"):
        yield "time", f"{recipe['seconds'] / 60:.1f} minutes"
    versions = [dict(session.get("versions") or {}).items() for session in sessions]
    different = _different(", ".join(f"{k} {v}" for k, v in each) for each in versions)
    if different:
        yield "versions", different
    if recipe.get("log"):
        yield "log", f"`{recipe['log']}`, beside the entry"


def _command(recipe: Mapping[str, Any]) -> str:
    """What repeats the run of the stored weights."""
    configuration = recipe["configuration"]
    data = ["data_dir=FOLDER"] * (configuration.get("dataset") != "digits")
    changed = [field for field in recipe["changed"] if field not in _FREE]
    words = [f"{field}={_word(configuration[field])}" for field in changed]
    for index, field in enumerate(changed):
        source = str(configuration[field])
        if field in _SOURCES and "/" not in source and source.split(".")[0] not in ARCHITECTURES:
            words[index] = f"{field}=FOLDER/{source}"  # somebody's folder is not in the entry
    return shlex.join(["larq-ext", "train", recipe["experiment"], *data, *words])


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _without_effect(configuration: Mapping[str, Any]) -> set[str]:
    """Settings that do nothing because of others."""
    unused: set[str] = set()
    if not configuration.get("teacher"):
        unused |= {"distillation", "temperature"}
    if configuration.get("binary_optimizer", "same") == "same":
        unused |= {"bop_threshold", "bop_gamma"}
    if not configuration.get("quantizer_learning_rate"):
        unused.add("quantizer_milestones")
    if configuration.get("schedule") != "step":
        unused |= {"milestones", "step_factor"}
    if not configuration.get("weight_decay"):
        unused.add("decay_norm_and_bias")
    return unused


def _label(name: str, configuration: Mapping[str, Any]) -> str:
    if name == "momentum" and configuration.get("optimizer") in ("adam", "adamw"):
        return "beta 1"
    return name.replace("_", " ")


def _machine(hardware: Mapping[str, Any] | None) -> str:
    if not hardware:
        return ""
    accelerators = ", ".join(map(str, hardware.get("accelerators") or ())) or "no accelerator"
    cores = hardware.get("cores")
    return f"{hardware.get('cpu')}, {cores} core{'s' * (cores != 1)}, {accelerators}"


def _machines(entry: Entry) -> str:
    """What it was trained on; a run that was interrupted may have gone on elsewhere."""
    recipe = entry.recipe or {}
    sessions = recipe.get("sessions") or [recipe]
    return _different(_machine(session.get("hardware")) for session in sessions)


def _different(values: Iterable[str]) -> str:
    return "; then ".join(value for value in dict.fromkeys(values) if value)


def _files(entry: Entry) -> Iterator[tuple[str, ...]]:
    for form, file in entry.weights.items():
        yield form, _FORMS[form], f"{file.bytes:,}", file.floats, f"`{file.sha256}`"


def _use(entry: Entry) -> str:
    real = "" if entry.arguments.get("quantizer") else ", allow_float=True"
    if entry.task == "pose":
        return _POSE_USE.format(name=entry.name, real=real)
    return _classifier_use(entry, real)


_POSE_USE = """```python
import larq_ext as lqx
import larq_ext_zoo as zoo

estimator = lqx.pose.PoseEstimator("{name}")
poses = estimator.predict(image, boxes)  # pixels of 0 to 255; x, y, width, height
lqx.deploy.convert(zoo.get("{name}"){real}).save("model.tflite")
```

```bash
larq-ext pose {name} photo.jpg --whole-image -o poses.png
larq-ext evaluate {name} --dataset coco_keypoints --data-dir FOLDER
```"""


def _classifier_use(entry: Entry, real: str) -> str:
    data = _configuration(entry).get("dataset", "folder")
    where = "" if data == "digits" else " --data-dir FOLDER"
    fixed = "" if real else "; the binary kernels of the one above are fixed"
    return f"""```python
import larq_ext as lqx
import larq_ext_zoo as zoo

model = zoo.get("{entry.name}")
inputs = zoo.preprocess("{entry.name}", images)  # pixels of 0 to 255
predictions = model.predict(inputs)
# For Larq Compute Engine and larq_ext.runtime.
lqx.deploy.convert(model{real}).save("model.tflite")

# To train on{fixed}.
latent = zoo.get("{entry.name}", form="training")
```

```bash
larq-ext predict {entry.name} photo.png
larq-ext evaluate {entry.name} --dataset {data}{where}
```"""


def _table(rows, head: tuple[str, ...] = ("", "")) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(file_okay=False, path_type=pathlib.Path))
@click.option("--only", default="*", show_default=True, help="Wildcard for, or part of, the names.")
def main(folder: pathlib.Path, only: str) -> None:
    """Write a page of each trained model, and one of all results, to FOLDER.

    Example: python -m larq_ext_zoo.cards docs/models
    """
    try:
        written = write(folder, only)
    except (ValueError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    for path in written:
        click.echo(path)


if __name__ == "__main__":
    main()
