"""The programs that are compared: how each is installed, set up, and told what to do.

Must not measure. Invariants: every tool encrypts, with a passphrase, and compresses as it does by
default; all it writes is below the directory given to it, its caches too.
"""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_PASSPHRASE = "correct horse battery staple"


class ToolError(Exception):
    """A command of a tool failed; the message is for a person."""


class ToolMissingError(Exception):
    """A tool can't be had here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command as a person would type it.

    Attributes:
        command: The words.
        environment: All of its environment.
        cwd: Where it runs, if that matters.
    """

    command: list[str]
    environment: dict[str, str]
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one tool in one round.

    Attributes:
        root: Everything is below it.
        corpus: What is backed up: absolute.
    """

    root: Path
    corpus: Path

    @property
    def pool(self) -> Path:
        """What a tool stores, and would keep on other media."""
        return self.root / "pool"

    @property
    def state(self) -> Path:
        """Caches, keys, catalogs: what stays on the machine."""
        return self.root / "state"

    @property
    def back(self) -> Path:
        """Where restores go."""
        return self.root / "back"

    @property
    def restored(self) -> Path:
        """Where the corpus is after a restore: all tools keep whole paths."""
        return self.back / self.corpus.relative_to("/")

    def environment(self, **more: str) -> dict[str, str]:
        """An environment in which nothing of the user's own settings is seen."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.fspath(self.state),
            "TMPDIR": os.fspath(self.state),
            "LANG": "C.UTF-8",
            **more,
        }


class Tool(Protocol):
    """One program of the comparison."""

    name: str
    version: str
    settings: str
    source: str
    """Where the program came from."""
    remark: str
    """What a person should know about that; for the terminal, not for results."""

    def init(self, place: Place) -> Step:
        """Make an empty repository or pool; not timed."""
        ...

    def backup(self, place: Place, number: int) -> Step:
        """Back up the corpus, for the ``number``-th time."""
        ...

    def restore(self, place: Place, number: int) -> Step:
        """Restore everything of the ``number``-th backup."""
        ...

    def engine_s(self, output: str) -> float | None:
        """What the tool says that the work itself took, if it does."""
        ...


class Holdfast:
    """This project, through its command line."""

    name = "holdfast"
    settings = "passphrase, zstd level 3"
    source = "this checkout"
    remark = ""

    def __init__(self) -> None:
        self._program = os.fspath(Path(sys.executable).with_name("holdfast"))
        if not os.access(self._program, os.X_OK):
            raise ToolMissingError("holdfast is not built in this environment: run 'make engine'")
        self.version = _said([self._program, "--version"]).split()[-1]

    def init(self, place: Place) -> Step:
        """Make a site whose catalog and caches are in the state directory."""
        secret = place.state / "passphrase"
        secret.write_text(_PASSPHRASE + "\n")
        secret.chmod(0o600)
        words = ["init", "--pool", os.fspath(place.pool), "--passphrase-file", os.fspath(secret)]
        return self._step(place, words)

    def backup(self, place: Place, number: int) -> Step:
        """Until the catalog knows every file, as the command does it."""
        return self._step(place, ["backup", "--json", os.fspath(place.corpus)])

    def restore(self, place: Place, number: int) -> Step:
        """Restore the newest image."""
        return self._step(place, ["restore", "--json", "latest", "--to", os.fspath(place.back)])

    def engine_s(self, output: str) -> float | None:
        """Without starting Python, unlocking the pool and feeding the catalog."""
        try:
            return float(json.loads(output)["elapsed_s"])
        except (ValueError, KeyError, TypeError):
            return None

    def _step(self, place: Place, words: list[str]) -> Step:
        home = os.fspath(place.state / "site")
        return Step([self._program, *words], place.environment(HOLDFAST_HOME=home))


class Restic:
    """https://restic.net"""

    name = "restic"
    settings = "repository version 2, compression auto"

    def __init__(self, cache: Path) -> None:
        self._program, self.source, self.remark = _install_restic(cache)
        self.version = _said([self._program, "version"]).split()[1]

    def init(self, place: Place) -> Step:
        """Make a repository of the format that compresses."""
        return self._step(place, ["init", "--repository-version", "2"])

    def backup(self, place: Place, number: int) -> Step:
        """Add a snapshot."""
        return self._step(place, ["backup", os.fspath(place.corpus)])

    def restore(self, place: Place, number: int) -> Step:
        """Restore the newest snapshot."""
        return self._step(place, ["restore", "latest", "--target", os.fspath(place.back)])

    def engine_s(self, output: str) -> float | None:
        """It does not say."""
        return None

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            RESTIC_PASSWORD=_PASSPHRASE,
            RESTIC_REPOSITORY=os.fspath(place.pool),
            RESTIC_CACHE_DIR=os.fspath(place.state / "cache"),
        )
        return Step([self._program, "--quiet", *words], environment)


class Borg:
    """https://www.borgbackup.org"""

    name = "borg"

    def __init__(self, cache: Path) -> None:
        self._program, self.source, self.remark = _install_borg(cache)
        self.version = _said([self._program, "--version"]).split()[-1]
        # As borg's own manual advises: SHA-256 where the processor helps with it, else BLAKE2.
        self._mode = "repokey" if _has_sha_instructions() else "repokey-blake2"
        self.settings = f"{self._mode}, lz4"

    def init(self, place: Place) -> Step:
        """Make a repository."""
        words = ["init", "--encryption", self._mode, os.fspath(place.pool)]
        return self._step(place, words)

    def backup(self, place: Place, number: int) -> Step:
        """Add an archive."""
        archive = f"{place.pool}::{number}"
        return self._step(place, ["create", archive, os.fspath(place.corpus)])

    def restore(self, place: Place, number: int) -> Step:
        """Extract an archive: always into the current directory."""
        step = self._step(place, ["extract", f"{place.pool}::{number}"])
        return Step(step.command, step.environment, cwd=place.back)

    def engine_s(self, output: str) -> float | None:
        """It does not say."""
        return None

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            BORG_PASSPHRASE=_PASSPHRASE, BORG_BASE_DIR=os.fspath(place.state)
        )
        return Step([self._program, *words], environment)


NAMES = ("holdfast", "restic", "borg")


def provide(name: str, cache: Path) -> Tool:
    """Install a tool, or find it.

    Args:
        name: One of `NAMES`.
        cache: Where what is installed stays for later runs.

    Raises:
        ToolMissingError: It can't be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if name == "holdfast":
        return Holdfast()
    return Restic(cache) if name == "restic" else Borg(cache)


def _install_restic(cache: Path) -> tuple[str, str, str]:
    program = cache / "bin" / "restic"
    if program.exists():
        return os.fspath(program), "Go module", ""
    why = "there is no Go toolchain"
    if shutil.which("go"):
        environment = {
            **os.environ,
            "GOBIN": os.fspath(program.parent),
            "GOMODCACHE": os.fspath(cache / "go-modules"),
            "GOFLAGS": "-modcacherw",
            "CGO_ENABLED": "0",
        }
        command = ["go", "install", "github.com/restic/restic/cmd/restic@latest"]
        why = _tried(command, environment)
        if not why:
            return os.fspath(program), "Go module", ""
    found = shutil.which("restic")
    if found:
        return found, "operating system", f"not the newest, which can't be installed: {why}"
    raise ToolMissingError(f"restic can't be installed ({why}); Debian has a package 'restic'")


def _install_borg(cache: Path) -> tuple[str, str, str]:
    environment = cache / "borg"
    program = environment / "bin" / "borg"
    if program.exists():
        return os.fspath(program), "PyPI", ""
    why = _tried([sys.executable, "-m", "venv", os.fspath(environment)], dict(os.environ))
    if not why:
        pip = [os.fspath(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        why = _tried([*pip, "borgbackup>=1.4,<2"], dict(os.environ))
        if not why:
            return os.fspath(program), "PyPI", ""
    found = shutil.which("borg")
    if found:
        return found, "operating system", f"not the newest, which can't be installed: {why}"
    raise ToolMissingError(
        f"borg can't be installed ({why}); building it needs Debian's libacl1-dev libxxhash-dev "
        "liblz4-dev libzstd-dev libssl-dev pkg-config, or take the package 'borgbackup'"
    )


def _tried(command: list[str], environment: dict[str, str]) -> str:
    """Run an installation; the answer is empty, or its last words."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"{command[0]} ended with {done.returncode}"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolMissingError(f"{os.path.basename(command[0])} does not run: {error}") from error
    return done.stdout.strip()


def _has_sha_instructions() -> bool:
    try:
        return " sha_ni " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
