"""What guests of ours are run by."""

from __future__ import annotations

import pytest

from holdfast.base.errors import Invalid
from holdfast.sources.emulator import VARIABLE, accelerators


def test_kvm_is_tried_first_and_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert accelerators() == ["-accel", "kvm", "-accel", "tcg,thread=multi"]
    monkeypatch.setenv(VARIABLE, "tcg")
    assert accelerators() == ["-accel", "tcg,thread=multi"]
    monkeypatch.setenv(VARIABLE, "kvm")
    assert accelerators() == ["-accel", "kvm"]


def test_another_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "xen")
    with pytest.raises(Invalid, match="HOLDFAST_ACCELERATOR=xen"):
        accelerators()
