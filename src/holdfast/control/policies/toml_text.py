"""Policies as TOML.

Must not know what a policy means, only how its tables are best laid out. Invariant: what is
written here is read back as the same data.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import tomlkit

from holdfast.control.policies.findings import Finding, error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tomlkit.items import AoT, Array, InlineTable, Table

_WIDTH = 88
_AT = re.compile(r"^(?P<words>.*) \(at (?P<place>.*)\)$", re.DOTALL)


def read_toml(text: str) -> tuple[object, list[Finding]]:
    """Read one document.

    Returns:
        Plain data, None if it is not TOML; and what is wrong with it.
    """
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as refused:
        told = _AT.match(str(refused))
        place, words = (told["place"], told["words"]) if told else ("", str(refused))
        return None, [error(place, f"this is not TOML: {words}")]
    except RecursionError:
        return None, [error("", "tables or lists are too deep inside of each other")]
    except ValueError as refused:
        # Such as a number of thousands of digits.
        return None, [error("", f"this is not TOML: {refused}")]


def write_toml(policies: Iterable[Mapping[str, Any]]) -> str:
    """Write ``[[policy]]`` for each, with a table for each selection and schedule."""
    # One at a time: the library takes the longer for each table the more there are.
    return "\n".join(_one_policy(one) for one in policies)


def _one_policy(policy: Mapping[str, Any]) -> str:
    document = tomlkit.document()
    document.append("policy", _array_of_tables([policy]))
    return document.as_string()


def _table(value: Mapping[str, Any]) -> Table:
    made = tomlkit.table()
    for key, one in value.items():
        if isinstance(one, list) and one and all(isinstance(item, dict) for item in one):
            made.append(key, _array_of_tables(one))
        elif isinstance(one, dict):
            made.append(key, _inline(one))
        elif isinstance(one, list):
            made.append(key, _array(key, one))
        else:
            made.append(key, one)
    return made


def _array_of_tables(values: Iterable[Mapping[str, Any]]) -> AoT:
    made = tomlkit.aot()
    for one in values:
        made.append(_table(one))
    return made


def _inline(value: Mapping[str, Any]) -> InlineTable:
    made = tomlkit.inline_table()
    for key, one in value.items():
        made.append(key, one)
    return made


def _array(key: str, values: list[Any]) -> Array:
    made = tomlkit.array()
    made.extend(values)
    return made.multiline(len(key) + len(made.as_string()) > _WIDTH)
