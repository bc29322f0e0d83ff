"""Images from files, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Of pictures in RGB, for pixels of 0 to 255: what everybody normalises with.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


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


def load_image(path: Path, channels: int) -> Any:
    """Reads an image upright, in grey or RGB.

    Orientation in the EXIF data is applied, transparency is dropped, palettes and other colour
    models become RGB, 16 bits become 8.

    # Arguments
        path: A file of any kind that Pillow reads; of several frames the first is taken.
        channels: 1 for grey, 3 for RGB.

    # Returns
        uint8 array `(rows, columns, channels)`.

    # Raises
        ImportError: if Pillow is missing.
        ValueError: if the file is no image or damaged, or is not there.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("Images need Pillow: type `pip install 'pillow>=10'`.") from error
    import numpy as np

    if path.is_dir():
        raise ValueError(f"the folder has no images ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow would cut everything above 255 off.
                values = np.asarray(image).astype(np.float64)
                if values.max() > 65535 or values.min() < 0:
                    raise ValueError("it has more than 16 bits per pixel")
                image = Image.fromarray(np.round(values / 257).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("its pixels are floats, whose range is not known")
            array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be read as an image: {error}") from error
    return array[..., None] if channels == 1 else array
