"""The words of ``holdfast``: all commands are joined here, each from a module of its own.

Invariant: only the command that is named is loaded.
"""

from __future__ import annotations

import importlib

import click

from holdfast import __version__
from holdfast.base import errors

COMMANDS = (
    *("quickstart", "init", "backup", "images", "ls", "find", "diff", "restore", "mount", "verify"),
    "verify-boot",
    *("serve", "service", "config", "policy", "schedule", "jobs", "activity", "events"),
    *("retention", "hold", "unhold", "lock", "expire", "gc", "pool", "storage", "replicate"),
    *("catalog", "recover", "user", "token", "audit", "machine", "enroll", "agent"),
    *("client-key", "media", "bandwidth", "hypervisor", "machines"),
    *("restore-machine", "instant"),
)
"""In the order of the help. Each is a module of this package, with a command of the same name; '-'
is '_' there."""


class Commands(click.Group):
    """All commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of all."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"holdfast.faces.cli.{name}")
        command: click.Command = getattr(module, name)
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
