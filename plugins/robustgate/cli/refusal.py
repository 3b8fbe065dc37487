"""How a command says no: one line on standard error, and an exit status that no verdict has."""

from __future__ import annotations

import typer

UNUSABLE = 4


def refusal(message: object, status: int = UNUSABLE) -> typer.Exit:
    """Say why a command does nothing, and return what to raise."""
    typer.echo(f"robustgate: {message}", err=True)
    return typer.Exit(status)
