"""JSON files that are either the old or the new one, never half of one."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from larq_ext._files import atomic


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes indented JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object."""
    return json.loads(path.read_text())
