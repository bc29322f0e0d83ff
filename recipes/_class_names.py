"""Whether a model and a data set mean the same by class 0, 1, 2 ..."""

from __future__ import annotations

import pathlib
from typing import Any

import larq_ext_zoo as zoo
from larq_ext._models_io import check_name, run_record
from larq_ext_recipes._errors import UsageError


def check_classes(model: Any, names: tuple[str, ...] | None, data: str) -> None:
    """Compares the classes that a model was trained for with those of the data.

    # Arguments
        model: The path of a model, or its name in the zoo; of other models nothing is known.
        names: The classes of the data in their order; `None` for data without.
        data: What to call the data in an error.

    # Raises
        UsageError: if they are as many, but not the same.
    """
    known = _classes_of(model)
    if known is None or names is None or len(known) != len(names):
        return
    for number, (one, other) in enumerate(zip(known, names, strict=True)):
        if one != other:
            raise UsageError(
                f"Class {number} is {one!r} for {model} and {other!r} in {data}: the classes "
                "have to be the same, in the same order (that of folders is alphabetical, capital "
                "letters first)."
            )


def _classes_of(model: Any) -> list[str] | None:
    if not isinstance(model, str | pathlib.Path):
        return None
    path = pathlib.Path(model).expanduser()
    if check_name(path) is None:
        names = zoo.entry(str(model)).class_names
    else:
        names = run_record(path).get("classes")
    return None if names is None else list(names)
