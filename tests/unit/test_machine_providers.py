"""Hypervisors are opened by the name of their kind; what is missing is said."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from holdfast.base.errors import Invalid, LibraryMissing, Unsupported
from holdfast.sources.machines import providers
from holdfast.sources.machines.providers import KINDS, Credentials, open_provider


def imports(monkeypatch: pytest.MonkeyPatch, **found: Any) -> list[str]:
    """Only these modules are there: dots of their names written as underscores."""
    asked: list[str] = []

    def find(name: str) -> ModuleType:
        asked.append(name)
        known = found.get(name.replace(".", "_"))
        if isinstance(known, Exception):
            raise known
        if known is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        assert isinstance(known, ModuleType)
        return known

    monkeypatch.setattr(importlib, "import_module", find)
    return asked


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match="'hyperv' is not a kind") as caught:
        open_provider("hyperv", "x")
    for kind in KINDS:
        assert kind in str(caught.value.hint)


@pytest.mark.parametrize("kind", [one for one in KINDS.values() if one.library])
def test_a_missing_library_is_named_with_how_it_is_had(
    kind: providers.ProviderKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = imports(monkeypatch)
    with pytest.raises(LibraryMissing, match=kind.package) as caught:
        open_provider(kind.name, "x")
    assert "holdfast[vm]" in str(caught.value.hint)
    assert kind.package in str(caught.value.hint)
    assert asked == [kind.library], "nothing of ours was imported before its library"


def test_a_library_that_does_not_load_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    imports(monkeypatch, libvirt=ImportError("libvirt.so.0: cannot open shared object file"))
    with pytest.raises(LibraryMissing, match=r"libvirt\.so\.0"):
        open_provider("libvirt", "qemu:///system")


def test_a_kind_that_this_build_lacks_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    imports(monkeypatch)
    with pytest.raises(Unsupported, match="knows nothing of QEMU without libvirt"):
        open_provider("qmp", "/run/machines")


def test_a_provider_gets_its_url_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("qmp")
    given: list[Any] = []
    module.open_url = lambda *all_of_it: given.append(all_of_it)  # type: ignore[attr-defined]
    imports(monkeypatch, holdfast_sources_machines_qmp=module)
    open_provider("qmp", "/run/machines")
    assert given == [("/run/machines", Credentials())]


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_format_of_new_disks_is_one_that_the_kind_has(kind: providers.ProviderKind) -> None:
    assert kind.format_of(None) == kind.disk_formats[0]
    for one in kind.disk_formats:
        assert kind.format_of(one) == one
    with pytest.raises(Invalid, match="of the format 'qed'") as caught:
        kind.format_of("qed")
    assert all(one in str(caught.value.hint) for one in kind.disk_formats)


def test_why_a_format_can_not_be_had_is_said() -> None:
    with pytest.raises(Invalid, match="the format 'vhdx': libvirt itself knows no such disks"):
        KINDS["libvirt"].format_of("vhdx")
    with pytest.raises(Invalid, match="ESXi runs machines from VMDK disks alone"):
        KINDS["vmware"].format_of("raw")


def test_a_password_is_in_no_description() -> None:
    assert "hidden" not in repr(Credentials("me", "hidden", "hidden"))
