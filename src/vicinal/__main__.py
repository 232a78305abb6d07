"""``vicinal`` and ``python -m vicinal``: the command line, where its packages are installed."""

import sys

from vicinal.errors import UserError
from vicinal.extras import extras_named


def main() -> None:
    """Run the command line, or say what to install."""
    try:
        with extras_named():
            from vicinal.cli import main as run
    except UserError as error:
        sys.stderr.write(f"vicinal: {error}\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
