"""registry-lab on the command line: a module for each command."""

from lab_utils.cli.commands import main

__all__ = ["main"]
