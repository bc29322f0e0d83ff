"""What can go wrong in a training run, by who has to act; commands exit with `exit_code`."""


class UsageError(ValueError):
    """Something was asked for that does not exist or cannot be; the message says what can."""


class TrainingError(RuntimeError):
    """The training itself failed, for example because the loss is no longer a number."""

    exit_code = 1


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the training; a checkpoint was saved."""

    exit_code = 130
