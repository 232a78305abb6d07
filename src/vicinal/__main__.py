"""The entry point of ``vicinal`` and ``python -m vicinal``."""

import sys

from vicinal import interrupts


def main() -> None:
    """Run the command line, or report which package to install."""
    interrupts.listen()  # before slow imports
    from vicinal.errors import UserError, out_of_memory
    from vicinal.extras import extras_named

    try:
        with extras_named():
            from vicinal.cli import main as run
        run()
    except UserError as error:
        sys.stderr.write(f"vicinal: {error}\n")
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        if not out_of_memory(error):
            raise
        sys.stderr.write("vicinal: out of memory before the command began: free some memory\n")
        sys.exit(2)
    finally:
        interrupts.end()


if __name__ == "__main__":
    main()
