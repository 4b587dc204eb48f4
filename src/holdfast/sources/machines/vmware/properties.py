"""Properties of VMware's objects, of many at once and in pages, or of one.

Must not know what they mean. Invariant: of an object that was deleted meanwhile nothing is told,
and that is no error to who asks for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyVmomi import vmodl

from holdfast.base.errors import MachineMissing
from holdfast.sources.machines.vmware.connection import asked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.vmware.connection import Session

PAGE = 200
"""Objects that one answer tells of."""


def told(session: Session, one: Any, *paths: str) -> dict[str, Any]:
    """Properties of an object, in one answer; those that it does not have are not there.

    Raises:
        MachineMissing: It is gone.
    """
    with asked("the vCenter does not tell of an object", session.place):
        for _, found in retrieved(session, paths, type(one), [one]):
            return found
    raise MachineMissing("the vCenter does not know an object any more", "look again")


def retrieved(
    session: Session,
    paths: Sequence[str],
    kind: Any,
    begin: Sequence[Any],
    walk: Sequence[Any] = (),
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each object with those of the properties that it has.

    Args:
        session: By which.
        paths: Names of the properties.
        kind: Of the objects.
        begin: The objects, or where the walk begins.
        walk: How to get from there to the objects; empty for not at all.
    """
    collector = session.content.propertyCollector
    spec = vmodl.query.PropertyCollector.FilterSpec(
        propSet=[
            vmodl.query.PropertyCollector.PropertySpec(all=False, pathSet=list(paths), type=kind)
        ],
        objectSet=[
            vmodl.query.PropertyCollector.ObjectSpec(obj=one, skip=bool(walk), selectSet=list(walk))
            for one in begin
        ],
        # An object that is deleted meanwhile is no error.
        reportMissingObjectsInResults=True,
    )
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE)
    page = collector.RetrievePropertiesEx([spec], options)
    while page is not None:
        for one in page.objects:
            yield one.obj, {each.name: each.val for each in one.propSet}
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
