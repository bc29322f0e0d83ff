"""What training has made of the bits: balance, entropy, starved weights, flips.

```python
print(lqx.inspection.inspect(model, before=earlier, inputs=images))
```
"""

from larq_ext.inspection._callback import FlipRatio
from larq_ext.inspection._inspect import inspect
from larq_ext.inspection._report import InspectReport, LayerInspection

__all__ = ["FlipRatio", "InspectReport", "LayerInspection", "inspect"]
