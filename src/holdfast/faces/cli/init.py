"""``holdfast init``: make the embedded site and its pool, or join a pool that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.clock import SystemClock
from holdfast.base.errors import EXIT_OK, PathMissing, UsageError
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.site.secrets import SecretSource
    from holdfast.site.site import Site


@click.command(
    cls=Command,
    examples=[
        "holdfast init",
        "holdfast init --pool /mnt/backup --ask-passphrase",
        "holdfast init --pool s3://bucket/prefix --passphrase-file /root/passphrase",
        "holdfast init --existing --pool /mnt/backup --recovery-kit kit.txt",
    ],
)
@click.option(
    "--pool",
    metavar="URL",
    type=options.PLACE,
    help="A directory, or a URL such as s3://bucket/x.",
)
@click.option(
    "--passphrase-file",
    metavar="F",
    type=options.FILE,
    help="Protect the pool with the passphrase in this file.",
)
@click.option("--ask-passphrase", is_flag=True, help="Protect it with a passphrase you type.")
@click.option("--existing", is_flag=True, help="Join a pool that is there already.")
@click.option(
    "--recovery-kit",
    metavar="F",
    type=options.FILE,
    help="With --existing: open it with the text of its kit.",
)
@options.json_flag
def init(
    pool: str | None,
    passphrase_file: Path | None,
    ask_passphrase: bool,
    existing: bool,
    recovery_kit: Path | None,
    as_json: bool,
) -> int:
    """Make a site in HOLDFAST_HOME, with a pool and a catalog.

    Without a passphrase, a key file is made in the site's directory: whoever can read it can
    read the pool.
    """
    from holdfast.site.site import Site

    screen = Screen(as_json=as_json)
    if recovery_kit is not None and not existing:
        raise UsageError("--recovery-kit opens a pool that exists", "add --existing")
    if ask_passphrase and not opening.can_ask():
        raise UsageError(
            "--ask-passphrase needs a terminal", "use --passphrase-file where there is none"
        )
    home, clock = opening.home(), SystemClock()
    source = source_of(passphrase_file, ask=ask_passphrase or (existing and recovery_kit is None))
    if existing:
        kit_text = read_kit(recovery_kit) if recovery_kit is not None else None
        site = Site.join(home, pool, source, clock, kit_text)
    else:
        site = Site.create(home, pool, source, clock)
    opening.remember(site)
    with site:
        _ = site.catalog
        _tell(screen, site, joined=existing)
    return EXIT_OK


def source_of(passphrase_file: Path | None, *, ask: bool) -> SecretSource:
    """Where a passphrase comes from; asked for only where that was asked for."""
    from dataclasses import replace

    source = opening.secret_source(passphrase_file)
    return source if ask else replace(source, ask=None)


def read_kit(path: Path) -> str:
    """The text of a recovery kit."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PathMissing(f"there is no recovery kit {path}", "check the spelling") from error
    except UnicodeDecodeError as error:
        raise PathMissing(f"{path} is not the text of a recovery kit") from error


def _tell(screen: Screen, site: Site, *, joined: bool) -> None:
    config = site.config
    if screen.as_json:
        screen.json(
            {
                "home": str(site.home),
                "pool": config.pool_url,
                "pool_id": config.pool_id,
                "key": config.key_source,
                "key_path": str(config.key_path) if config.key_path else None,
                "joined": joined,
            }
        )
        return
    key = f"{config.key_source} {config.key_path or ''}".strip()
    screen.facts(
        [
            ("site", str(site.home)),
            ("pool", config.pool_url),
            ("pool id", config.pool_id),
            ("key", key),
        ]
    )
    if joined:
        screen.say("next: 'holdfast catalog rebuild' lists what the pool holds")
        return
    screen.say("next: 'holdfast pool recovery-kit' writes the paper that opens the pool when")
    screen.say("      all else is lost; 'holdfast backup PATH' makes the first image")
