"""The error of the deployment steps, and the check that the converter is installed."""

from __future__ import annotations

import importlib.util
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from larq_ext.deploy.audit import AuditReport


class DeploymentError(RuntimeError):
    """A model could not be deployed as a binary network.

    # Arguments
        message: what is wrong and what to change.
        report: the audit that failed, where there is one.
    """

    def __init__(self, message: str, report: AuditReport | None = None) -> None:
        super().__init__(message)
        self.report = report
        # What the command exits with: a check failed, or something else is in the way.
        self.exit_code = 2 if report is None else 1


def require_engine() -> None:
    """Checks that Larq Compute Engine is installed.

    # Raises
        DeploymentError: with the line to type, or where there is nothing to install, with what
            to do instead.
    """
    if importlib.util.find_spec("larq_compute_engine") is not None:
        return
    raise DeploymentError(
        "Larq Compute Engine is not installed: type "
        "`pip install 'larq-compute-engine>=0.16,<0.17'`. "
        f"It has no wheels for ARM Linux (this machine is {platform.machine()}): there convert and "
        "check on an x86-64 machine, and run the .tflite file with larq_ext.runtime, which does "
        "not need it (docs/deploy.md)."
    )
