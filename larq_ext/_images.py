"""Images from files, as arrays."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Of pictures in RGB, for pixels of 0 to 255: what everybody normalises with.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# What undoes an orientation in EXIF data, by the names of Pillow's methods.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION = 0x0112


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Puts the images of a folder, sorted, in the place of each folder.

    A folder without images stays, so that reading it says what is wrong.
    """
    files: list[Path] = []
    for path in paths:
        inside = []
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        files += inside or [path]
    return files


def pillow() -> Any:
    """The module `PIL.Image`.

    # Raises
        ImportError: with the line to type, if Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Images need Pillow: type `pip install 'pillow>=10'`.") from error
    return Image


def pixel_numbers(name: str, value: Any, channels: int) -> Any:
    """What is subtracted from pixels (`mean`) or divides them (`std`), one number or a channel's.

    # Raises
        ValueError: if there are more or fewer, one is not finite, or a deviation is not above 0.
    """
    import numpy as np

    numbers = np.asarray(value, np.float64)
    wanted = "one number" if channels == 1 else f"one number or {channels}"
    if numbers.size not in (1, channels):
        raise ValueError(f"`{name}` is {wanted}, received {numbers.tolist()}.")
    if not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` is finite, received {numbers.tolist()}.")
    if name == "std" and (numbers <= 0).any():
        raise ValueError(f"`std` is above 0, received {numbers.tolist()}.")
    return numbers


def orientation(content: bytes) -> int:
    """How an encoded picture is to be turned, by its EXIF data: their number, 1 for not at all.

    # Raises
        ImportError: if Pillow is missing.
    """
    Image = pillow()
    # Of a PNG file Pillow would decode everything before it says that there is nothing.
    if not content.startswith(b"\xff\xd8") and b"eXIf" not in content:
        return 1
    try:
        with Image.open(io.BytesIO(content)) as opened:
            number = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # who decodes it says what is wrong with it
        return 1
    return number if number in _UPRIGHT else 1


def load_image(path: Path, channels: int, *, upright: bool = True) -> Any:
    """Reads an image, in grey or RGB.

    Transparency is dropped, palettes and other colour models become RGB, 16 bits become 8.

    # Arguments
        path: A file of any kind that Pillow reads; of several frames the first is taken.
        channels: 1 for grey, 3 for RGB.
        upright: Whether it is turned as its EXIF data say; TIFF files always are.

    # Returns
        uint8 array `(rows, columns, channels)`.

    # Raises
        ImportError: if Pillow is missing.
        ValueError: if the file is no image or damaged, or is not there.
    """
    Image = pillow()
    import numpy as np

    if path.is_dir():
        raise ValueError(f"the folder has no images ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        with Image.open(path) as opened:
            opened.load()  # of TIFF files, Pillow turns the picture itself when it loads it
            image = opened
            turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
            if upright and turn is not None:
                image = image.transpose(Image.Transpose[turn])
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow would cut everything above 255 off.
                values = np.asarray(image).astype(np.float64)
                if values.max() > 65535 or values.min() < 0:
                    raise ValueError("it has more than 16 bits per pixel")
                image = Image.fromarray(np.round(values / 257).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("its pixels are floats, whose range is not known")
            array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # damaged files make Pillow raise whatever its parsers meet
        raise ValueError(f"cannot be read as an image: {error}") from error
    return array[..., None] if channels == 1 else array
