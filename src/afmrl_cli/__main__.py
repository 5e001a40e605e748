"""`python -m afmrl_cli`, and what the `afmrl` script calls."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is 130 even while it is being loaded."""
    try:
        from .cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
