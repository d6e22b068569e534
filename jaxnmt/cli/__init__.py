"""The `jaxnmt` command."""

from jaxnmt.cli.command import main

__all__ = ["main"]
