"""Imagenette: about 9,500 training and 3,900 test pictures of ten easy classes of ImageNet.

J. Howard and others, <https://github.com/fastai/imagenette>. It comes as an archive in several
sizes. Extract one once, and give the folder:

```bash
tar -xf imagenette2-160.tgz -C FOLDER
larq-ext train ResNet18FDA dataset=imagenette data_dir=FOLDER image_size=128
```
"""

from __future__ import annotations

import pathlib

from larq_ext_recipes.datasets._folders import FolderDataset, read_folder
from larq_ext_recipes.datasets._pictures import check_size

CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGE_SIZE = 224
_ADVICE = "Get imagenette2-160.tgz from github.com/fastai/imagenette and extract it."


def load(
    data_dir: str | pathlib.Path | None = None, image_size: int | None = None
) -> FolderDataset:
    """Finds the pictures of Imagenette.

    # Arguments
        data_dir: The extracted folder (it has `train` and `val`), or the one above.
        image_size: Height and width as a network sees them, pixels; default 224. An archive's
            smaller pictures are enlarged; 128 suits the 160 pixel one.

    # Returns
        The data set, normalised with the statistics of ImageNet.

    # Raises
        UsageError: if the size is not above 0.
        DatasetError: if the folder is missing, not extracted or not complete.
    """
    size = check_size(image_size, IMAGE_SIZE)
    return read_folder("imagenette", data_dir, size, names=CLASSES, advice=_ADVICE)
