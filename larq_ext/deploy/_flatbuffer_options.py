"""Reads from TensorFlow Lite files what their operators do beyond their names."""

from __future__ import annotations

from typing import Any, NamedTuple


class Details(NamedTuple):
    """What `read_graph` leaves out.

    # Arguments
        options: for each operator its built-in options, by TensorFlow Lite's names; empty for
            custom operators.
        names: the names that the signature gives to the tensors at the ends of the graph.
    """

    options: tuple[dict[str, Any], ...]
    names: dict[int, str]


def read_details(flatbuffer: bytes) -> Details:
    """Parses the built-in options and the signature of a TensorFlow Lite model.

    # Arguments
        flatbuffer: the serialized model, undamaged (`read_graph` says whether it is).

    # Returns
        The details of its first subgraph.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(flatbuffer)
    graph = model.Subgraphs(0)
    tables = {value: name for name, value in vars(schema.BuiltinOptions).items()}
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    names = {}
    if model.SignatureDefsLength():
        signature = model.SignatureDefs(0)
        entries = [signature.Inputs(i) for i in range(signature.InputsLength())]
        entries += [signature.Outputs(i) for i in range(signature.OutputsLength())]
        names = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
    return Details(
        tuple(_options(schema, operator, tables) for operator in operators),
        names,
    )


def _options(schema: Any, operator: Any, tables: dict[int, str]) -> dict[str, Any]:
    raw = operator.BuiltinOptions()
    if raw is None:
        return {}
    name = tables[operator.BuiltinOptionsType()]
    table = getattr(schema, name)()
    table.Init(raw.Bytes, raw.Pos)
    return vars(getattr(schema, f"{name}T").InitFromObj(table))
