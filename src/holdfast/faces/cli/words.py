"""How a command's words become help: docstrings flow to the width of the screen.

Must not know any command.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer


def add_command(
    app: typer.Typer, name: str, command: Callable[..., int], examples: tuple[str, ...]
) -> None:
    """Add a command to an application.

    Args:
        app: To which.
        name: The word that people type.
        command: Its docstring is the help: a sentence, then paragraphs.
        examples: Whole command lines.
    """
    shown = escape("\n".join(("Examples:", *(f"  {line}" for line in examples))))
    app.command(name, help=reflowed(command.__doc__ or ""), epilog=shown)(command)


def reflowed(text: str) -> str:
    """Join the lines of each paragraph, so that the screen decides where they break."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))
