"""The ``holdfast`` command: its words are joined here, each from a module of its own.

The one place where an error becomes an exit status: 0 all well, 1 completed with warnings or
errors on single files, 2 failed, 64 wrong usage, 130 interrupted. Invariant: a person never
sees a traceback, unless HOLDFAST_DEBUG is set.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.exceptions import TyperException

from holdfast import __version__
from holdfast.base import errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

app = typer.Typer(
    name="holdfast",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit status: 0 all well; 1 completed with warnings or errors on single files; "
    "2 failed; 64 wrong usage; 130 interrupted. HOLDFAST_HOME names the site's directory.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Say the version and end."),
) -> int:
    """Back up to an encrypted, deduplicating pool; find it again; restore it."""
    if version:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit(errors.EXIT_OK)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return errors.EXIT_USAGE
    return errors.EXIT_OK


COMMANDS = (
    *("quickstart", "init", "backup", "images", "ls", "find", "diff", "restore", "mount", "verify"),
    *("expire", "gc", "pool", "catalog"),
)
"""In the order of the help. Each is a module of this package with a function ``register``."""


def register(*names: str) -> None:
    """Add commands to the application."""
    for name in names:
        _register(name)


@functools.cache
def _register(name: str) -> None:
    importlib.import_module(f"holdfast.faces.cli.{name}").register(app)


def _needed(arguments: Sequence[str]) -> tuple[str, ...]:
    """The command that is meant, so that no other is loaded; all, where that can't be told."""
    if arguments and arguments[0] in COMMANDS:
        return (arguments[0],)
    return COMMANDS


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after ``holdfast``.

    Returns:
        The exit status.
    """
    from holdfast.faces.cli.screen import ReaderGone, tell_error

    as_json = "--json" in arguments
    try:
        register(*_needed(arguments))
        status = app(args=list(arguments), prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        # Whoever read our output has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_OK
    except Exception as error:
        # The last edge: everything becomes a sentence.
        if os.environ.get("HOLDFAST_DEBUG"):
            raise
        told = _in_words(error)
        tell_error(told, as_json=as_json)
        return told.exit_status
    return status if isinstance(status, int) else errors.EXIT_OK


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # A service manager's stop gets the same orderly end as Ctrl-C.
    raise KeyboardInterrupt


def _in_words(error: Exception) -> errors.HoldfastError:
    if isinstance(error, errors.HoldfastError):
        return error
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "holdfast"
        message = error.format_message().strip().rstrip(".")
        return errors.UsageError(message or "wrong usage", f"see '{command} --help'")
    if isinstance(error, typer.Abort):
        return errors.Cancelled("interrupted")
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, ModuleNotFoundError):
        return errors.Unsupported(
            f"this installation lacks the module '{error.name}'",
            "install Holdfast with what a site needs: pip install 'holdfast[site]'",
        )
    return errors.InternalError(f"{type(error).__name__}: {error}".rstrip(": "))


def _system_error(error: OSError) -> errors.HoldfastError:
    words = error.strerror or str(error)
    named = f"{os.fsdecode(error.filename)}: {words}" if error.filename else words
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.NoSpace(named)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return errors.NoPermission(named)
    return errors.InputOutput(named)
