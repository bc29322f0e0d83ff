"""Experiments by name."""

from __future__ import annotations

import fnmatch
from typing import Any

import zookeeper

from larq_ext_recipes._base_experiment import BaseExperiment, configure
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name

_EXPERIMENTS: dict[str, type[BaseExperiment]] = {}


def register(experiment: type[BaseExperiment]) -> type[BaseExperiment]:
    """Makes a class of experiments a zookeeper task, known by its name.

    # Arguments
        experiment: A class derived from `Experiment` or `PoseExperiment`.

    # Returns
        The same class.

    # Raises
        ValueError: if another experiment has the name.
    """
    name = experiment.__name__
    if name in _EXPERIMENTS:
        raise ValueError(f"There already is an experiment {name!r}: take another name.")
    _EXPERIMENTS[name] = zookeeper.task(experiment)
    return experiment


def get_experiment(name: str, **overrides: Any) -> BaseExperiment:
    """Finds an experiment.

    # Arguments
        name: Its name.
        **overrides: Fields to change, as values or as text.

    # Returns
        The experiment.

    # Raises
        UsageError: if there is none of that name (the message has the nearest names), no such
            field, or a value does not fit.
    """
    if name not in _EXPERIMENTS:
        raise UsageError(unknown_name("experiment", name, _EXPERIMENTS))
    return configure(_EXPERIMENTS[name], overrides)


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
