"""The data sets that the zoo's networks are trained on: classes, and what is done to images."""

from __future__ import annotations

from typing import NamedTuple

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext_zoo._preprocessing import Preprocessing


class Data(NamedTuple):
    """A data set as a network sees it.

    # Arguments
        classes: Name of its class list, or `None` where the names are not known.
        side: Usual height and width of the network's input, pixels; of persons the height.
        preprocessing: For that size.
        task: What networks learn from it, one of `_entry.TASKS`.
    """

    classes: str | None
    side: int
    preprocessing: Preprocessing
    task: str = "classification"

    def for_side(self, side: int) -> Preprocessing:
        """The preprocessing for another size of the input."""
        return self.preprocessing.scaled(side / self.side)


# Of pictures of any size the shorter side becomes 256/224 of the input's.
_PICTURES = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, resize=256)
DATASETS = {
    # The statistics of ImageNet, as the code of FDA-BNN and of SiMaN has it.
    "cifar10": Data("cifar10", 32, Preprocessing(IMAGENET_MEAN, IMAGENET_STD, resize=32)),
    # Persons are cut out at the size of the input, and not resized after that.
    "coco_keypoints": Data(None, 256, Preprocessing(IMAGENET_MEAN, IMAGENET_STD), task="pose"),
    "digits": Data("digits", 8, Preprocessing((0.5,), (0.5,), scale=1 / 255, resize=8)),
    "folder": Data(None, 224, _PICTURES),
    "imagenet": Data(None, 224, _PICTURES),
    "imagenette": Data("imagenette", 224, _PICTURES),
    "mnist": Data("digits", 28, Preprocessing((33.3184,), (78.5675,), resize=28)),
}
