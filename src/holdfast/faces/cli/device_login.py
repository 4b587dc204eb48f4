"""Log in by a site's identity provider from a machine without a browser: RFC 8628.

Must not keep what it gets. Invariant: the provider is asked no more often than it said.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Cancelled
from holdfast.faces.cli.screen import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.faces.cli.api_client import ApiClient
    from holdfast.faces.cli.screen import Screen

SLOWER_S = 5
"""So much longer to wait if the provider was asked too often."""


def log_in(
    api: ApiClient, screen: Screen, pause: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Have somebody log in in a browser of any device, and wait for it.

    Returns:
        The session, as the API has it.

    Raises:
        NotAuthenticated: The provider refuses.
        Cancelled: Nobody came in time.
    """
    begun = api.post("/sessions/provider/device")
    screen.say("open this in a browser, on any device, and enter the code:")
    screen.say(printable(f"{begun['url']}  {begun['code']}"))
    if begun["whole_url"] is not None:
        screen.say(f"or: {printable(begun['whole_url'])}")
    interval_s, waited_s = begun["interval_s"], 0
    while waited_s < begun["expires_in_s"]:
        pause(interval_s)
        waited_s += interval_s
        found = api.post("/sessions/provider/device/session", {"login": begun["login"]})
        if found["session"] is not None:
            session: dict[str, Any] = found["session"]
            return session
        if found["too_often"]:
            interval_s += SLOWER_S
    raise Cancelled("nobody logged in", "run the same command again")
