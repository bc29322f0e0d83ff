"""COCO's person keypoints as a data set of tensorflow-datasets, built from a folder, offline.

```python
from larq_ext_recipes.datasets.coco_keypoints_tfds import CocoPersonKeypoints

builder = CocoPersonKeypoints(data_dir="prepared")
builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir="coco")
)
train = builder.as_dataset(split="train")
```
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext_recipes.datasets._coco_files import find_part, open_pictures, read_annotations
from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._persons import check_entries
from larq_ext_recipes.datasets._records import TFDS_PIP

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise DatasetError(
        f"The builder needs tensorflow-datasets: type `{TFDS_PIP}`, or read the folder itself with "
        "dataset=coco_keypoints."
    ) from error

_INSTRUCTIONS = (
    "Put annotations/person_keypoints_{train,val}2017.json and the folders train2017 and val2017, "
    "from cocodataset.org, into the manual folder."
)


class CocoPersonKeypoints(tfds.core.GeneratorBasedBuilder):
    """Pictures with persons: boxes, areas and 17 keypoints each, in pixels as COCO has them.

    The splits are `train` and `validation`. Persons without labelled keypoints and crowds are in
    it, because the evaluation needs them. `bbox` is x, y, width, height; `keypoints` are x, y and
    0 for not labelled, 1 for hidden or 2 for visible.

    # References
        - [Microsoft COCO: Common Objects in Context](https://arxiv.org/abs/1405.0312)
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS

    def _info(self) -> tfds.core.DatasetInfo:
        person = {
            "id": np.int64,
            "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "area": np.float32,
            "is_crowd": np.bool_,
            "keypoints": tfds.features.Tensor(shape=(len(KEYPOINTS), 3), dtype=np.float32),
        }
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(person),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Persons of COCO 2017 with their keypoints.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://cocodataset.org",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = pathlib.Path(dl_manager.manual_dir)
        return {
            "train": self._generate_examples(folder, "train"),
            "validation": self._generate_examples(folder, "test"),
        }

    def _generate_examples(
        self, folder: pathlib.Path, part: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        file, place = find_part(folder, part)
        content = read_annotations(file)
        listed, people = check_entries(content, str(file))
        persons: dict[int, list[dict[str, Any]]] = {number: [] for number in listed}
        for annotation in people:
            persons[annotation["image_id"]].append(_person(annotation))
        images = [image for number, image in listed.items() if persons[number]]
        pictures = open_pictures(place, [image["file_name"] for image in images])
        for number, image in enumerate(images):
            yield (
                image["id"],
                {
                    "image": io.BytesIO(pictures.fetch(number).numpy()),
                    "image/filename": image["file_name"],
                    "image/id": image["id"],
                    "objects": persons[image["id"]],
                },
            )


def _person(annotation: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": annotation["id"],
        "bbox": annotation["bbox"],
        "area": annotation["area"],
        "is_crowd": bool(annotation.get("iscrowd", 0)),
        "keypoints": np.array(annotation["keypoints"], np.float32).reshape(-1, 3),
    }
