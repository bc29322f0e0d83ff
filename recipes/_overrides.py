"""Values for the fields of experiments from command-line words such as `epochs=20`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from zookeeper.core.utils import type_check

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


def read(overrides: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Reads text as the types of the fields that it is for, and checks other values.

    # Arguments
        overrides: Values by field name.
        fields: Types by field name.

    # Returns
        Values by field name.

    # Raises
        UsageError: if there is no such field or the value does not fit its type.
    """
    for key in overrides:
        if key not in fields:
            raise UsageError(unknown_name("setting", key, fields))
    return {key: _read(key, value, fields[key]) for key, value in overrides.items()}


def _read(key: str, value: Any, hint: Any) -> Any:
    try:
        if isinstance(value, str):
            return _parse(value, hint)
        if type_check(value, hint):
            return value
    except ValueError:
        pass
    raise UsageError(f"{key} must be {_describe(hint)}, received {value!r}.")


def _parse(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _parse(text, _options(hint)[0])
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError
        return text
    if origin is tuple:
        parts = [part for part in text.split(",") if part]
        if arguments[-1] is not Ellipsis and len(parts) != len(arguments):
            raise ValueError
        return tuple(_parse(part, arguments[0]) for part in parts)
    if hint is bool:
        if text.lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[text.lower()]
    return hint(text)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            [_describe(_options(hint)[0]), *(["none"] if type(None) in arguments else [])]
        )
    if origin is typing.Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        example = "1,2,3" if arguments[-1] is Ellipsis else ",".join("12345"[: len(arguments)])
        return f"a list like {example}, each {_describe(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, str(hint))


def _options(hint: Any) -> list[Any]:
    """The members of a union without none; the first is what text is read as."""
    return [option for option in typing.get_args(hint) if option is not type(None)]
