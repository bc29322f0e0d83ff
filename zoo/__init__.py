"""Binarized networks, as functions that make a Keras model, and trained models by name.

```python
model = zoo.get("resnet20.fda")
classes = zoo.decode_predictions(model.predict(zoo.preprocess("resnet20.fda", images)), "cifar10")
```
"""

from larq_ext_zoo import classification, pose
from larq_ext_zoo._entry import Entry
from larq_ext_zoo._publish import add_entry
from larq_ext_zoo._weights_file import WeightsError
from larq_ext_zoo.classification import *  # noqa: F403  (each network is added there)
from larq_ext_zoo.pose import *  # noqa: F403
from larq_ext_zoo.predictions import decode_predictions
from larq_ext_zoo.preprocessing import Preprocessing, preprocess, preprocessing_layers
from larq_ext_zoo.registry import entry, get, list_models, register, register_folder

__all__ = [
    "Entry",
    "Preprocessing",
    "WeightsError",
    "add_entry",
    "decode_predictions",
    "entry",
    "get",
    "list_models",
    "preprocess",
    "preprocessing_layers",
    "register",
    "register_folder",
    *classification.__all__,
    *pose.__all__,
]
