"""A small network on scikit-learn's handwritten digits: the whole way in a minute."""

from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._registry import register

Digits = register(
    Experiment(
        name="Digits",
        description="a small network on 1,797 handwritten digits of 8x8 pixels; needs no files",
        network="DigitsNet",
        quantizer="fda",
        dataset="digits",
        optimizer="adam",
        learning_rate=3e-3,
        epochs=30,
        batch_size=64,
        crop_padding=1,
        flip=False,
        evaluate_every=5,
    )
)
