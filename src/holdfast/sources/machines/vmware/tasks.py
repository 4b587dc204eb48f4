"""Waiting for what a vCenter or host does in its own time.

Must not know what that is. Invariant: one that nobody waits for any more was asked to end.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.vmware.connection import Session

_POLL_S = (0.05, 1.0)


def wait(session: Session, task: Any, what: str, alive: Callable[[], None] = lambda: None) -> Any:
    """Wait for a task.

    Args:
        session: By which.
        task: It.
        what: What went wrong, should it fail.
        alive: Called meanwhile; if it raises, the task is asked to end.

    Returns:
        What came of it.

    Raises:
        HoldfastError: It failed, and why.
    """
    pause = _POLL_S[0]
    while True:
        found = told(session, task, "info.state", "info.result", "info.error")
        if found.get("info.state") == vim.TaskInfo.State.success:
            return found.get("info.result")
        if found.get("info.state") == vim.TaskInfo.State.error:
            with asked(what, session.place):
                raise found["info.error"]
        try:
            alive()
        except BaseException:
            with contextlib.suppress(vmodl.MethodFault, OSError):
                task.CancelTask()
            raise
        time.sleep(pause)
        pause = min(2 * pause, _POLL_S[1])
