"""Runs the command line: ``python -m trove_async``."""

from .cli import main

main()
