"""What the quick and the full form measure: corpora, their sizes, rounds, works.

Must not measure. Invariant: the quick form stays under ten minutes on two cores with all tools.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.report import COLD, LIMIT, WORKS

_MIB, _GIB = 1 << 20, 1 << 30
_TREE = ("first", "again", "changed", "restore", "one", LIMIT)
_FEW = ("first", "again", "changed", "restore", "equal", LIMIT)
_IMAGES = ("first", "days", "expire", "collect", "restore")
_COLD_FEW = tuple(work for work in COLD if work != "cold-one")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with one corpus.

    Attributes:
        name: Of the corpus.
        amount: Its size, see `corpora.Shape`.
        rounds: How often, unless a person says otherwise.
        works: Keys of `report.WORKS`.
        cold: Works that are added where a cold cache is asked for.
        generations: Days of disk images.
    """

    name: str
    amount: int
    rounds: int
    works: tuple[str, ...]
    cold: tuple[str, ...] = ()
    generations: int = 0


PLANS = {
    "quick": (
        Plan("small", 20_000, 3, (*_TREE, "find"), COLD),
        Plan("large", 512 * _MIB, 3, _FEW, _COLD_FEW),
        Plan("images", 64 * _MIB, 1, _IMAGES, generations=4),
    ),
    "full": (
        Plan("small", 200_000, 3, (*_TREE, "find", "equal"), COLD),
        Plan("large", 8 * _GIB, 3, _FEW, _COLD_FEW),
        Plan("images", _GIB, 1, _IMAGES, generations=10),
        Plan("tiny", 1_000_000, 1, _TREE),
    ),
}
CORPORA = tuple(plan.name for plan in PLANS["full"])


def chosen(mode: str, words: list[str], *, cold: bool) -> list[tuple[Plan, tuple[str, ...]]]:
    """The plans of a mode, and the works of each.

    Args:
        mode: ``quick`` or ``full``.
        words: Corpora and works to keep; all of either sort if none is named.
        cold: Also with nothing in memory.
    """
    found = []
    works = [word for word in words if word in WORKS]
    named = [word for word in words if word in CORPORA]
    plans = {plan.name: plan for plan in (*PLANS["full"], *PLANS[mode])}
    for name in CORPORA:
        if name not in (named or [plan.name for plan in PLANS[mode]]):
            continue
        plan = plans[name]
        possible = plan.works + (plan.cold if cold else ())
        kept = tuple(work for work in possible if not works or work in works)
        if kept:
            found.append((plan, kept))
    return found
