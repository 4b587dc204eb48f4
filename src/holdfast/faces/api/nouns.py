"""Which module speaks of which noun, so that one can be spoken of without loading all.

A noun is the first word of a path of the API. Must not know what is said of any. Invariant: the
table names every route there is; where it does not know a word, all is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import APIRouter

MODULES: dict[str, tuple[str, ...]] = {
    "me": ("me",),
    "sessions": ("me",),
    "policies": ("policies", "runs", "upcoming"),
    "policy-document": ("policy_documents",),
    "policy-templates": ("policy_documents",),
    "settings": ("settings",),
    "schedule": ("upcoming",),
    "jobs": ("jobs",),
    "activity": ("activity",),
    "images": (
        "images",
        "boot_checks",
        "restores",
        "machine_restores",
        "instant",
        "files",
        "contents",
        "differences",
    ),
    "backups": ("backups",),
    "instant-recoveries": ("instant",),
    "retention": ("retention",),
    "expirations": ("retention",),
    "find": ("files",),
    "versions": ("files",),
    "sources": ("sources",),
    "clients": ("sources",),
    "machines": ("machines",),
    "machine-tokens": ("machines",),
    "hypervisors": ("hypervisors",),
    "virtual-machines": ("virtual_machines",),
    "bandwidth-rules": ("bandwidth",),
    "pool": ("pool",),
    "catalog": ("pool",),
    "storage-units": ("storage_units",),
    "replications": ("storage_units",),
    "users": ("users",),
    "tokens": ("tokens",),
    "audit": ("audit",),
}
"""For each noun the modules of its routes; of two that fit a path, the one named first answers."""

ROOT = ("health", "metrics")
"""Where others expect them: at the root."""


def of_path(path: str) -> str | None:
    """The noun of a path below the prefix of the API; None where there is none."""
    word = path.partition("/")[0]
    return word if word in MODULES else None


def routers(noun: str | None = None) -> list[APIRouter]:
    """The routers that speak of a noun, or all, each once."""
    chosen = MODULES.values() if noun is None else [MODULES[noun]]
    return _routers(dict.fromkeys(name for names in chosen for name in names))


def root_routers() -> list[APIRouter]:
    """The routers of what is at the root."""
    return _routers(ROOT)


def _routers(names: Iterable[str]) -> list[APIRouter]:
    package = __name__.rpartition(".")[0]
    return [import_module(f"{package}.{name}").router for name in names]
