"""`python -m afmrl_cli`."""

from .cli.app import main

main()
