"""The error of the runtime."""


class EngineError(ImportError):
    """Something that runs models is missing on this machine, or cannot be loaded.

    The message is what to install.
    """
