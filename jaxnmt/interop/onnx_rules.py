"""How each of JAX's primitives is written in ONNX. A rule takes the graph, the equation and the names of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from jaxnmt.interop.onnx_graph import Graph, is_number, refuse

SAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "neg": "Neg", "abs": "Abs"},
    **{"sign": "Sign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tanh": "Tanh", "logistic": "Sigmoid"},
    **{"erf": "Erf", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal"},
}
"""Primitives that ONNX has under another name."""
LOGICAL = {"and": "And", "or": "Or", "not": "Not"}
"""The same, of booleans alone."""
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters that hold what a primitive calls, such as that of `jax.jit`."""

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def inline(g: Graph, jaxpr: core.ClosedJaxpr, inputs: Sequence[str]) -> list[str]:
    """Write a jaxpr; take and return the names of its inputs and outputs."""
    constants = [g.scope.constant(x) for x in jaxpr.consts]
    names = dict(zip([*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom: Any) -> str:
        return g.scope.constant(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, core.Literal) else names[atom]

    for equation in jaxpr.jaxpr.eqns:
        made = write(g, equation, [read(atom) for atom in equation.invars])
        names.update(zip(equation.outvars, [made] if isinstance(made, str) else made, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def write(g: Graph, equation: Any, inputs: list[str]) -> Any:
    """Write an equation; return the name of its output, or a list of names.

    Raises:
        UserError: its primitive has no rule.
    """
    name, params = equation.primitive.name, equation.params
    if name in RULES:
        return RULES[name](g, equation, *inputs)
    if name in SAME:
        return g(SAME[name], *inputs)
    if name in LOGICAL and equation.invars[0].aval.dtype == np.bool_:
        return g(LOGICAL[name], *inputs)
    for body in BODIES:
        if body in params:
            inner = params[body]
            return inline(g, inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ()), inputs)
    raise refuse(f"primitive {name}")


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _shape(x: Any) -> tuple[Any, ...]:
    return x.aval.shape


def _int64(g: Graph, x: str) -> str:
    return g("Cast", x, to=onnx.TensorProto.INT64)


def _permuted(g: Graph, x: str, order: Sequence[int]) -> str:
    return x if list(order) == list(range(len(order))) else g("Transpose", x, perm=list(map(int, order)))


# ---- numbers


@_rule("stop_gradient", "copy")
def _itself(g, equation, x):
    return x


@_rule("convert_element_type")
def _cast(g, equation, x):
    old, new = equation.invars[0].aval.dtype, np.dtype(equation.params["new_dtype"])
    return x if old == new else g("Cast", x, to=helper.np_dtype_to_tensor_dtype(new))


@_rule("ne")
def _not_equal(g, equation, x, y):
    return g("Not", g("Equal", x, y))


@_rule("select_n")
def _select(g, equation, which, *cases):
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise refuse("primitive select_n of several cases")
    return g("Where", which, cases[1], cases[0])


@_rule("square")
def _square(g, equation, x):
    return g("Mul", x, x)


@_rule("integer_pow")
def _integer_power(g, equation, x):
    return g("Pow", x, np.asarray(equation.params["y"], equation.invars[0].aval.dtype))


@_rule("rsqrt")
def _inverse_root(g, equation, x):
    return g("Reciprocal", g("Sqrt", x))


@_rule("erfc")
def _complementary_error_function(g, equation, x):
    return g("Sub", np.float32(1), g("Erf", x))


@_rule("log1p")
def _log_of_one_plus(g, equation, x):
    return g("Log", g("Add", np.float32(1), x))


@_rule("is_finite")
def _is_finite(g, equation, x):
    return g("Not", g("Or", g("IsNaN", x), g("IsInf", x)))


# ---- sums and products


@_rule("reduce_sum", "reduce_max", "reduce_min")
def _reduce(g, equation, x):
    kind = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}[equation.primitive.name]
    return g(kind, x, np.array(equation.params["axes"], np.int64), keepdims=0)


@_rule("dot_general")
def _product(g, equation, x, y):
    """Bring both to (batch axes, rows, columns), and multiply."""
    shapes = [_shape(each) for each in equation.invars]
    contracted, batch = equation.params["dimension_numbers"]
    free = [[axis for axis in range(len(shape)) if axis not in (*c, *b)] for shape, c, b in zip(shapes, contracted, batch, strict=True)]

    def matrix(name: str, side: int) -> str:
        groups = [free[side], list(contracted[side])]
        groups = groups if side == 0 else groups[::-1]
        name = _permuted(g, name, [*batch[side], *groups[0], *groups[1]])
        if all(len(group) == 1 for group in groups):
            return name
        sizes = [shapes[side][axis] for axis in batch[side]]
        return g("Reshape", name, g.scope.shape([*sizes, *(_times(shapes[side][axis] for axis in group) for group in groups)]))

    made = g("MatMul", matrix(x, 0), matrix(y, 1))
    return made if len(free[0]) == len(free[1]) == 1 else g("Reshape", made, g.scope.shape(_shape(equation.outvars[0])))


def _times(sizes: Any) -> Any:
    product: Any = 1
    for size in sizes:
        product = product * size
    return product


# ---- shapes


@_rule("reshape")
def _reshape(g, equation, x):
    shape = equation.params["new_sizes"]
    if sum(not is_number(size) for size in shape) == 1:  # it follows from the others
        shape = [size if is_number(size) else -1 for size in shape]
    return g("Reshape", x, g.scope.shape(shape))


@_rule("squeeze")
def _squeeze(g, equation, x):
    return g("Squeeze", x, np.array(equation.params["dimensions"], np.int64))


@_rule("transpose")
def _transpose(g, equation, x):
    return _permuted(g, x, equation.params["permutation"])


@_rule("broadcast_in_dim")
def _broadcast(g, equation, x):
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    before = _shape(equation.invars[0])
    sizes = [before[places.index(axis)] if axis in places else 1 for axis in range(len(shape))]
    if before and len(places) < len(shape):
        x = g("Unsqueeze", x, np.array([axis for axis in range(len(shape)) if axis not in places], np.int64))
    return x if sizes == list(shape) and (before or not shape) else g("Expand", x, g.scope.shape(shape))


@_rule("concatenate")
def _concatenate(g, equation, *parts):
    return g("Concat", *parts, axis=int(equation.params["dimension"]))


@_rule("split")
def _split(g, equation, x):
    sizes = equation.params["sizes"]
    return g("Split", x, g.scope.shape(sizes), outputs=len(sizes), axis=int(equation.params["axis"]))


@_rule("iota")
def _count(g, equation):
    """Return 0, 1, 2, ... along one axis."""
    shape, axis, dtype = (equation.params[name] for name in ("shape", "dimension", "dtype"))
    numbers = g("Range", np.int64(0), g("Squeeze", g.scope.size(shape[axis])), np.int64(1))
    numbers = g("Cast", numbers, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    column = [-1 if place == axis else 1 for place in range(len(shape))]
    return numbers if len(shape) == 1 else g("Expand", g("Reshape", numbers, np.array(column, np.int64)), g.scope.shape(shape))


@_rule("dim_as_value")
def _size(g, equation):
    dtype = helper.np_dtype_to_tensor_dtype(equation.outvars[0].aval.dtype)
    return g("Cast", g("Squeeze", g.scope.size(equation.params["dim"])), to=dtype)


# ---- parts


def _part(g: Graph, x: str, start: Any, end: Any, axis: int) -> str:
    return g("Slice", x, start, end, np.array([axis], np.int64))


def _ends(g: Graph, start: str, size: Any, of: Any) -> tuple[str, str]:
    """Return where a part of this size begins and ends, int64 (1,): JAX moves a part that would end outside."""
    length = g.scope.size(size)
    first = g("Min", g("Reshape", _int64(g, start), np.array([1])), g("Sub", g.scope.size(of), length))
    first = g("Max", first, np.array([0]))
    return first, g("Add", first, length)


@_rule("slice")
def _slice(g, equation, x):
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or [1] * len(starts)
    return g("Slice", x, g.scope.shape(starts), g.scope.shape(ends), np.arange(len(starts)), np.array(steps, np.int64))


@_rule("dynamic_slice")
def _dynamic_slice(g, equation, x, *starts):
    before = _shape(equation.invars[0])
    for axis, (start, size, of) in enumerate(zip(starts, equation.params["slice_sizes"], before, strict=True)):
        if size != of:
            x = _part(g, x, *_ends(g, start, size, of), axis)
    return x


@_rule("dynamic_update_slice")
def _dynamic_update_slice(g, equation, x, update, *starts):
    """Join what stands before, the update, and what stands after: for each axis, inside that of the axis before."""
    before, new = (_shape(each) for each in equation.invars[:2])

    def updated(x: str, axes: list[int]) -> str:
        if not axes:
            return update
        axis, *others = axes
        first, last = _ends(g, starts[axis], new[axis], before[axis])
        left, right = _part(g, x, np.array([0]), first, axis), _part(g, x, last, g.scope.size(before[axis]), axis)
        return g("Concat", left, updated(_part(g, x, first, last, axis), others), right, axis=axis)

    return updated(x, [axis for axis in range(len(new)) if new[axis] != before[axis]])


@_rule("gather")
def _gather(g, equation, x, places):
    p, before = equation.params, _shape(equation.invars[0])
    n, sizes = p["dimension_numbers"], p["slice_sizes"]
    if len(_shape(equation.invars[1])) == 1:  # one place: a part of x
        for number, axis in enumerate(map(int, n.start_index_map)):
            x = _part(g, x, *_ends(g, g("Gather", places, np.int64(number)), sizes[axis], before[axis]), axis)
        return g("Squeeze", x, np.array(n.collapsed_slice_dims, np.int64)) if n.collapsed_slice_dims else x
    whole = [axis for axis in range(len(before)) if axis not in (*n.start_index_map, *n.operand_batching_dims)]
    if set(n.collapsed_slice_dims) != set(n.start_index_map) or any(sizes[axis] != before[axis] for axis in whole):
        raise refuse("primitive gather of parts at several places")
    if p["mode"] == jax.lax.GatherScatterMode.CLIP:
        raise refuse("primitive gather that clips")  # ONNX Runtime raises an error for places outside
    rank = len(_shape(equation.invars[1])) - 1
    order = [*n.start_indices_batching_dims, *(axis for axis in range(rank) if axis not in n.start_indices_batching_dims)]
    x = _permuted(g, x, [*n.operand_batching_dims, *n.start_index_map, *whole])
    places = _int64(g, _permuted(g, places, [*order, rank]))
    made = g("GatherND", x, places, batch_dims=len(n.operand_batching_dims))
    indexed, windows = iter([order.index(axis) for axis in range(rank)]), iter(range(rank, rank + len(whole)))
    return _permuted(g, made, [next(windows if axis in n.offset_dims else indexed) for axis in range(rank + len(whole))])


@_rule("scatter-add")
def _scatter_add(g, equation, x, places, update):
    """Add at places of one axis; the other axes are windows, or batched."""
    n, rank = equation.params["dimension_numbers"], len(_shape(equation.invars[0]))
    indexed = [axis for axis in range(len(_shape(equation.invars[1])) - 1) if axis not in n.scatter_indices_batching_dims]
    if len(indexed) != 1 or len(n.inserted_window_dims) != 1 or tuple(n.inserted_window_dims) != tuple(n.scatter_dims_to_operand_dims):
        raise refuse("primitive scatter-add along several axes")
    axis = int(n.inserted_window_dims[0])
    index_axes = dict(zip(n.operand_batching_dims, n.scatter_indices_batching_dims, strict=True)) | {axis: indexed[0]}
    windows = iter(n.update_window_dims)
    scattered = [place for place in range(rank) if place not in n.update_window_dims]  # the update's axes of the places
    update = _permuted(g, update, [scattered[index_axes[d]] if d in index_axes else next(windows) for d in range(rank)])
    places = g("Squeeze", places, np.array([-1]))
    places = _permuted(g, places, [index_axes[d] for d in range(rank) if d in index_axes])
    if others := [d for d in range(rank) if d not in index_axes]:
        places = g("Unsqueeze", places, np.array(others, np.int64))
    return g("ScatterElements", x, g("Expand", places, g("Shape", update)), update, axis=axis, reduction="add")


# ---- loops


@_rule("scan")
def _scan(g, equation, *inputs):
    p, jaxpr = equation.params, equation.params["jaxpr"]
    constants, carried = p["num_consts"], p["num_carry"]
    body, avals = Graph(g.scope), jaxpr.in_avals[constants:]
    names = [g.scope.name("carried" if i < carried else "read") for i in range(len(avals))]
    made = [body("Identity", x) for x in inline(body, jaxpr, [*inputs[:constants], *names])]
    read, stacked = len(avals) - carried, len(made) - carried
    if not read:
        raise refuse("primitive scan of no arrays")
    graph = body.as_proto(g.scope.name("step"), dict(zip(names, avals, strict=True)), dict(zip(made, jaxpr.out_avals, strict=True)))
    counts = {"scan_input_directions": read, "scan_output_directions": stacked}
    backwards = {name: [1] * count for name, count in counts.items() if count and p["reverse"]}
    return g("Scan", *inputs[constants:], outputs=len(made), body=graph, num_scan_inputs=read, **backwards)
