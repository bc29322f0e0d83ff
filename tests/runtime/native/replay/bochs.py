"""Runs the kernels' own machine code on an emulated CPU, for those that this one cannot run.

`python bochs.py --cpu tigerlake --cases N` boots Linux on a CPU of the emulator Bochs, asks there
which kernels the CPU gets, and replays cases with each. Unlike the target `avx512` of run.py it
executes the instructions as compiled, inline assembly included. Linux takes half a minute or so
to boot, 500 cases a kernel about as long. Ends with a status other than 0 if anything fails.

Needs, besides g++, the Debian packages bochs, bochs-term, bochsbios, vgabios, isolinux,
syslinux-common, xorriso, cpio, busybox-static and linux-image-amd64.
"""

from __future__ import annotations

import argparse
import gzip
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run import HERE, Target, build

# From Bochs' names to the kernels that a CPU must get, best first.
CPUS = {
    "tigerlake": "avx512vpopcnt,avx512,avx2,portable",
    "corei7_icelake_u": "avx512vpopcnt,avx512,avx2,portable",
    "corei7_skylake_x": "avx512,avx2,portable",
    "corei7_haswell_4770": "avx2,portable",
    "core2_penryn_t9600": "portable",
}
FILES = {
    "bochs": Path("/usr/bin/bochs"),
    "bochsbios": Path("/usr/share/bochs/BIOS-bochs-latest"),
    "vgabios": Path("/usr/share/vgabios/vgabios.bin"),
    "isolinux": Path("/usr/lib/ISOLINUX/isolinux.bin"),
    "syslinux-common": Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"),
    "busybox-static": Path("/bin/busybox"),
}
TOOLS = ("g++", "cpio", "xorriso")

# Linux finds Bochs' sizes of the XSAVE area inconsistent with PKU and with the compacted format,
# and would do without AVX. With FSRM but without ERMS, which Bochs' BIOS leaves off, its memmove
# overwrites what follows.
OPTIONS = "console=ttyS0,115200 quiet panic=-1 mitigations=off lpj=80000"
OPTIONS += " clearcpuid=pku,xsaves,xsavec,fsrm"

MACHINE = """\
config_interface: textconfig
display_library: term
romimage: file={bochsbios}
vgaromimage: file={vgabios}
cpu: model={cpu}, count=1, ips=20000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=1024, host=1024
ata0: enabled=1
ata0-master: type=cdrom, path={image}, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=term, dev={serial}
plugin_ctrl: speaker=0
log: {log}
debug: action=ignore
info: action=ignore
error: action=ignore
panic: action=fatal
"""

BOOT = """\
default linux
prompt 0
label linux
 kernel /vmlinuz
 initrd /initrd.gz
 append {options}
"""

INIT = """\
#!/busybox sh
/busybox mount -t proc proc /proc
echo GUEST cpu $(/busybox grep -m 1 'model name' /proc/cpuinfo | /busybox cut -d: -f2)
echo GUEST flags $(/busybox grep -m 1 flags /proc/cpuinfo | /busybox grep -o 'avx[^ ]*')
echo GUEST kernels $(/list_kernels)
/replay /cases.bin {kernels} {threads}
echo GUEST status $?
/busybox poweroff -f
"""

LIST_KERNELS = """\
#include <cstdio>

#include "kernel.h"

int main() {
  const char* separator = "";
  for (const larq_ext::Kernel* kernel : larq_ext::Kernels()) {
    std::printf("%s%s", separator, kernel->name);
    separator = ",";
  }
  std::printf("\\n");
}
"""


def missing(linux: Path | None) -> list[str]:
    """Names what is not installed."""
    absent = [package for package, file in FILES.items() if not file.exists()]
    absent += [tool for tool in TOOLS if shutil.which(tool) is None]
    return absent + (["linux-image-amd64"] if linux is None else [])


def newest_linux() -> Path | None:
    files = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda file: file.stat().st_mtime)
    return files[-1] if files else None


def build_programs(folder: Path, root: Path) -> None:
    """Builds static programs as a wheel is built: for any CPU, with the same optimization."""
    target = Target("g++", ["-O3"], "", link=["-static"])
    shutil.copy2(build(target, "replay.cc", folder), root / "replay")
    source = folder / "list_kernels.cc"
    source.write_text(LIST_KERNELS)
    shutil.copy2(build(target, str(source), folder), root / "list_kernels")


def write_image(folder: Path, root: Path, linux: Path) -> Path:
    """Makes a CD that boots Linux with the files below `root`."""
    disc = folder / "disc"
    (disc / "isolinux").mkdir(parents=True, exist_ok=True)
    names = "\n".join(str(file.relative_to(root)) for file in [root, *sorted(root.rglob("*"))])
    command = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"]
    done = subprocess.run(command, cwd=root, input=names.encode(), check=True, capture_output=True)
    (disc / "initrd.gz").write_bytes(gzip.compress(done.stdout, 1))
    shutil.copy2(linux, disc / "vmlinuz")
    for package in ("isolinux", "syslinux-common"):
        shutil.copy2(FILES[package], disc / "isolinux")
    (disc / "isolinux" / "isolinux.cfg").write_text(BOOT.format(options=OPTIONS))
    image = folder / "boot.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(image)]
    command += ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]
    command += ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", str(disc)]
    subprocess.run(command, check=True, capture_output=True)
    return image


def boot(cpu: str, image: Path, folder: Path, seconds: float) -> Iterator[str]:
    """Yields the lines on the serial console until the machine turns itself off."""
    screen, screen_end = pty.openpty()
    serial, serial_end = pty.openpty()
    tty.setraw(serial_end)
    config, commands = folder / "bochsrc", folder / "commands"
    settings = {name: FILES[name] for name in ("bochsbios", "vgabios")}
    settings |= {"cpu": cpu, "image": image, "log": folder / "bochs.log"}
    config.write_text(MACHINE.format(**settings, serial=os.ttyname(serial_end)))
    commands.write_text("continue\n")  # Debian's Bochs starts in its debugger
    bochs = subprocess.Popen(
        [str(FILES["bochs"]), "-q", "-f", str(config), "-rc", str(commands)],
        stdin=screen_end,
        stdout=screen_end,
        stderr=screen_end,
        env={**os.environ, "TERM": "linux"},
        start_new_session=True,
    )
    end, rest = time.monotonic() + seconds, b""
    try:
        while True:
            ready, _, _ = select.select([screen, serial], [], [], 1)
            if screen in ready:
                os.read(screen, 65536)
            if serial in ready:
                *lines, rest = (rest + os.read(serial, 65536)).split(b"\n")
                yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
            if not ready and bochs.poll() is not None:
                return
            if time.monotonic() > end:
                yield f"ended after {seconds:.0f} seconds"
                return
    finally:
        bochs.kill()
        bochs.wait()
        for descriptor in (screen, screen_end, serial, serial_end):
            os.close(descriptor)


def run_cpu(cpu: str, image: Path, folder: Path, seconds: float) -> bool:
    """Prints what the guest says; returns whether it had the right kernels, and no failures."""
    start, said = time.monotonic(), {}
    for line in boot(cpu, image, folder, seconds):
        if line.strip():
            print(f"{time.monotonic() - start:6.1f} {line}", flush=True)
        if line.startswith("GUEST "):
            _, key, *words = line.split()
            said[key] = " ".join(words)
    if said.get("kernels") != CPUS[cpu]:
        print(f"FAIL {cpu}: kernels {said.get('kernels')} instead of {CPUS[cpu]}")
        return False
    return said.get("status") == "0"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", choices=CPUS, default="tigerlake")
    parser.add_argument("--cases", type=int, default=400, help="single operators to replay")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernels", help="those to replay with; all of the CPU by default")
    parser.add_argument("--threads", default="1", help="numbers of threads, such as 1,2")
    parser.add_argument("--linux", type=Path, default=newest_linux(), help="a kernel of Linux")
    parser.add_argument("--minutes", type=float, default=60, help="when to give up")
    parser.add_argument("--folder", type=Path, help="where to build; kept, unlike the default")
    chosen = parser.parse_args(arguments)
    absent = missing(chosen.linux)
    if absent:
        parser.error(f"not installed: {', '.join(absent)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.folder or Path(temporary)).resolve()
        root = folder / "root"
        (root / "proc").mkdir(parents=True, exist_ok=True)
        build_programs(folder, root)
        file = root / "cases.bin"
        dump = [str(HERE / "dump_cases.py"), str(file), str(chosen.cases), str(chosen.seed)]
        subprocess.run([sys.executable, *dump], check=True)
        shutil.copy2(FILES["busybox-static"], root / "busybox")
        kernels = chosen.kernels or CPUS[chosen.cpu]
        (root / "init").write_text(INIT.format(kernels=kernels, threads=chosen.threads))
        (root / "init").chmod(0o755)
        image = write_image(folder, root, chosen.linux)
        return 0 if run_cpu(chosen.cpu, image, folder, chosen.minutes * 60) else 1


if __name__ == "__main__":
    sys.exit(main())
