"""`python -m afmrl_cli`, and what the `afmrl` script calls."""

import os
import sys

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""How OpenMP's threads wait for each other. By default they spin, and a small product of matrices takes 30 times as
long beside one busy process: the thread that has the work waits for the processor that a spinning one holds."""


def main() -> None:
    """Run the command line; Ctrl-C is 130 even while it is being loaded."""
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch and faiss load their OpenMP
    try:
        from .cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
