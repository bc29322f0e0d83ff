"""What the experiments on ImageNet share."""

from zookeeper import Field

from larq_ext_recipes._experiment import Experiment


class ImageNetExperiment(Experiment):
    """Pictures of 224 x 224 pixels, cropped at random and mirrored.

    `dataset=imagenette`, or `dataset=folder` for any folder of class folders, tries a recipe on
    less.
    """

    dataset = Field("imagenet")
    crop_padding = Field(0)
    crop_scale = Field((0.08, 1.0))
    epochs = Field(120)
    batch_size = Field(256)
