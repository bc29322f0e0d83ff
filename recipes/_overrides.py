"""Values for dataclass fields from command-line words such as `epochs=20`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def split_words(words: Iterable[str]) -> dict[str, str]:
    """Splits `key=value` words.

    # Arguments
        words: The words of the command line.

    # Returns
        Keys and values as text.

    # Raises
        UsageError: if a word has no `=` or a key is given twice.
    """
    result: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"Expected key=value, received {word!r}; for example epochs=20.")
        if key in result:
            raise UsageError(f"{key} is given twice: {result[key]!r} and {value!r}.")
        result[key] = value
    return result


def apply(instance: Any, overrides: Mapping[str, Any], fixed: Iterable[str] = ()) -> Any:
    """Replaces fields of a dataclass; text is read as the type of the field.

    # Arguments
        instance: A dataclass instance.
        overrides: New values by field name.
        fixed: Fields that cannot be overridden.

    # Returns
        A new instance.

    # Raises
        UsageError: if there is no such field or the value does not fit its type.
    """
    fields = {field.name for field in dataclasses.fields(instance)} - set(fixed)
    hints = typing.get_type_hints(type(instance))
    for key in overrides:
        if key not in fields:
            raise UsageError(unknown_name("setting", key, fields))
    values = {key: _read(key, value, hints[key]) for key, value in overrides.items()}
    return dataclasses.replace(instance, **values)


def _read(key: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return _parse(value, hint)
    except ValueError:
        raise UsageError(f"{key} must be {_describe(hint)}, received {value!r}.") from None


def _parse(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _parse(text, next(option for option in arguments if option is not type(None)))
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError
        return text
    if origin is tuple:
        return tuple(_parse(part, arguments[0]) for part in text.split(",") if part)
    if hint is bool:
        if text.lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[text.lower()]
    return hint(text)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        names = [_describe(option) for option in arguments if option is not type(None)]
        return " or ".join([*names[:1], *(["none"] if type(None) in arguments else [])])
    if origin is typing.Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"a list like 1,2,3, each {_describe(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, str(hint))
