"""ONNX graphs, written node by node, with sizes that may be symbolic dimensions.

A symbolic dimension (`jax.export.symbolic_shape`) is computed in the model from the shape of an input.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jaxnmt.errors import UserError

WEIGHTS = "weights.bin"
INLINE = 1024
"""Bytes up to which an array is written into the model itself, and not into the file of weights."""
_ARITHMETIC = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}


def refuse(what: str) -> UserError:
    """Return the error for an operation or a size without a rule."""
    return UserError(
        f"--to onnx cannot hold the model: it uses JAX's {what}, for which there is no rule: use --to stablehlo, which holds it"
    )


def is_number(size: Any) -> bool:
    """Return whether a size is a number, and not a symbolic dimension."""
    return isinstance(size, (int, np.integer))


class Weights:
    """A file of arrays that the models of a folder read. Equal arrays are written once."""

    def __init__(self, folder: Path) -> None:
        """Make the file, to be used as a context manager."""
        self._file = (folder / WEIGHTS).open("wb")
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def tensor(self, name: str, array: np.ndarray) -> onnx.TensorProto:
        """Write an array, and return the tensor that refers to it."""
        data = array.tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._offsets:
            self._file.write(bytes(-self._file.tell() % 64))  # readers map the file into memory, and want aligned numbers
            self._offsets[key] = self._file.tell()
            self._file.write(data)
        tensor = onnx.TensorProto(name=name, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        for word, value in (("location", WEIGHTS), ("offset", self._offsets[key]), ("length", len(data))):
            tensor.external_data.add(key=word, value=str(value))
        return tensor


class Scope:
    """What all graphs of a model share: names, constants, and sizes.

    Attributes:
        sizes: nodes that compute sizes from the shapes of inputs; they stand first in the model, so that every graph can read them.
        initializers: tensors by name.
    """

    def __init__(self, weights: Weights, inputs: dict[str, Any]) -> None:
        """Begin a model with these inputs, by their names."""
        self._weights, self._inputs = weights, inputs
        self._count = 0
        self._known: dict[Any, str] = {}
        self.sizes = Graph(self)
        self.initializers: dict[str, onnx.TensorProto] = {}

    def name(self, kind: str) -> str:
        """Return a new name."""
        self._count += 1
        return f"{kind}_{self._count}"

    def constant(self, value: Any) -> str:
        """Return the name of a constant."""
        array = np.asarray(value)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            name = self._known[key] = self.name("constant")
            small = array.nbytes <= INLINE
            self.initializers[name] = numpy_helper.from_array(array, name) if small else self._weights.tensor(name, array)
        return self._known[key]

    def size(self, size: Any) -> str:
        """Return the name of a size: int64 (1,)."""
        if is_number(size):
            return self.constant(np.array([size], np.int64))
        text = str(size)
        if text not in self._known:
            self._known[text] = self._compute(ast.parse(text, mode="eval").body, text)
        return self._known[text]

    def shape(self, shape: Sequence[Any]) -> str:
        """Return the name of a shape: int64 (axes,)."""
        if all(map(is_number, shape)):
            return self.constant(np.array(shape, np.int64))
        key = tuple(map(str, shape))
        if key not in self._known:
            self._known[key] = self.sizes("Concat", *map(self.size, shape), axis=0)
        return self._known[key]

    def _compute(self, node: ast.expr, text: str) -> str:
        """Write an expression of symbolic dimensions, which JAX prints as Python does."""
        match node:
            case ast.Constant(value=number):
                return self.size(number)
            case ast.Name(id=name):
                places = [
                    (len(x.shape), key, axis) for key, x in self._inputs.items() for axis, size in enumerate(x.shape) if str(size) == name
                ]
                _, key, axis = min(places, key=lambda place: place[0])  # small inputs are needed anyway: they are tokens and masks
                return self.sizes("Shape", key, start=axis, end=axis + 1)
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _ARITHMETIC:
                return self.sizes(_ARITHMETIC[type(operation)], self._compute(left, text), self._compute(right, text))
        raise refuse(f"size {text}")


class Graph:
    """The nodes of a model, or of the body of a scan, which also reads what the graph around it has."""

    def __init__(self, scope: Scope) -> None:
        """Begin an empty graph."""
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []

    def __call__(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node.

        Args:
            kind: the operator.
            inputs: names, or arrays, which become constants.
            outputs: how many it has.
            attributes: of the operator.

        Returns:
            The name of its output, or a list of names if `outputs` is not 1.
        """
        names = [self.scope.name(kind) for _ in range(outputs)]
        read = [x if isinstance(x, str) else self.scope.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(kind, read, names, **attributes))
        return names[0] if outputs == 1 else names

    def as_proto(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], before: Sequence[Any] = ()) -> onnx.GraphProto:
        """Return the graph, without nodes that no output needs.

        Args:
            name: of the graph.
            inputs, outputs: names, with shapes and types.
            before: nodes that stand before its own.
        """
        needed, nodes = set(outputs), []
        for node in reversed([*before, *self.nodes]):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(names_read(node))
        typed_inputs, typed_outputs = ([_typed(key, x) for key, x in each.items()] for each in (inputs, outputs))
        return helper.make_graph(nodes[::-1], name, typed_inputs, typed_outputs)


def names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, and that the nodes of its body read."""
    bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {*node.input, *(name for body in bodies for inner in body.node for name in names_read(inner))}


def _typed(name: str, x: Any) -> onnx.ValueInfoProto:
    shape = [int(size) if is_number(size) else str(size) for size in x.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype)), shape)
