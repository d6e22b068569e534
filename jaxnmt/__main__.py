"""`python -m jaxnmt` is the `jaxnmt` command."""

import sys

from jaxnmt.cli import main

if __name__ == "__main__":
    sys.exit(main())
