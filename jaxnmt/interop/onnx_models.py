"""The encoder and the decoder's step of a run as ONNX models: the model's own functions, traced by JAX.

Their sizes are symbolic dimensions: `batch` sentences of `source` tokens, `beams` hypotheses of each sentence, and caches of `length`
positions. Inputs and outputs are named by their paths in the memory and in the carry of `models.seq2seq`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import helper

import jaxnmt
from jaxnmt.interop.onnx_graph import Graph, Scope, Weights, names_read
from jaxnmt.interop.onnx_rules import inline
from jaxnmt.parallel.axes import path_name

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq

OPSET = 18
ENCODER, STEP = "encoder.onnx", "step.onnx"


def write(model: Seq2Seq, params: Any, folder: Path) -> None:
    """Write encoder.onnx and step.onnx, and the parameters of both into one file.

    encoder.onnx reads `tokens` int32 (batch, source), each row ended by EOS and padded with PAD. It returns `memory/...`, what the decoder
    reads of the source, and `carry/...`, the decoder's state before the first token, one row for each sentence, with caches of length 1.
    step.onnx reads `token` int32 (batch, beams), the memory, and the carry of each hypothesis (batch, beams, ...). It returns `logits`
    float32 (batch, beams, vocabulary), and the carry as `next/...`. Caches may be padded to any length.

    Raises:
        UserError: the model needs what no rule writes.
    """
    batch, beams, source, length = jax.export.symbolic_shape("batch, beams, source, length")
    tokens = jax.ShapeDtypeStruct((batch, source), jnp.int32)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    memory = jax.eval_shape(model.encode, shapes, {"encoder_input_tokens": tokens})
    carry = jax.eval_shape(lambda params, memory: model.start(params, memory, length), shapes, memory)
    carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, beams, *x.shape[1:]), x.dtype), carry)

    def step(params: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        rows = jax.tree.map(lambda x: x.reshape(batch * beams, *x.shape[2:]), _unnamed(carry, "carry/", inputs))
        made = model.step(params, _unnamed(memory, "memory/", inputs), rows, inputs["token"].reshape(batch * beams))
        logits, after = jax.tree.map(lambda x: x.reshape(batch, beams, *x.shape[1:]), made)
        return {"logits": logits, **named(after, "next/")}

    def encode(params: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        made = model.encode(params, {"encoder_input_tokens": inputs["tokens"]})
        found = named(made, "memory/") | named(model.start(params, made, 1), "carry/")
        return {name: x for name, x in found.items() if name in read}

    token = jax.ShapeDtypeStruct((batch, beams), jnp.int32)
    with Weights(folder) as weights:
        second = traced("step", step, params, {"token": token, **named(memory, "memory/"), **named(carry, "carry/")}, weights)
        read = {each.name for each in second.graph.input}
        first = traced("encoder", encode, params, {"tokens": tokens}, weights)
    for name, proto in ((ENCODER, first), (STEP, second)):
        onnx.save(proto, str(folder / name))
        onnx.checker.check_model(str(folder / name), full_check=True)


def named(tree: Any, prefix: str) -> dict[str, Any]:
    """Return the leaves of a pytree by their paths."""
    return {f"{prefix}{path_name(path)}": x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _unnamed(like: Any, prefix: str, leaves: dict[str, Any]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[f"{prefix}{path_name(path)}"], like)


def traced(name: str, function: Callable[..., dict[str, Any]], params: Any, inputs: dict[str, Any], weights: Weights) -> onnx.ModelProto:
    """Return a function as an ONNX model.

    Args:
        name: of the model.
        function: of the parameters and the inputs; it returns the outputs by name.
        params: a pytree of arrays; the model has those that it needs, under their paths.
        inputs: `jax.ShapeDtypeStruct` by name, whose sizes may be symbolic dimensions; the model has those that it needs.
        weights: where arrays are written.

    Raises:
        UserError: a primitive or a size has no rule.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(shapes, inputs)
    scope, arrays = Scope(weights, inputs), named(params, "params/")
    graph = Graph(scope)
    made = inline(graph, jaxpr, [*arrays, *sorted(inputs)])
    graph.nodes += [helper.make_node("Identity", [source], [output]) for output, source in zip(sorted(outputs), made, strict=True)]
    proto = graph.as_proto(name, inputs, outputs, scope.sizes.nodes)
    used = {each for node in proto.node for each in names_read(node)}
    for unused in [each for each in proto.input if each.name not in used]:
        proto.input.remove(unused)
    proto.initializer.extend(tensor for key, tensor in scope.initializers.items() if key in used)
    proto.initializer.extend(weights.tensor(key, np.asarray(x)) for key, x in arrays.items() if key in used)
    opsets = [helper.make_opsetid("", OPSET)]
    version = helper.find_min_ir_version_for(opsets)  # not the library's newest, which runtimes may not know yet
    return helper.make_model(proto, opset_imports=opsets, ir_version=version, producer_name="jaxnmt", producer_version=jaxnmt.__version__)
