"""The `robustgate` command."""

from robustgate.cli.commands import app

__all__ = ["app"]
