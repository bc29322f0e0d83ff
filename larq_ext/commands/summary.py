"""Layers, bits, memory and operations of a model."""

from __future__ import annotations

from typing import Any

import click

from larq_ext.commands._common import MODEL_HELP, load_model, print_json
from larq_ext.commands._options import json_option


@click.command("summary", epilog=MODEL_HELP)
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Show the layers of MODEL with bits, memory and operations.

    \b
    Example:
      larq-ext summary model.keras
    """
    network = load_model(model)
    import larq as lq

    profile = lq.models.ModelProfile(network)
    if as_json:
        print_json(_profile(profile))
        return
    lq.models.summary(network, print_fn=click.echo)
    if not profile.has_op_count:
        click.echo("Without multiply-adds: the size of a layer is open, or it is used at several.")


def _profile(profile: Any) -> dict[str, Any]:
    """Larq's model profile as plain values; memory in bits, as Larq counts it."""
    sized = profile.has_op_count
    return {
        "name": profile.name,
        "weights": profile.weight_count(),
        "weights_by_bits": {
            str(bits): profile.weight_count(bits) for bits in profile.unique_param_bidtwidths
        },
        "memory_bits": profile.memory,
        "float32_memory_bits": profile.fp_equivalent_memory,
        "macs": profile.op_count("mac") if sized else None,
        "macs_by_bits": {
            str(bits): profile.op_count("mac", bits) for bits in profile.unique_op_precisions
        }
        if sized
        else None,
    }
