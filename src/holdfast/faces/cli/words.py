"""How commands look: arguments and examples are part of the help, and each sentence is whole.

Must not know any command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHOLE_SENTENCE = 1000


class Command(click.Command):
    """A command whose help explains its arguments and ends with examples.

    Attributes:
        arguments: Names of arguments as the usage has them, and what they mean.
        examples: Whole command lines.
    """

    def __init__(
        self,
        *given: Any,
        arguments: Sequence[tuple[str, str]] = (),
        examples: Sequence[str] = (),
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.arguments = arguments
        self.examples = examples

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; the audit log hears of what it does."""
        from holdfast.faces.cli import acting

        unsaid = {ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None}
        said = {
            name: value
            for name, value in ctx.params.items()
            if ctx.get_parameter_source(name) not in unsaid
        }
        name = ctx.command_path.partition(" ")[2]
        return acting.around(name, said, lambda: super(Command, self).invoke(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence, to its end: a list of commands breaks lines where it must."""
        return super().get_short_help_str(max(limit, _WHOLE_SENTENCE))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options."""
        if self.arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(self.arguments)
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own whatever its length."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """Commands that share a word, in the order of their module.

    Attributes:
        default: The one that is meant where the word stands alone, or before options.
    """

    command_class = Command

    def __init__(self, *given: Any, default: str | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the command that is meant."""
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        if self.default is not None and (not args or is_option):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of all."""
        return list(self.commands)
