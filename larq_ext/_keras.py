"""Makes `tf.keras` be Keras 2, which Larq is written for, before anything uses it."""

import importlib.util
import os
import pathlib
import sys

_VARIABLE = "TF_USE_LEGACY_KERAS"
_INSTALL = "pip install 'tf_keras>=2.17,<2.20'"
_FIRST = (
    "import larq_ext before anything that uses `tf.keras`, or type "
    f"`export {_VARIABLE}=1` before you start Python"
)


def can_train() -> bool:
    """Whether TensorFlow and Larq are installed: a device may have the first for its Lite alone."""
    return not _missing()


def _missing() -> list[str]:
    names = {"tensorflow": "TensorFlow", "larq": "Larq"}
    return [name for package, name in names.items() if importlib.util.find_spec(package) is None]


def require_training() -> None:
    """Says what to install where TensorFlow or Larq are missing.

    # Raises
        ImportError: if one of them is not installed.
    """
    missing = _missing()
    if missing:
        raise ImportError(
            f"larq_ext needs {' and '.join(missing)} for this: type `pip install .` in the folder "
            "of larq-ext, without `--no-deps`. (Only `larq_ext.runtime` and `larq_ext.pose` work "
            "without it.)"
        )


def use_legacy_keras() -> None:
    """Lets `tf.keras` stand for `tf_keras`, or says in one sentence why it cannot.

    Before TensorFlow is imported this sets an environment variable. After `import tensorflow`,
    and as long as nothing has touched `tf.keras`, it also redirects TensorFlow's lazy loader.

    # Raises
        ImportError: if `tf_keras` is missing, Keras 3 is already in use, or the environment
            forbids Keras 2.
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(f"larq_ext needs Keras 2, which is not installed: type `{_INSTALL}`.")
    if _is_legacy():
        return
    value = os.environ.get(_VARIABLE)
    if value is not None and value not in ("1", "true", "True"):
        raise ImportError(
            f"larq_ext needs Keras 2, but {_VARIABLE}={value!r} asks for Keras 3: type "
            f"`unset {_VARIABLE}` (or `export {_VARIABLE}=1`) and start Python again."
        )
    if "tensorflow" in sys.modules:
        _redirect_lazy_loader()
    os.environ[_VARIABLE] = "1"


def _is_legacy() -> bool:
    """Whether TensorFlow is imported and its `tf.keras` is already Keras 2."""
    tensorflow = sys.modules.get("tensorflow")
    keras = getattr(tensorflow, "__dict__", {}).get("keras")
    if keras is None or getattr(keras, "_tfll_initialized", True) is False:
        return False
    return getattr(keras, "__name__", "").startswith("tf_keras.")


def _redirect_lazy_loader() -> None:
    """Switches an imported TensorFlow whose `tf.keras` nobody has touched yet.

    TensorFlow looks its Keras up twice: the lazy loader reads the environment at first use, and
    `import tensorflow.keras` follows `tensorflow.__path__`. Both names are private, so where
    they are missing this raises instead of guessing.
    """
    import tensorflow as tf

    keras = tf.__dict__.get("keras")
    if getattr(keras, "_tfll_initialized", None) is not False or not hasattr(tf, "__path__"):
        raise ImportError(f"larq_ext needs Keras 2, but Keras 3 is already in use: {_FIRST}.")
    spec = importlib.util.find_spec("tf_keras")
    assert spec is not None and spec.submodule_search_locations
    legacy_api = pathlib.Path(spec.submodule_search_locations[0], "api", "_v2")
    if not legacy_api.is_dir():
        raise ImportError(f"larq_ext cannot find Keras 2 in {legacy_api}: type `{_INSTALL}`.")
    tf.__path__.insert(0, str(legacy_api))
