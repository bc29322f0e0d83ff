"""Human poses with two CPU cores: narrow networks, small crops, a few thousand persons.

All settings are ours, and the same for the four networks, so that they can be compared with each
other. What they reach says nothing about a training on all of COCO.
"""

from zookeeper import Field

from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._pose_experiment import PoseExperiment
from larq_ext_recipes._registry import register

_RESNET = "backbone=18,width=16"
# One module a stage, of half as many blocks as usual.
_HRNET = "width=16,stem_filters=16,modules=(1,1,1),blocks=2"


class SmallBackbone(Experiment):
    """A classifier on Imagenette, whose weights a small pose network starts from."""

    dataset = Field("imagenette")
    image_size = Field(96)
    crop_padding = Field(0)
    crop_scale = Field((0.35, 1.0))
    optimizer = Field("adam")
    learning_rate = Field(2e-3)
    schedule = Field("cosine")
    schedule_per_step = Field(True)
    epochs = Field(20)
    batch_size = Field(64)
    evaluate_every = Field(5)


class SmallPose(PoseExperiment):
    """The budget of all four."""

    input_size = Field((128, 96))
    sigma = Field(1.0)  # as much of the picture as 2 at 256x192
    learning_rate = Field(2e-3)
    schedule = Field("cosine")
    schedule_per_step = Field(True)
    epochs = Field(30)
    batch_size = Field(32)
    scale = Field(0.3)  # the milder of the parents' augmentations
    rotation = Field(40.0)
    half_body = Field(0.0)
    evaluate_every = Field(5)


@register
class SBPN18Small(SmallPose):
    """SBPN-style binary pose network, width 16, at 128x96."""

    network = Field("SBPN")
    quantizer = Field("mlp_classifier")
    network_options = Field(_RESNET)
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((18, 26))


@register
class SimpleBaseline18Small(SmallPose):
    """Simple Baseline, width 16, at 128x96: the real-valued parent of SBPN18Small."""

    network = Field("SimpleBaseline")
    quantizer = Field(None)
    network_options = Field(_RESNET)


@register
class BHRNetSmall(SmallPose):
    """BHRNet-style binary pose network, width 16 and half as deep, at 128x96."""

    network = Field("BHRNet")
    quantizer = Field("mlp_classifier")
    network_options = Field(_HRNET)
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((18, 26))


@register
class HRNetSmall(SmallPose):
    """HRNet, width 16 and half as deep, at 128x96: the real-valued parent of BHRNetSmall."""

    network = Field("HRNet")
    quantizer = Field(None)
    network_options = Field(_HRNET)


@register
class SBPN18SmallBackbone(SmallBackbone):
    """Binary ResNet-18 of width 16 on Imagenette, the backbone of SBPN18Small."""

    network = Field("SBPN")
    quantizer = Field("mlp_classifier")
    network_options = Field(_RESNET)
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((12, 17))


@register
class SimpleBaseline18SmallBackbone(SmallBackbone):
    """ResNet-18 of width 16 on Imagenette, the backbone of SimpleBaseline18Small."""

    network = Field("SimpleBaseline")
    quantizer = Field(None)
    network_options = Field(_RESNET)


@register
class BHRNetSmallBackbone(SmallBackbone):
    """BHRNet of width 16 as a classifier on Imagenette, the backbone of BHRNetSmall."""

    network = Field("BHRNet")
    quantizer = Field("mlp_classifier")
    network_options = Field(_HRNET)
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((12, 17))


@register
class HRNetSmallBackbone(SmallBackbone):
    """HRNet of width 16 as a classifier on Imagenette, the backbone of HRNetSmall."""

    network = Field("HRNet")
    quantizer = Field(None)
    network_options = Field(_HRNET)
