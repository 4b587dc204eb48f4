"""The process of a ``holdfast`` command: from its arguments to its exit status.

The one place where an error becomes an exit status: 0 all well, 1 completed with warnings or
errors on single files, 2 failed, 64 wrong usage, 130 interrupted. Invariant: a person never
sees a traceback, unless HOLDFAST_DEBUG is set.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from holdfast.base import errors
from holdfast.faces.cli import opening

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_EXTRAS = {
    "aiohttp": "",
    "cryptography": "",
    "click": "",
    "rich": "",
    "obstore": "object",
    "psycopg": "postgresql",
}
"""Which extra brings a module, where it is not that of a whole site; none for the bare install."""

_OBJECTS_UNLOOKED_AT = 50_000
"""Twice as many as a backup makes; they are a few MiB."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after ``holdfast``.

    Returns:
        The exit status.
    """
    from holdfast.faces.cli.screen import ReaderGone, tell_error

    try:
        opening.begin(arguments)
        from holdfast.faces.cli.commands import holdfast

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
        told = in_words(error)
        tell_error(told, as_json="--json" in arguments)
        return told.exit_status
    return status if isinstance(status, int) else errors.EXIT_OK


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    # Modules stay: to look through them for rubbish, while they are loaded and once more at the
    # end, would be an eighth of a short command.
    gc.set_threshold(_OBJECTS_UNLOOKED_AT)
    signal.signal(signal.SIGTERM, _interrupt)
    status = run(sys.argv[1:])
    gc.freeze()
    sys.exit(status)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # A service manager's stop gets the same orderly end as Ctrl-C.
    raise KeyboardInterrupt


def in_words(error: Exception | KeyboardInterrupt) -> errors.HoldfastError:
    """What a person is told of an exception that ends a command."""
    if isinstance(error, errors.HoldfastError):
        return error
    import click

    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "holdfast"
        message = error.format_message().strip().rstrip(".")
        return errors.UsageError(message or "wrong usage", f"see '{command} --help'")
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return errors.Cancelled("interrupted")
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, ImportError):
        return _lacking(error)
    return errors.InternalError(f"{type(error).__name__}: {error}".rstrip(": "))


def _lacking(error: ImportError) -> errors.HoldfastError:
    """What is not installed, or not for this machine; the bare install is an agent's."""
    name = error.name or ""
    again = "install Holdfast anew: pip install --force-reinstall holdfast"
    if name.startswith("holdfast."):
        if not name.endswith("._engine"):
            return errors.Unsupported(f"this installation lacks its own module '{name}'", again)
        why = "" if isinstance(error, ModuleNotFoundError) else f": {error}"
        return errors.Unsupported(
            f"Holdfast's engine is not installed for this machine and this Python{why}",
            "it is compiled: install a wheel that was made for them, or have a Rust toolchain "
            "and build Holdfast from its sources",
        )
    package = name.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        return errors.Unsupported(f"the module '{name}' can't be used: {error}", again)
    extra = _EXTRAS.get(package, "site")
    return errors.Unsupported(
        f"this installation lacks the module '{name}'",
        again if extra == "" else f"install Holdfast with it: pip install 'holdfast[{extra}]'",
    )


def _system_error(error: OSError) -> errors.HoldfastError:
    words = error.strerror or str(error)
    named = f"{os.fsdecode(error.filename)}: {words}" if error.filename else words
    return errors.storage_error(error)(named)
