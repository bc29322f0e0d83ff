"""Experiments by name."""

from __future__ import annotations

import fnmatch

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._names import unknown_name

_EXPERIMENTS: dict[str, Experiment] = {}


def register(experiment: Experiment) -> Experiment:
    """Makes an experiment known by its name.

    # Arguments
        experiment: The experiment.

    # Returns
        The same experiment.

    # Raises
        ValueError: if another experiment has the name.
    """
    if experiment.name in _EXPERIMENTS:
        raise ValueError(f"There already is an experiment {experiment.name!r}: take another name.")
    _EXPERIMENTS[experiment.name] = experiment
    return experiment


def get_experiment(name: str) -> Experiment:
    """Finds an experiment.

    # Arguments
        name: Its name.

    # Returns
        The experiment.

    # Raises
        UsageError: if there is none of that name; the message has the nearest names.
    """
    if name not in _EXPERIMENTS:
        raise UsageError(unknown_name("experiment", name, _EXPERIMENTS))
    return _EXPERIMENTS[name]


def list_experiments(pattern: str = "*") -> list[str]:
    """Lists experiments.

    # Arguments
        pattern: Shell wildcards, upper and lower case alike, such as `"resnet20*"`.

    # Returns
        The names, sorted.
    """
    return sorted(
        name for name in _EXPERIMENTS if fnmatch.fnmatchcase(name.lower(), pattern.lower())
    )
