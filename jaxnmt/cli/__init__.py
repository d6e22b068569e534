"""The `jaxnmt` command."""

from jaxnmt.cli.command import main as main
