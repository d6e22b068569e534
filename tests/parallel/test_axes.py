"""What is declared of a parameter's axes, in flax's own words or ours, and what follows from the letters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxnmt.errors import UserError
from jaxnmt.parallel.axes import declare, declared, is_kernel, is_matrix, path_name, rows_and_columns

ZEROS = nn.initializers.zeros


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.Dense(4, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), ("D", "F")))(x)
        return x * self.param("scale", declare(ZEROS, "D"), (4,)), None


class Layers(nn.Module):
    @nn.compact
    def __call__(self, x):
        scan = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3, metadata_params={nn.PARTITION_NAME: "L"})
        return scan(name="layers")(x, jnp.zeros(3))[0] + self.param("table", nn.with_logical_partitioning(ZEROS, ("V", None)), (4, 4)).sum()


def test_letters_come_from_flaxs_boxes_and_layers_are_stacked_whether_declared_or_not():
    params = jax.eval_shape(Layers().init, jax.random.key(0), jnp.zeros((2, 4)))["params"]
    found = {path_name(path): letters for path, letters in jax.tree_util.tree_leaves_with_path(declared(params))}
    assert found == {"layers/Dense_0/kernel": "LDF", "layers/Dense_0/bias": "L-", "layers/scale": "LD", "table": "V-"}


def test_a_wrong_number_of_axes_is_refused_with_the_parameter_and_its_shape():
    params = {"wi": {"kernel": nn.Partitioned(jnp.zeros((2, 3)), ("D", "H", "K"))}}
    with pytest.raises(UserError, match=r"wi/kernel .*'D', 'H', 'K'.*\(2, 3\)"):
        declared(params)


@pytest.mark.parametrize(
    ("name", "axes", "matrix", "kernel"),
    [
        ("kernel", "DF", True, True),
        ("weights", "DF", True, True),
        ("kernel", "LHKD", True, True),
        ("table", "VD", True, False),
        ("table", "PD", True, False),
        ("kernel", "DP", True, True),
        ("bias", "3HK", False, False),
        ("bias", "LF", False, False),
        ("scale", "LD", False, False),
        ("scorer", "A", False, False),
        ("kernel", "---", True, True),  # linen's
        ("embedding", "--", True, False),
        ("scorer", "L-", False, False),
    ],
)
def test_matrices_are_decayed_and_kernels_multiply(name, axes, matrix, kernel):
    path = (jax.tree_util.DictKey("layer"), jax.tree_util.DictKey(name))
    assert (is_matrix(path, axes), is_kernel(path, axes)) == (matrix, kernel)


@pytest.mark.parametrize(
    ("axes", "rows", "columns"),
    [
        ("DF", (0,), (1,)),
        ("FD", (0,), (1,)),
        ("D3HK", (0,), (2, 3)),
        ("LD2HK", (1,), (3, 4)),
        ("HKD", (0, 1), (2,)),
        ("LHKD", (1, 2), (3,)),
        ("DGU", (0,), (1, 2)),
        ("DNNU", (0,), (1, 2, 3)),
        ("---", (0,), (1, 2)),
        ("L--", (1,), (2,)),
    ],
)
def test_rows_and_columns_of_a_kernel(axes, rows, columns):
    assert rows_and_columns(axes) == (rows, columns)
