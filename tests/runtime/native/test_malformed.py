"""Malformed models are refused with an exception; none crashes or hangs the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from malformed import REFUSED, RUNS, all_malformed

CHILD = Path(__file__).parent / "malformed_child.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")


def outcomes(library, kernel: str, count: int) -> dict[int, str]:
    """What became of each model; children that die are replaced and start behind the crash."""
    found: dict[int, str] = {}
    first = 0
    while first < count:
        command = [sys.executable, str(CHILD), str(library.path), str(first), kernel]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=300)
            end = f"crashed with status {child.returncode}: {child.stderr[-500:]}"
            lines = child.stdout
        except subprocess.TimeoutExpired as error:
            end, lines = "hung", (error.stdout or b"").decode()
        for line in lines.splitlines():
            index, what = line.split(" ", 1)
            found[int(index)] = what
            first = int(index) + 1
        last = found.get(first - 1, "start")
        if last == "start":
            assert first > 0 and first - 1 in found, f"the child does not start: {end}"
            found[first - 1] = end
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["auto", "portable"])
def test_malformed_models(library, kernel):
    models = all_malformed()
    found = outcomes(library, kernel, len(models))
    wrong = []
    for index, model in enumerate(models):
        what = found[index]
        allowed = {REFUSED: ["refused"], RUNS: ["ran"]}.get(model.wanted, ["refused", "ran"])
        if what.split()[0] not in allowed:
            wrong.append(f"{model.name}: {what}")
    assert not wrong, f"{len(wrong)} of {len(models)}:\n" + "\n".join(wrong[:40])
