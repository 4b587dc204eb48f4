"""Which rules of retention an image has: those of the schedule or policy that it was made under.

Pure. Must not judge: see `control.retention`. Invariants: images of a schedule with rules of its
own are counted by themselves, all others of a policy together; what no policy is known for has
no rule, and so it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.ids import ADHOC, PolicyName
from holdfast.control.retention import Rules, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.control.policies.policy import Policy
    from holdfast.control.retention import Candidate


def terms_by(policies: Mapping[PolicyName, Policy]) -> Callable[[Candidate], Terms]:
    """Make the function that says by which rules an image is judged; for `judge_each`.

    Args:
        policies: What each policy says, and what each that was removed said last: that there is
            no policy any more must not keep its images for ever, nor let them go at once.
    """

    def terms(image: Candidate) -> Terms:
        return terms_of(policies, image.policy, image.schedule)

    return terms


def terms_of(
    policies: Mapping[PolicyName, Policy], policy: str | None, schedule: str | None
) -> Terms:
    """The rules of the images of a policy and a schedule.

    Args:
        policies: As in `terms_by`.
        policy: The name that the image has; None for one that was ordered by hand.
        schedule: Likewise; None if no schedule made it due.
    """
    if policy is None or policy == ADHOC:
        return Terms("ordered by hand", Rules())
    found = policies.get(PolicyName(policy))
    if found is None:
        return Terms(f"policy '{policy}', which is not known", Rules())
    for one in found.schedules:
        if one.name == schedule and one.retention is not None:
            return Terms(f"schedule '{schedule}' of policy '{policy}'", one.retention)
    return Terms(f"policy '{policy}'", found.retention)
