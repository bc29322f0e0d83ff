"""Binarized networks, as functions that make a Keras model."""

from larq_ext_zoo.classification import DigitsNet, ResNet20, VGGSmall
from larq_ext_zoo.registry import Entry, entry, get, list_models

__all__ = ["DigitsNet", "Entry", "ResNet20", "VGGSmall", "entry", "get", "list_models"]
