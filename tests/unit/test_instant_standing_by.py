"""Who stands by a machine that runs from its image: what follows where that can't be read."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import HoldfastError, MachineMissing, Unreachable
from holdfast.movers.machines import standing_by
from holdfast.movers.machines.image_watch import ImageWatch
from holdfast.movers.machines.standing_by import APART, AWAY, STUCK, StandingBy
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.overlays import Over, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.wire.messages import WorkEvent


def wait_for(look: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not look():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_image_that_nobody_tells_of_is_away_until_somebody_does() -> None:
    away = threading.Event()

    def ask() -> None:
        if away.is_set():
            raise Unreachable("the media server is away")

    with ImageWatch(ask, away_s=0.2, every_s=0.01) as watch:
        assert watch.away_s == 0
        away.set()
        wait_for(lambda: watch.away_s > 0.2)
        assert watch.why == "the media server is away"
        away.clear()
        wait_for(lambda: watch.away_s == 0)


def test_who_never_answers_is_away_and_holds_nobody_up() -> None:
    go_on = threading.Event()
    with ImageWatch(lambda: go_on.wait(60), away_s=0.1, every_s=0.01) as watch:
        wait_for(lambda: watch.away_s > 0)
    go_on.set()


class Scene:
    """A machine, its hypervisor and its image, step by step."""

    def __init__(self, *steps: Callable[[Scene], None]) -> None:
        self.steps = list(steps)
        self.away_s = 0.0
        self.standing_now = Standing(State.RUNNING, ("vda",))
        self.trouble: HoldfastError | None = None
        self.went_on = self.left = self.kept = 0
        self.notes: list[WorkEvent] = []
        self.counts: list[dict[str, int]] = []

    def standing(self, _over: Over) -> Standing:
        if self.trouble is not None:
            raise self.trouble
        return self.standing_now

    def go_on(self, _over: Over) -> None:
        self.went_on += 1
        self.standing_now = Standing(State.RUNNING, ("vda",))

    def keep(self) -> None:
        self.kept += 1

    def let_go(self) -> None:
        self.left += 1

    def tell(self, counts: Mapping[str, int]) -> None:
        self.counts.append(dict(counts))

    def alive(self) -> None:
        if self.steps:
            self.steps.pop(0)(self)
        else:
            self.standing_now = Standing(State.RUNNING, ())
            self.trouble = None

    def play(self) -> None:
        provider: Any = self
        watch: Any = self
        StandingBy(
            provider,
            Over("uuid", "web", "/socket"),
            self.keep,
            watch,
            self.let_go,
            self.tell,
            self.alive,
            self.notes.append,
            [],
        )()

    def noted(self) -> list[str]:
        return [one.cause for one in self.notes]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_by, "_LOOK_S", 0.0)
    monkeypatch.setattr(standing_by, "_WAIT_S", 0.0)


def test_a_machine_that_stands_still_goes_on_when_its_image_is_back_and_not_before() -> None:
    def goes(scene: Scene) -> None:
        scene.away_s = 20.0
        scene.standing_now = Standing(State.PAUSED, ("vda",), stuck=True)

    def nothing(scene: Scene) -> None:
        assert (scene.went_on, scene.left) == (0, 1)
        assert (scene.counts[-1][AWAY], scene.counts[-1][STUCK]) == (1, 1)

    def comes(scene: Scene) -> None:
        nothing(scene)
        scene.away_s = 0.0

    def gone_on(scene: Scene) -> None:
        assert scene.went_on == 1
        assert scene.counts[-1][AWAY] == 0

    scene = Scene(goes, nothing, nothing, comes, gone_on)
    scene.play()
    assert scene.noted() == ["image-away", "went-on", "own"]
    assert "could not be read for 20 s" in scene.notes[0].message
    assert "nothing is lost" in scene.notes[0].message


def test_a_hypervisor_that_is_not_reached_is_told_once_and_waited_for() -> None:
    def goes(scene: Scene) -> None:
        scene.trouble = Unreachable("'kvm1' does not answer by ssh")

    def is_gone(scene: Scene) -> None:
        assert scene.counts[-1][APART] == 1

    def comes(scene: Scene) -> None:
        scene.trouble = None

    def is_back(scene: Scene) -> None:
        assert scene.counts[-1][APART] == 0

    scene = Scene(goes, is_gone, is_gone, comes, is_back)
    scene.play()
    assert scene.noted() == ["apart", "together", "own"]
    assert "does not answer by ssh" in scene.notes[0].message
    # The way is looked after all the while.
    assert scene.kept >= 5


def test_a_machine_that_is_gone_is_not_waited_for() -> None:
    def goes(scene: Scene) -> None:
        scene.trouble = MachineMissing("machine 'web' is gone")

    scene = Scene(goes, *[lambda _: None] * 9)
    with pytest.raises(MachineMissing, match="not begun anew"):
        scene.play()
