"""Runs converted models."""

from larq_ext.runtime.interpreter import Interpreter

__all__ = ["Interpreter"]
