"""What a media server says to a backup that begins, as a client reads it.

Must not ask. Invariant: an answer that is not whole is none.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from holdfast.base.errors import InternalError


@dataclass(frozen=True, slots=True)
class Opened:
    """What a media server says to a backup that begins.

    Attributes:
        upload: What the upload is called.
        terms: For the engine.
        parent: The manifest of the image to compare with, if there is one.
        compresses: Whether it compresses what comes as it is before it stores it.
        awaits: Whether a commit may come before the bodies that it needs.
    """

    upload: str
    terms: bytes
    parent: bytes | None
    compresses: bool = False
    awaits: bool = False


def read_opened(answer: bytes) -> Opened:
    """Read the answer to a request that opens an upload.

    Raises:
        InternalError: It is no such answer.
    """
    try:
        told = json.loads(answer)
        parent = None if told["parent"] is None else _base64(told["parent"])
        return Opened(
            str(told["upload"]),
            _base64(told["terms"]),
            parent,
            compresses=told.get("compresses") is True,
            awaits=told.get("awaits") is True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError("the media server's answer is not understood") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
