"""The command `python -m larq_ext_zoo.cards`: a page for each trained model, from its entry."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from larq_ext._files import atomic
from larq_ext_zoo import registry
from larq_ext_zoo._entry import Entry

# Fields of a configuration that say how a network was trained, in this order.
_SETTINGS = (
    "network_options",
    "initial_weights",
    "first_step_epochs",
    "optimizer",
    "learning_rate",
    "momentum",
    "binary_optimizer",
    "quantizer_learning_rate",
    "weight_decay",
    "gradient_clip_norm",
    "schedule",
    "milestones",
    "warmup_epochs",
    "epochs",
    "batch_size",
    "label_smoothing",
    "teacher",
    "distillation",
    "temperature",
    "weight_average",
    "crop_padding",
    "flip",
    "crop_scale",
    "color_jitter",
    "lighting",
    "randaugment",
    "mixup",
    "cutmix",
    "holdout",
    "limit",
)
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
        "float network's outputs as well (distilled).",
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
                f"{entry.weights['deployable'].bytes:,}" if "deployable" in entry.weights else "",
            )
            for entry in members
        ]
        metrics = sorted({entry.accuracy.metric for entry in members if entry.accuracy})
        head = ("model", "class", ", ".join(metrics), "on", "mean of the seeds", "bytes")
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
        yield "preparation", f"(image x {made.scale:g} - ({mean})) / ({std}), pixels of 0 to 255"
    if entry.paper is not None:
        arxiv = f", arXiv:{entry.paper.arxiv}" if entry.paper.arxiv else ""
        yield "method from", f"*{entry.paper.title}*{arxiv}"
    yield "licence of the weights", entry.licence


def _percent(entry: Entry) -> str:
    return f"{entry.accuracy.value:.2%}" if entry.accuracy else "not measured"


def _mean(entry: Entry) -> str:
    accuracy = entry.accuracy
    if accuracy is None or accuracy.spread is None:
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
    configuration = _configuration(entry)
    unused = set() if configuration.get("teacher") else {"distillation", "temperature"}
    for name in [name for name in _SETTINGS if name not in unused]:
        value = configuration.get(name)
        if value:  # 0, false, null and nothing are off
            yield name.replace("_", " "), str(value)
    if entry.accuracy is not None:
        yield "seeds", ", ".join(map(str, entry.accuracy.seeds))
    hardware = recipe.get("hardware", {})
    if hardware:
        accelerators = ", ".join(map(str, hardware.get("accelerators") or ())) or "no accelerator"
        yield "hardware", f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {accelerators}"
    if recipe.get("seconds"):
        yield "time", f"{recipe['seconds'] / 60:.1f} minutes"
    versions = recipe.get("versions", {})
    if versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if recipe.get("log"):
        yield "log", f"`{recipe['log']}`, beside the entry"


def _files(entry: Entry) -> Iterator[tuple[str, ...]]:
    for form, file in entry.weights.items():
        use = _FORMS[form]
        if form == "training" and entry.folder == registry.SHIPPED and not file.mirrors:
            use += "; in the repository, not in the package"
        yield form, use, f"{file.bytes:,}", file.floats, f"`{file.sha256}`"


def _use(entry: Entry) -> str:
    return _POSE_USE.format(name=entry.name) if entry.task == "pose" else _classifier_use(entry)


_POSE_USE = """```python
import larq_ext as lqx
import larq_ext_zoo as zoo

estimator = lqx.pose.PoseEstimator("{name}")
poses = estimator.predict(image, boxes)  # pixels of 0 to 255; x, y, width, height
lqx.deploy.convert(zoo.get("{name}")).save("model.tflite")
```

```bash
larq-ext pose {name} photo.jpg --whole-image -o poses.png
larq-ext evaluate {name} --dataset coco_keypoints --data-dir FOLDER
```"""


def _classifier_use(entry: Entry) -> str:
    data = _configuration(entry).get("dataset", "folder")
    where = "" if data == "digits" else " --data-dir FOLDER"
    return f"""```python
import larq_ext as lqx
import larq_ext_zoo as zoo

model = zoo.get("{entry.name}")
predictions = model.predict(zoo.preprocess("{entry.name}", images))  # pixels of 0 to 255
lqx.deploy.convert(model).save("model.tflite")  # for Larq Compute Engine and larq_ext.runtime
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
@click.option("--only", default="*", show_default=True, help="Wildcard for the names.")
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
