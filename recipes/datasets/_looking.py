"""What lies where a data set was looked for, in words."""

from __future__ import annotations

import pathlib

_ARCHIVES = {
    ".tar": "tar -xf {file} -C {folder}",
    ".tgz": "tar -xzf {file} -C {folder}",
    ".tar.gz": "tar -xzf {file} -C {folder}",
    ".tar.xz": "tar -xJf {file} -C {folder}",
    ".tar.bz2": "tar -xjf {file} -C {folder}",
    ".zip": "unzip -q {file} -d {folder}",
}


def describe(folder: pathlib.Path) -> str:
    """Names the first entries of a folder, or says why there are none."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file, not a folder"
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) if names else "an empty folder"


def how_to_extract(place: pathlib.Path) -> str | None:
    """The command that extracts an archive which is this file or lies in this folder."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    for file in files:
        for suffix, command in _ARCHIVES.items():
            if file.name.lower().endswith(suffix) and file.is_file():
                return command.format(file=file, folder=file.parent)
    return None
