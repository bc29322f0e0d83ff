"""The native sources on their own: under sanitizers, for ARM, and with AVX-512 emulated."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "replay"
sys.path.insert(0, str(FOLDER))

from run import TARGETS  # noqa: E402

CASES = 80  # `run.py asan --cases 1000` and the like take more


# A change of the native sources asks for all of them; the kernels for AVX-512 run nowhere else
# on a machine without it.
@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "avx512",
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("asan", "tsan", "arm")),
    ],
)
def test_replay(target, record_property):
    missing = TARGETS[target].missing()
    if missing is not None:
        pytest.skip(f"{missing} is not installed")
    if target != "arm" and platform.machine() != "x86_64":
        pytest.skip(f"the kernels of {target} are for x86-64")
    command = [sys.executable, str(FOLDER / "run.py"), target, "--cases", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    summary = [line for line in done.stdout.splitlines() if line.startswith("kernel ")]
    record_property("summary", summary)
    print("\n".join(summary))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert summary
