"""What can go wrong in a training run, by who has to act."""


class UsageError(ValueError):
    """Something was asked for that does not exist or cannot be; the message says what can."""


class TrainingError(RuntimeError):
    """The training itself failed, for example because the loss is no longer a number."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the training; a checkpoint was saved."""
