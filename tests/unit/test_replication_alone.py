"""An image is brought into a pool by one job at a time."""

from __future__ import annotations

import threading

import pytest

from holdfast.base.errors import Cancelled
from holdfast.base.ids import ImageId, PoolId
from holdfast.site.replication import _alone

IMAGE, POOL, OTHER = ImageId("a" * 32), PoolId("1" * 32), PoolId("2" * 32)


def nothing() -> None:
    return None


def test_another_job_waits_until_it_is_there() -> None:
    looked, came = threading.Event(), threading.Event()

    def second() -> None:
        with _alone(IMAGE, POOL, looked.set):
            came.set()

    with _alone(IMAGE, POOL, nothing):
        thread = threading.Thread(target=second)
        thread.start()
        assert looked.wait(30)
        assert not came.is_set()
    assert came.wait(30)
    thread.join(30)


def test_one_that_is_told_to_stop_waits_no_longer() -> None:
    def stop() -> None:
        raise Cancelled("told to stop")

    with _alone(IMAGE, POOL, nothing):
        with pytest.raises(Cancelled), _alone(IMAGE, POOL, stop):
            raise AssertionError("both are at it")
        # Other images, and other pools, are nobody's concern.
        with _alone(IMAGE, OTHER, stop), _alone(ImageId("b" * 32), POOL, stop):
            pass
    with _alone(IMAGE, POOL, stop):
        pass
