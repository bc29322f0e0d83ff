"""Training of binarized networks from recipes that leave nothing open.

```python
import larq_ext_recipes as recipes

recipes.train("ResNet20FDA", data_dir="cifar-10-batches-bin", epochs=20)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import larq_ext  # noqa: F401  (first: it makes tf.keras Keras 2)
from larq_ext_recipes import (  # noqa: F401  (they register)
    alexnet,
    digits,
    pose,
    pose_small,
    resnet18,
    resnet18_cifar,
    resnet20,
    resnet34,
    vgg_small,
)
from larq_ext_recipes._base_experiment import BaseExperiment, configure
from larq_ext_recipes._compare import compare
from larq_ext_recipes._errors import TrainingError, TrainingInterrupted, UsageError
from larq_ext_recipes._evaluate import POSES, dataset_of, evaluate, evaluate_poses
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._pose_experiment import PoseExperiment
from larq_ext_recipes._registry import get_experiment, list_experiments, register
from larq_ext_recipes._trainer import Callbacks, run_experiment


def train(
    experiment: str | BaseExperiment,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = (),
    command: Sequence[str] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Trains an experiment and writes everything about it to its output folder.

    # Arguments
        experiment: Name of a registered experiment, or an experiment such as an `Experiment`.
        resume: Whether to continue the run in the output folder.
        overwrite: Whether to delete the run in the output folder.
        callbacks: Further Keras callbacks.
        command: The command line to record in the metrics; default: that of this process.
        **overrides: Fields of the experiment to change, as values or as text.

    # Returns
        The content of `metrics.json`: final accuracy and loss, configuration, machine, versions.

    # Raises
        UsageError: if there is no such experiment or setting, or the output folder has a run.
        DatasetError: if the data is missing or damaged.
        TrainingError: if the loss or a weight is not finite.
        TrainingInterrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    if isinstance(experiment, str):
        experiment = get_experiment(experiment, **overrides)
    elif overrides:
        experiment = experiment.replace(**overrides)
    if not resume:  # what an older version took has to go on
        experiment.check_use(overrides)
    return run_experiment(
        experiment, resume=resume, overwrite=overwrite, callbacks=callbacks, command=command
    )


__all__ = [
    "POSES",
    "Experiment",
    "PoseExperiment",
    "TrainingError",
    "TrainingInterrupted",
    "UsageError",
    "compare",
    "configure",
    "dataset_of",
    "evaluate",
    "evaluate_poses",
    "get_experiment",
    "list_experiments",
    "register",
    "train",
]
