"""Whether a model and a data set mean the same by class 0, 1, 2 ..."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import larq_ext_zoo as zoo
from larq_ext._models_io import check_name, run_record
from larq_ext_recipes._errors import UsageError


def check_classes(model: Any, names: Sequence[str] | None, data: str) -> None:
    """Compares the classes that a model was trained for with those of the data.

    # Arguments
        model: The path of a model, or its name in the zoo; of other models nothing is known.
        names: The classes of the data in their order; `None` for data without.
        data: What to call the data in an error.

    # Raises
        UsageError: if they are the same in another order. Other names may be those of the same
            classes.
    """
    known = [name.lower() for name in _classes_of(model) or ()]
    names = [name.lower() for name in names or ()]
    if sorted(known) != sorted(names):
        return
    for number, (one, other) in enumerate(zip(known, names, strict=True)):
        if one != other:
            raise UsageError(
                f"Class {number} is {one!r} for {model} and {other!r} in {data}: the classes have "
                "to be in the same order (that of folders is alphabetical, capital letters first)."
            )


def _classes_of(model: Any) -> Sequence[str] | None:
    if not isinstance(model, str | pathlib.Path):
        return None
    path = pathlib.Path(model).expanduser()
    if check_name(path) is None:
        return zoo.entry(str(model)).class_names
    return run_record(path).get("classes")
