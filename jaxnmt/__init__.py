"""jaxnmt: a JAX/Flax trainer for neural machine translation, from the plain RNN to the Transformer."""

__version__ = "0.1.0"
