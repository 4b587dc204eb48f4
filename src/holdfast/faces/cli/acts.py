"""Which commands are acts, in the audit log's words: the table from command to operation.

It is of commands that work on the site themselves; what goes over the API is told by the API. Must
not look at a site, nor load anything. Invariants: a command that does what a route does has the
route's name, thing and body; there is no secret in any of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.base.errors import HoldfastError
from holdfast.base.ids import clean_path, parse_image_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Given = Mapping[str, Any]
    """What a person said: options and arguments by their names, those alone that were named."""


class Tried(NamedTuple):
    """One act, before it is known what comes of it.

    Attributes:
        what: The operation.
        about: The thing.
        content: What the API would have had in the request.
    """

    what: str
    about: str
    content: dict[str, Any]


class Act(NamedTuple):
    """What a command does, for the audit log.

    Attributes:
        tried: Makes the rows, of what was given and the images it is about: one for each image, or
            one for all.
        images: The images, as they were given.
        applies: Whether these words make an act at all.
        only_noted: It is not done where it can't be noted: see ADR 0041.
        job: The kind of job that the activity log has it as, if it is told by this note alone.
    """

    tried: Callable[[Given, Sequence[str]], list[Tried]]
    images: Callable[[Given], Sequence[str]] = lambda _given: ()
    applies: Callable[[Given], bool] = lambda _given: True
    only_noted: bool = False
    job: str | None = None


def _set(given: Given, *names: str) -> dict[str, Any]:
    """The body of a request: what was said, and nothing that was not."""
    found: dict[str, Any] = {}
    for name in names:
        if name in given:
            value = given[name]
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _body(content: dict[str, Any]) -> dict[str, Any]:
    """A request's content; the API needs no body to do what it does anyway."""
    return {"body": content} if content else {}


def _simple(what: str, about: str, *names: str, job: str | None = None) -> Act:
    """An act of which a request's body says all."""
    return Act(lambda given, _: [Tried(what, about, _body(_set(given, *names)))], job=job)


def _named(given: Given) -> Sequence[str]:
    return list(dict.fromkeys(given.get("images", ())))


def _paths(paths: Sequence[bytes]) -> dict[str, Any]:
    """Paths for JSON, as the API takes them: those that are not UTF-8 as base64."""
    found: dict[str, Any] = {}
    for path in paths:
        try:
            found.setdefault("paths", []).append(path.decode())
        except UnicodeDecodeError:
            from base64 import b64encode

            found.setdefault("paths_base64", []).append(b64encode(path).decode("ascii"))
    return found


def _backup(given: Given, _: Sequence[str]) -> list[Tried]:
    body = _paths([os.path.abspath(os.fsencode(one)) for one in given["paths"]])
    body |= _set(given, "exclude", "full", "one_file_system", "compression")
    return [Tried("back_up", "backups", _body(body))]


def _restored(given: Given) -> Sequence[str]:
    return [given["image"].partition(":")[0]]


def _restore(given: Given, images: Sequence[str]) -> list[Tried]:
    chosen = [os.fsencode(one) for one in given.get("paths", ())]
    try:
        wanted = parse_image_path(given["image"])
        chosen = [clean_path(one) for one in chosen]
        chosen += [wanted.path] if wanted.path != b"/" else []
    except HoldfastError:
        # It is refused in a moment, and the row will say why.
        pass
    body = {"target": os.path.abspath(given["to"]), **_paths(chosen)}
    body |= _set(given, "overwrite", "strip_components", "verify", "only_this")
    return [Tried("restore_image", f"images/{images[0]}/restores", _body(body))]


def _verify(given: Given, images: Sequence[str]) -> list[Tried]:
    body = _set(given, "unit", "read_data") | ({"images": list(images)} if images else {})
    return [Tried("verify_pool", "pool/verifications", {"body": body})]


def _check(given: Given, _: Sequence[str]) -> list[Tried]:
    return [Tried("check_pool", "pool/checks", {"body": _set(given, "unit", "read_data")})]


def _hold(given: Given, images: Sequence[str]) -> list[Tried]:
    body = {"reason": " ".join(given["reason"].split())}
    return [Tried("hold_image", f"images/{one}/holds", _body(body)) for one in images]


def _unhold(given: Given, images: Sequence[str]) -> list[Tried]:
    reason = given.get("reason")
    query = {} if reason is None else {"query": [["reason", " ".join(reason.split())]]}
    return [Tried("lift_holds", f"images/{one}/holds", query) for one in images]


def _lock(given: Given, images: Sequence[str]) -> list[Tried]:
    body = _body({"until": given["until"]})
    return [Tried("lock_image", f"images/{one}/lock", body) for one in images]


def _expire(_: Given, images: Sequence[str]) -> list[Tried]:
    if len(images) == 1:
        return [Tried("expire_image", f"images/{images[0]}", {})]
    return [Tried("expire_images", "expirations", _body({"images": list(images)}))]


def _apply(given: Given, _: Sequence[str]) -> list[Tried]:
    from holdfast.base.units import parse_duration

    rules = _set(given, "last", "hourly", "daily", "weekly", "monthly", "yearly")
    if "within" in given:
        try:
            rules["within_s"] = float(parse_duration(given["within"]))
        except (HoldfastError, OverflowError):
            rules["within"] = given["within"]
    body = ({"rules": rules} if rules else {}) | _set(given, "source", "zone", "trust_clock")
    return [Tried("apply_retention", "retention/applications", {"body": body})]


def _init(given: Given, _: Sequence[str]) -> list[Tried]:
    from holdfast.site.places import without_secrets

    place = given.get("pool")
    body = {} if place is None else {"pool": without_secrets(place)}
    return [Tried("join_site" if given.get("existing") else "create_site", "site", _body(body))]


def _recover(given: Given, _: Sequence[str]) -> list[Tried]:
    from holdfast.site.places import without_secrets

    body = {"pool": without_secrets(given["pool"])} | (
        {"site": given["of"]} if given.get("of") else {}
    )
    return [Tried("recover_site", "site", _body(body))]


def _one(given: Given) -> Sequence[str]:
    return [given["image"]]


def _mount(given: Given, images: Sequence[str]) -> list[Tried]:
    body = {"directory": os.path.abspath(given["directory"])} | _set(given, "allow_other")
    return [Tried("mount_image", f"images/{images[0]}", _body(body))]


def _boot(given: Given, images: Sequence[str]) -> list[Tried]:
    body = _set(given, "serial", "port", "agent", "command", "within")
    return [Tried("boot_image", f"images/{images[0]}/boot-checks", _body(body))]


ACTS: Mapping[str, Act] = {
    "init": Act(_init),
    "recover": Act(_recover),
    "quickstart": Act(
        lambda given, _: [Tried("quickstart", "site", _body(_set(given, "path")))],
        # Else it is in a site of its own, which it throws away.
        applies=lambda _: bool(os.environ.get("HOLDFAST_HOME")),
    ),
    "backup": Act(_backup, job="backup"),
    "restore": Act(
        _restore, _restored, applies=lambda given: given.get("client") is None, job="restore"
    ),
    "mount": Act(_mount, _one),
    "verify": Act(_verify, _named),
    "verify-boot": Act(_boot, _one, applies=lambda given: not given.get("last")),
    "hold": Act(_hold, _named, only_noted=True),
    "unhold": Act(_unhold, _named, only_noted=True),
    "lock": Act(_lock, _named, only_noted=True),
    "expire": Act(_expire, _named, only_noted=True, job="expire"),
    "retention apply": Act(_apply, only_noted=True, job="expire"),
    "gc": _simple("collect_garbage", "pool/collections", "unit", "dry_run", job="collect"),
    "pool check": Act(_check),
    "pool rebuild-index": _simple("rebuild_index", "pool/index", "unit"),
    "pool recovery-kit": _simple("make_recovery_kit", "pool/recovery-kit", "unit"),
    "catalog update": _simple("update_catalog", "catalog/updates"),
    "catalog protect": _simple("protect_catalog", "catalog/protection"),
    "catalog rebuild": _simple("rebuild_catalog", "catalog/rebuilds"),
}
"""Commands that work on the site themselves, and do more than look."""
