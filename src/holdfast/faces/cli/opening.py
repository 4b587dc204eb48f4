"""The embedded site of this process: where it is, and how it is opened.

Must not load Click, nor anything else before it is needed: ``--version`` comes by here. Invariants:
a person is asked for a passphrase only on a terminal; what can't be opened is told when a command
opens it, not before.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, Invalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.base.config import SiteConfig
    from holdfast.base.meanwhile import Meanwhile
    from holdfast.site.secrets import SecretSource
    from holdfast.site.site import Site

OPENING = frozenset(
    {"backup", "diff", "expire", "gc", "ls", "mount", "pool", "restore", "verify"},
)
"""Commands that open the pool, whatever their other words are."""

ENDING = frozenset({"backup", "gc", "restore", "verify"})
"""Those that go through memory by the gigabyte, and are over when their work is."""

URL_VARIABLE = "HOLDFAST_URL"
"""Names a site that is served elsewhere."""

_begun: list[tuple[SiteConfig, SecretSource, Meanwhile[bytes] | None]] = []
_opened: list[Site] = []


def begin(arguments: Sequence[str]) -> None:
    """Begin to derive the pool's key while the command is still being loaded.

    Deriving it from a passphrase takes about as long as Python takes to load the rest of the
    command, the site among it, and leaves the interpreter free for that. Nothing is begun where
    the words ask for help, and nothing is told of what fails; words that turn out wrong have cost
    a derivation.

    Args:
        arguments: The words after ``holdfast``.
    """
    if not OPENING.intersection(arguments[:1]) or {"-h", "--help"}.intersection(arguments):
        return
    if arguments[0] in ENDING:
        from holdfast import engine

        engine.keep_freed_memory()
    with contextlib.suppress(HoldfastError):
        config, source = _found()
        from holdfast.site import unlocking

        _begun.append((config, source, unlocking.begin(config, source)))


def open_site() -> Site:
    """Open the embedded site of this process.

    Raises:
        Invalid: The environment names a site elsewhere, whose images others are.
        SiteMissing: There is none.
        ConfigInvalid: Its configuration can't be understood.
    """
    config, source, key = _begun.pop() if _begun else (*_found(), None)
    from holdfast.base.clock import SystemClock
    from holdfast.site.site import Site

    site = Site(home(), config, source, SystemClock(), pool_key=key)
    remember(site)
    return site


def remember(site: Site) -> None:
    """Take a site for the one that this process opened last."""
    _opened[:] = [site]


def opened() -> Site | None:
    """The site that this process opened last."""
    return _opened[0] if _opened else None


def home() -> Path:
    """The home directory of the embedded site of this process."""
    from pathlib import Path

    from holdfast.base.config import default_home

    return default_home(os.environ, os.geteuid(), Path.home())


def secret_source(passphrase_file: Path | None = None) -> SecretSource:
    """Where a passphrase may come from, with a prompt if this is a terminal."""
    from holdfast.site.secrets import SecretSource

    ask = ask_passphrase if can_ask() else None
    return SecretSource.from_environment(os.environ, passphrase_file, ask)


def can_ask() -> bool:
    """Tell whether there is a person at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask_passphrase(what: str) -> str:
    """Ask for a passphrase on the terminal, without showing it; a new one is asked twice."""
    from getpass import getpass

    first = getpass(f"{what}: ")
    if what.startswith("new "):
        while getpass("the same again: ") != first:
            sys.stderr.write("these were not the same; once more\n")
            first = getpass(f"{what}: ")
    return first


def _found() -> tuple[SiteConfig, SecretSource]:
    """What the site of this process is configured to be, and where its secret may come from."""
    elsewhere = os.environ.get(URL_VARIABLE)
    if elsewhere:
        raise Invalid(
            f"{URL_VARIABLE} names the site at {elsewhere}, and this command works on the site "
            f"of this machine at {home()}",
            f"unset {URL_VARIABLE} for that; or ask the other site over its API",
        )
    from holdfast.base import config as site_config

    return site_config.load(home()), secret_source()
