"""A small network on scikit-learn's handwritten digits: the whole way in a minute."""

from zookeeper import Field

from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._registry import register


@register
class Digits(Experiment):
    """A small network on 1,797 handwritten digits of 8x8 pixels; needs no files."""

    network = Field("DigitsNet")
    quantizer = Field("fda")
    dataset = Field("digits")
    optimizer = Field("adam")
    learning_rate = Field(3e-3)
    epochs = Field(30)
    batch_size = Field(64)
    crop_padding = Field(1)
    flip = Field(False)
    evaluate_every = Field(5)
