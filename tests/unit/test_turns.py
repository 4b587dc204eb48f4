"""Processes that share the tests begin with the slow ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.kit import turns

TESTS = Path(__file__).parents[1]
MODULES = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0.1, 300)).map(lambda one: (one[0], one[1])),
    min_size=1,
    max_size=80,
)


@given(made=MODULES, processes=st.integers(1, 5))
def test_every_module_is_there_once(made: list[tuple[int, float]], processes: int) -> None:
    modules = [(number, count, takes_s) for number, (count, takes_s) in enumerate(made)]
    assert sorted(turns.in_turn(modules, processes)) == list(range(len(made)))


def test_each_half_begins_with_slow_ones_and_ends_with_quick_ones() -> None:
    made = [(60.0, 4)] * 6 + [(10.0, 10)] * 8 + [(1.0, 20)] * 20
    modules = [(takes_s / count, count, takes_s) for takes_s, count in made]
    order = turns.in_turn(modules, 2)
    counts = {takes_s / count: count for takes_s, count in made}
    tests = [each for each in order for _ in range(counts[each])]
    half = len(tests) // 2
    for stretch in (tests[:half], tests[half:]):
        assert all(one >= other for one, other in pairwise(stretch))
        assert stretch.count(15.0) == 12
    assert abs(sum(tests[:half]) - sum(tests[half:])) <= 10


def test_tests_of_a_module_stay_together_and_in_their_order() -> None:
    slow, quick = TESTS / "system" / "a.py", TESTS / "unit" / "b.py"
    items = [("u1", quick, False), ("u2", quick, False), ("s2", slow, False), ("s1", slow, True)]
    assert turns.of_items(items, 1) == ["s2", "s1", "u1", "u2"]


def test_what_is_marked_is_slow_wherever_it_lies() -> None:
    quick = TESTS / "unit" / "a.py"
    assert turns.seconds(quick, is_slow=False) < turns.seconds(quick, is_slow=True)
    assert turns.seconds(Path("/elsewhere/a.py"), is_slow=False) == turns.QUICK_S
