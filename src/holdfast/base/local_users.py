"""Users of the operating system, as a site names them.

Must not ask who may do what.
"""

from __future__ import annotations

import pwd

LOCAL = "local:"
"""What the name of such a user begins with where those of a site's own users may stand too."""


def local_name(user_id: int) -> str:
    """``local:NAME`` of a user; of one who has no name, the number."""
    try:
        return LOCAL + pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"{LOCAL}{user_id}"
