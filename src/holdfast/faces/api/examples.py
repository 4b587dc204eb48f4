"""Examples in the API's own document: one for every body, answer and parameter.

Made of what the fields say of themselves; what fields of one name mean everywhere is said here,
once. Must not make up what nobody has said: then there is no example, which a test finds.
Invariant: an example is valid by its schema.
"""

from __future__ import annotations

from typing import Any, Final

Plain = dict[str, Any]

JSON: Final = ("application/json", "application/x-ndjson")

_BEGAN: Final = "2026-01-31T18:00:00Z"
_ENDED: Final = "2026-01-31T19:30:00Z"
_LATER: Final = ("end", "until", "expire", "last", "locked", "recorded", "revoked", "changed")
"""Parts of names of moments that come after others."""

_IMAGE: Final = "9f86d081884c7d659a2feaa0c55ad015"
_UUID: Final = "4c4c4544-0034-5a10-8052-b4c04f4e3532"
_POLICY: Final = {
    "name": "servers",
    "clients": ["web1"],
    "retention": {"daily": 7, "weekly": 4},
    "selections": [{"name": "system", "paths": ["/etc", "/srv"]}],
    "schedules": [{"name": "nightly", "kind": "differential", "every": "1d"}],
}

BY_NAME: Final = {
    "Idempotency-Key": "0d5f8a52-6f0c-4f6b-9f3c-6f1f5d7f7f10",
    "If-Range": '"5eb63bbbe01eeed0"',
    "Range": "bytes=0-1023",
    "also_on": "kvm2",
    "cause": "no permission",
    "changed": "servers",
    "client": "web1",
    "clients": "web1",
    "code": "4/0AeanS0a",
    "created": "servers",
    "cursor": "q5lT6dWmGJdbIjAxIiwzXQ",
    "datastores": "fast",
    "error": "the hypervisor 'kvm1' does not answer",
    "first_image": _IMAGE,
    "folder": "production/web",
    "hypervisor": "kvm1",
    "image": _IMAGE,
    "image_id": _IMAGE,
    "last_image": _IMAGE,
    "login": "hf_n3Yw1q8Jc0Zr5Tt2",
    "machine": _UUID,
    "message": "may not be read",
    "missed": "no heartbeat of the guest agent in 300 s",
    "name": "web1",
    "networks": "production",
    "newest_image": _IMAGE,
    "next_cursor": "q5lT6dWmGJdbIjAxIiwzXQ",
    "object": "policies/servers",
    "others": "laptops",
    "parent": _IMAGE,
    "password": "four words nobody guesses",
    "path": "/etc/hosts",
    "policies": "servers",
    "policy": "servers",
    "proxy": "kvm1",
    "removed": "laptops",
    "schedule": "nightly",
    "source": "web1:/etc,/srv",
    "state": "ended",
    "storage": "fast",
    "storage_unit": "default",
    "tags": "prod",
    "status": "completed",
    "text": "web",
    "type": "files",
    "unchanged": "mail",
    "unit": "second",
    "url": "https://id.example.org/authorize?client_id=holdfast",
    "uuid": _UUID,
    "what": "create_user",
    "who": "alice",
    "why": "the clock was set back by 2 days",
    "words": "it runs from the image, and what it writes is kept beside",
    "zone": "Europe/Berlin",
}
"""What fields and parameters are called, and an example where they do not say one themselves."""

NUMBERS: Final = {
    "attempt": 1,
    "children": 0,
    "cpus": 4,
    "duration_s": 95,
    "events": 2,
    "events_left_out": 0,
    "expires_in_s": 600,
    "files": 48_213,
    "findings": 2,
    "gid": 33,
    "images": 412,
    "interval_s": 5,
    "priority": 50,
    "restart_of": 4710,
    "uid": 33,
}
"""The same, of numbers."""

NOT_SO: Final = {
    *("broken", "disabled", "error", "left_out", "locked_until", "missed", "more", "not_before"),
    *("parent_id", "problem", "restart_of", "revoked_at", "suspended", "too_often", "unreadable"),
    *("waits_for", "waits_on"),
}
"""What is false, or null, as a rule."""

_NOTHING: Final = object()


def add_all(document: Plain) -> None:
    """Put an example to every parameter, JSON body and JSON answer of a document that has none."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _put(parameter, schemas, parameter["name"], whole=True)
            for media in _medias(operation.get("requestBody", {})):
                _put(media, schemas, "", whole=False)
            for status, response in operation["responses"].items():
                if status.startswith("2"):
                    for media in _medias(response):
                        _put(media, schemas, "", whole=True)


def _medias(there: Plain) -> list[Plain]:
    return [media for kind, media in there.get("content", {}).items() if kind in JSON]


def _put(there: Plain, schemas: Plain, name: str, *, whole: bool) -> None:
    if "example" in there or "examples" in there:
        return
    made = example(there["schema"], schemas, name, whole=whole)
    if made is not _NOTHING:
        there["example"] = made


def example(schema: Plain, schemas: Plain, name: str, *, whole: bool) -> Any:
    """Make an example.

    Args:
        schema: Of what.
        schemas: What it may refer to.
        name: What that is called where it is a field or a parameter.
        whole: With every field; else with those that have to be there, or, where none has to, all.
    """
    if name in NOT_SO and {"type": "null"} in schema.get("anyOf", ()):
        return None
    found = _said(schema, name)
    if found is not _NOTHING:
        return found
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, name, whole=whole)
    if "anyOf" in schema and "properties" not in schema:
        made = (example(one, schemas, name, whole=whole) for one in schema["anyOf"])
        return next((one for one in made if one is not _NOTHING), _NOTHING)
    match schema.get("type"):
        case "object":
            return _object(schema, schemas, name, whole=whole)
        case "array":
            one = example(schema["items"], schemas, name, whole=whole)
            return one if one is _NOTHING or isinstance(one, list) else [one]
        case _:
            return _plain(schema, name)


def _said(schema: Plain, name: str) -> Any:
    """What a schema says itself."""
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("example", "const", "default"):
        if schema.get(key) not in (None, ""):
            return schema[key]
    if "enum" not in schema:
        return _NOTHING
    usual = BY_NAME.get(name)
    return usual if usual in schema["enum"] else schema["enum"][0]


def _object(schema: Plain, schemas: Plain, name: str, *, whole: bool) -> Any:
    properties = schema.get("properties")
    if properties is None:
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and more.get("type") in {"integer", "number"}:
            return {name: 3}
        return _POLICY
    required = set(schema.get("required", ())) if not whole else set(properties)
    made = {}
    for field in sorted(required or properties, key=list(properties).index):
        value = example(properties[field], schemas, field, whole=whole)
        if value is _NOTHING:
            return _NOTHING
        made[field] = value
    return made


def _plain(schema: Plain, name: str) -> Any:
    kind = schema.get("type")
    if kind == "null":
        return None
    if kind == "boolean":
        return name not in NOT_SO
    if kind in {"integer", "number"}:
        return _number(schema, name)
    if kind == "string" and schema.get("format") == "date-time":
        return _ENDED if any(part in name for part in _LATER) else _BEGAN
    return BY_NAME.get(name, _NOTHING)


def _number(schema: Plain, name: str) -> int:
    if name.endswith("_bytes"):
        return 1_073_741_824
    if name.endswith("_ns"):
        return 1_769_882_400_000_000_000
    return int(
        min(max(NUMBERS.get(name, 3), schema.get("minimum", 0)), schema.get("maximum", 2**53))
    )
