"""Builds the native sources into stand-alone programs and runs them where no wheel would go.

`python run.py asan|tsan|arm|avx512 [--cases N] [--seed N]` replays cases under the sanitizers, for
ARM under an emulator, or with AVX-512 emulated by SIMDe; `python run.py fuzz --minutes N` feeds
damaged options to the reader. Ends with a status other than 0 if anything fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[3] / "larq_ext" / "runtime" / "native"
COMMON = ["-std=c++17", "-pthread", f"-I{NATIVE}", f"-I{HERE}"]
# Reports of a sanitizer end the program.
SANITIZED = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Target:
    """How a program is built and run."""

    compiler: str
    flags: Sequence[str]
    kernels: str
    threads: str = "1,2"
    emulator: Sequence[str] = ()
    header: str | None = None  # a header that must be installed
    link: Sequence[str] = ()

    def missing(self) -> str | None:
        """Names what is not installed."""
        for tool in (self.compiler, *self.emulator[:1]):
            if shutil.which(tool) is None:
                return tool
        if self.header is not None:
            command = [self.compiler, "-E", "-x", "c++", "-"]
            source = f"#include <{self.header}>\n".encode()
            if subprocess.run(command, input=source, capture_output=True).returncode:
                return self.header
        return None


TARGETS = {
    "asan": Target(
        "g++", [*SANITIZED, "-fsanitize=address,undefined"], "avx2,portable", threads="2"
    ),
    "tsan": Target("g++", [*SANITIZED, "-fsanitize=thread"], "avx2", threads="4"),
    "arm": Target(
        "aarch64-linux-gnu-g++",
        ["-O2"],
        "neon,portable",
        emulator=["qemu-aarch64-static"],
        link=["-static"],
    ),
    "avx512": Target(
        "g++",
        ["-O2", "-DLARQ_EXT_SIMDE"],
        "avx512vpopcnt,avx512",
        header="simde/x86/avx512.h",
    ),
    "fuzz": Target("clang++", [*SANITIZED, "-fsanitize=fuzzer,address,undefined"], "auto"),
}


def build(target: Target, main: str, folder: Path) -> Path:
    """Compiles the native sources, the mock runtime and one of the programs."""
    sources = sorted(NATIVE.rglob("*.cc"))
    sources += [HERE / name for name in ("mock_runtime.cc", "mock_builtins.cc", "case_file.cc")]
    sources.append(HERE / main)

    def compiled(source: Path) -> Path:
        result = folder / f"{source.parent.name}_{source.stem}.o"
        command = [target.compiler, *target.flags, *COMMON, "-c", str(source), "-o", str(result)]
        subprocess.run(command, check=True)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / Path(main).stem
    link = [target.compiler, *target.flags, *target.link, "-pthread"]
    subprocess.run([*link, *map(str, objects), "-o", str(program)], check=True)
    return program


def replay(name: str, cases: int, seed: int, folder: Path) -> int:
    """Replays cases; returns the status of the program."""
    target = TARGETS[name]
    program = build(target, "replay.cc", folder)
    file = folder / "cases.bin"
    dump = [sys.executable, str(HERE / "dump_cases.py"), str(file), str(cases), str(seed)]
    subprocess.run(dump, check=True)
    command = [*target.emulator, str(program), str(file), target.kernels, target.threads]
    return subprocess.run(command).returncode


def fuzz(minutes: float, folder: Path) -> int:
    """Fuzzes for so long, from options that are right."""
    program = build(TARGETS["fuzz"], "fuzz_options.cc", folder)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    words = folder / "words"
    words.write_text("".join(f'"{key}\\x00"\n' for key in _write_corpus(corpus)))
    command = [
        str(program),
        "-rss_limit_mb=2048",
        "-timeout=20",
        "-max_len=512",
        f"-dict={words}",
        f"-max_total_time={int(minutes * 60)}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    return subprocess.run(command).returncode


def _write_corpus(corpus: Path) -> list[str]:
    """Writes options that are right; returns the names in them."""
    sys.path.insert(0, str(HERE.parent))
    from lce_models import SAME, VALID, conv_options, options, pool_options

    for index, padding in enumerate((SAME, VALID)):
        conv = conv_options((1, 2), (1, 1), padding, index, 48, "RELU")
        wide = conv_options((1, 300), (70000, 1), padding, index, 64, "NONE")
        pool = pool_options((2, 2), (2, 2), padding)
        for name, kind, values in (("conv", 0, conv), ("wide", 0, wide), ("pool", 1, pool)):
            (corpus / f"{name}{index}").write_bytes(bytes([kind]) + options(values))
    return [*conv, *pool]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--cases", type=int, default=2000, help="single operators to replay")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5, help="how long to fuzz")
    parser.add_argument("--folder", type=Path, help="where to build; kept, unlike the default")
    chosen = parser.parse_args(arguments)
    missing = TARGETS[chosen.target].missing()
    if missing is not None:
        parser.error(f"{missing} is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if chosen.target == "fuzz":
            return fuzz(chosen.minutes, folder)
        return replay(chosen.target, chosen.cases, chosen.seed, folder)


if __name__ == "__main__":
    sys.exit(main())
