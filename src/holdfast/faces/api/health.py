"""``/health`` and ``/ready``: for whoever watches over the process, and for load balancers.

Must not tell a stranger anything else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import sqlalchemy as sa

from holdfast.faces.api.door import TheMaster, anybody, make_router
from holdfast.faces.api.models import Model

router = make_router("Health")


class Health(Model):
    """That somebody is there."""

    status: Literal["ok"] = "ok"


@router.get("/health")
def read_health(_: Annotated[None, anybody()]) -> Health:
    """Whether the process answers."""
    return Health()


@router.get("/ready")
def read_readiness(_: Annotated[None, anybody()], master: TheMaster) -> Health:
    """Whether requests can be served: the control database answers."""
    with master.database.read() as connection:
        connection.execute(sa.text("SELECT 1"))
    return Health()
