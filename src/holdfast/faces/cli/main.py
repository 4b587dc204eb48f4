"""The ``holdfast`` command: its words are joined here, each from a module of its own.

The one place where an error becomes an exit status: 0 all well, 1 completed with warnings or
errors on single files, 2 failed, 64 wrong usage, 130 interrupted. Invariants: a person never
sees a traceback, unless HOLDFAST_DEBUG is set; only the command that is named is loaded.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from holdfast import __version__
from holdfast.base import errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS = (
    *("quickstart", "init", "backup", "images", "ls", "find", "diff", "restore", "mount", "verify"),
    *("expire", "gc", "pool", "catalog"),
)
"""In the order of the help. Each is a module of this package, with a command of the same name."""


class Commands(click.Group):
    """All commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of all."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"holdfast.faces.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named; one that is nearly right is suggested."""
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{meant}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all well; 1 completed with warnings or errors on single files; "
    "2 failed; 64 wrong usage; 130 interrupted. HOLDFAST_HOME names the site's directory.",
)
@click.version_option(__version__, message="holdfast %(version)s", help="Say the version and end.")
@click.pass_context
def holdfast(context: click.Context) -> int:
    """Back up to an encrypted, deduplicating pool; find it again; restore it."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        return errors.EXIT_USAGE
    return errors.EXIT_OK


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after ``holdfast``.

    Returns:
        The exit status.
    """
    from holdfast.faces.cli.screen import ReaderGone, tell_error

    try:
        status = holdfast.main(list(arguments), prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        # Whoever read our output has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_OK
    except (Exception, KeyboardInterrupt) as error:
        # The last edge: everything becomes a sentence.
        if os.environ.get("HOLDFAST_DEBUG"):
            raise
        told = _in_words(error)
        tell_error(told, as_json="--json" in arguments)
        return told.exit_status
    return status if isinstance(status, int) else errors.EXIT_OK


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # A service manager's stop gets the same orderly end as Ctrl-C.
    raise KeyboardInterrupt


def _in_words(error: Exception | KeyboardInterrupt) -> errors.HoldfastError:
    if isinstance(error, errors.HoldfastError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "holdfast"
        message = error.format_message().strip().rstrip(".")
        return errors.UsageError(message or "wrong usage", f"see '{command} --help'")
    if isinstance(error, click.Abort | KeyboardInterrupt):
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
