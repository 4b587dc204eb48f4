"""The error table and the tree that is drawn above it."""

from __future__ import annotations

import pickle
import re

import pytest

from holdfast import engine
from holdfast.base import errors


def test_every_class_is_drawn_with_its_code_exit_status_and_retry() -> None:
    drawn = {
        (name, code, int(status), retry)
        for name, code, status, retry in re.findall(
            r"[├└]── (\w+) +(\S+) +(\d+)  (never|same target|other target)$",
            errors.__doc__ or "",
            re.MULTILINE,
        )
    }
    real = {
        (cls.__name__, cls.code, cls.exit_status, cls.retry.value)
        for cls in errors.BY_CODE.values()
        if cls is not errors.HoldfastError
    }
    assert drawn == real


def test_no_two_classes_share_a_code() -> None:
    def count(cls: type[errors.HoldfastError]) -> int:
        return 1 + sum(count(child) for child in cls.__subclasses__())

    assert len(errors.BY_CODE) == count(errors.HoldfastError)


@pytest.mark.parametrize("code", engine.error_codes())
def test_each_code_of_the_engine_has_a_class_of_its_own(code: str) -> None:
    error = errors.from_code(code, "what happened", "what to do")
    assert error.code == code
    assert type(error) is not errors.InternalError
    assert (str(error), error.message, error.hint) == ("what happened",) * 2 + ("what to do",)


def test_an_unknown_code_is_told_and_not_swallowed() -> None:
    error = errors.from_code("from-the-future", "it went wrong")
    assert isinstance(error, errors.InternalError)
    assert "it went wrong" in error.message
    assert "from-the-future" in error.message


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.NoSpace("full", "buy more")))
    assert isinstance(error, errors.NoSpace)
    assert (error.message, error.hint) == ("full", "buy more")
