"""Get a peer: the newest from its registry, else a version known to work, else what is there.

Must not run a backup. Invariant: what is installed lies below the cache directory, and is used
again by later runs; each way that was tried and failed is told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools.tool import ToolMissingError


@dataclass(frozen=True, slots=True)
class Installed:
    """A program that is there.

    Attributes:
        program: Its path.
        version: Of the program, without a ``v``.
        source: Where it came from, for results.
        remark: What to know about that, for the terminal.
    """

    program: str
    version: str
    source: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A command in a Go module.

    Attributes:
        name: Of the command.
        module: The module's path.
        package: The command's directory in it, ``.`` for the top.
        known: A version that is known to work, for where the newest can't be asked for.
    """

    name: str
    module: str
    package: str
    known: str


def go_program(what: GoProgram, cache: Path) -> Installed:
    """Install a Go program.

    Raises:
        ToolMissingError: It can't be had.
    """
    program = cache / "bin" / what.name
    if program.exists():
        return Installed(os.fspath(program), _version(program), "Go module")
    why = "there is no Go toolchain"
    if shutil.which("go"):
        environment = {
            **os.environ,
            "GOBIN": os.fspath(program.parent),
            "GOMODCACHE": os.fspath(cache / "go-modules"),
            "GOFLAGS": "-modcacherw",
            "CGO_ENABLED": "0",
        }
        package = what.module if what.package == "." else f"{what.module}/{what.package}"
        why = tried(["go", "install", f"{package}@latest"], environment)
        if not why:
            # Some programs know their version only if it was given to the linker.
            words = said(["go", "version", "-m", os.fspath(program)]).split()
            _note_version(program, words[words.index("mod") + 2])
        else:
            # A proxy may serve exact versions alone; 'go install' would ask it for the list.
            known = _go_build(what, program, cache, environment)
            why = known and f"{why}; {what.known}: {known}"
            if not why:
                _note_version(program, what.known)
        if not why:
            return Installed(os.fspath(program), _version(program), "Go module")
    return _found(what.name, why, f"Debian may have a package '{what.name}'")


def _go_build(what: GoProgram, program: Path, cache: Path, environment: dict[str, str]) -> str:
    """Build the known version in a copy of its module, with the sums that it came with."""
    command = ["go", "mod", "download", "-json", f"{what.module}@{what.known}"]
    done = subprocess.run(
        command, env=environment, cwd=cache, capture_output=True, text=True, check=False
    )
    try:
        module = json.loads(done.stdout)["Dir"]
    except (ValueError, KeyError):
        return (done.stderr or done.stdout).strip()[-200:] or "no module"
    copy = cache / "go-source" / what.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(module, copy)
    command = ["go", "build", "-trimpath", "-o", os.fspath(program), f"./{what.package}"]
    return tried(command, environment, copy)


def cargo_program(name: str, crate: str, known: str, cache: Path, *options: str) -> Installed:
    """Install a program from crates.io.

    Raises:
        ToolMissingError: It can't be had.
    """
    program = cache / "bin" / name
    if program.exists():
        return Installed(os.fspath(program), _version(program), "crates.io")
    why = "there is no Rust toolchain"
    if shutil.which("cargo"):
        command = ["cargo", "install", "--quiet", "--locked", crate, *options]
        command += ["--root", os.fspath(cache)]
        environment = {**os.environ, "CARGO_TARGET_DIR": os.fspath(cache / "cargo-target")}
        for version in ([], ["--version", known]):
            why = tried([*command, *version], environment)
            if not why:
                shutil.rmtree(cache / "cargo-target", ignore_errors=True)
                return Installed(os.fspath(program), _version(program), "crates.io")
    return _found(name, why, f"'cargo install {crate}' has to work, or {name} be on the PATH")


def python_program(name: str, requirement: str, cache: Path, hint: str) -> Installed:
    """Install a program from PyPI into an environment of its own.

    Raises:
        ToolMissingError: It can't be had.
    """
    environment = cache / name
    program = environment / "bin" / name
    if program.exists():
        return Installed(os.fspath(program), _version(program), "PyPI")
    why = tried([sys.executable, "-m", "venv", os.fspath(environment)], dict(os.environ))
    if not why:
        pip = [os.fspath(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        why = tried([*pip, requirement], dict(os.environ))
        if not why:
            return Installed(os.fspath(program), _version(program), "PyPI")
    return _found(name, why, hint)


def _found(name: str, why: str, hint: str) -> Installed:
    found = shutil.which(name)
    if found:
        remark = f"not the newest, which can't be installed: {why}"
        return Installed(found, _version(Path(found)), "operating system", remark)
    raise ToolMissingError(f"{name} can't be installed ({why}); {hint}")


def _note_version(program: Path, version: str) -> None:
    program.with_name(f"{program.name}.version").write_text(version.removeprefix("v") + "\n")


def _version(program: Path) -> str:
    """What was noted when it was installed, else the first number with dots that it says."""
    noted = program.with_name(f"{program.name}.version")
    if noted.exists():
        return noted.read_text().strip()
    option = "version" if program.name == "restic" else "--version"
    words = said([os.fspath(program), option])
    found = re.search(r"\d+(\.\d+)+\S*", words)
    return found.group() if found else "unknown"


def tried(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> str:
    """Run an installation; the answer is empty, or its last words."""
    try:
        done = subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"{command[0]} ended with {done.returncode}"


def said(command: list[str]) -> str:
    """What a program says of itself.

    Raises:
        ToolMissingError: It does not run.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolMissingError(f"{os.path.basename(command[0])} does not run: {error}") from error
    return done.stdout.strip() or done.stderr.strip()
