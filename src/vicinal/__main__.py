"""The entry point of ``vicinal`` and ``python -m vicinal``."""

import os
import sys

from vicinal import interrupts


def main() -> None:
    """Run the command line, or report which package to install."""
    interrupts.exit_on_interrupt()  # while modules are imported
    from vicinal.errors import UserError
    from vicinal.extras import extras_named

    try:
        with extras_named():
            from vicinal.cli import main as run
        run()
    except UserError as error:
        sys.stderr.write(f"vicinal: {error}\n")
        sys.exit(2)
    except SystemExit as end:
        if end.code == interrupts.CODE:  # Ctrl-C during a slow exit would look like a crash
            sys.stdout.flush()
            os._exit(interrupts.CODE)
        raise


if __name__ == "__main__":
    main()
