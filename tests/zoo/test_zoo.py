"""The registry."""

import pytest

import larq_ext_zoo as zoo


def test_registry():
    assert "resnet20.siman" in zoo.list_models("resnet20*")
    assert all(name.startswith("vgg_small.") for name in zoo.list_models("vgg*"))
    assert zoo.list_models(pretrained=True) == []
    assert zoo.get("digits_net.siman", num_classes=4).output_shape == (None, 4)
    with pytest.raises(ValueError, match=r"resnet20\.fda"):
        zoo.get("resnet20.fdaa")
    entry = zoo.entry("resnet20.fda")
    with pytest.raises(ValueError, match="already"):
        zoo.registry.register(entry)
