"""The ``holdfast`` command: its words are joined here, each from a module of its own."""

from __future__ import annotations

import typer

from holdfast import __version__

app = typer.Typer(name="holdfast", no_args_is_help=True, add_completion=False)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Say the version and end.")) -> None:
    """Back up, find and restore."""
    if version:
        typer.echo(f"holdfast {__version__}")


def main() -> None:
    """Run the command line."""
    app()
