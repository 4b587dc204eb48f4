"""YAML as plain data, without its surprises.

Must not know what the data mean. Words are what they look like: true and false are the only
flags (``no`` is a text), numbers are decimal (``22:00`` and ``0700`` are texts), dates are
texts. A key that stands twice, an alias, a tag and a second document are findings. Invariant:
what is written here is read back as the same data, by this module and by readers that have the
surprises.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from holdfast.control.policies.findings import Finding, error
from holdfast.control.policies.reading import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

DEEPEST = 32
"""Tables and lists inside of each other; a policy needs seven."""

_WIDTH = 96
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = {"", "~", "null", "Null", "NULL"}
_FLAGS = {
    word: value
    for words, value in ((("true", "True", "TRUE"), True), (("false", "False", "FALSE"), False))
    for word in words
}
_INTEGER = re.compile("[-+]?(0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}")
_TEXT_TAGS = {None, "!", "tag:yaml.org,2002:str"}
_LIST_TAGS = {None, "!", "tag:yaml.org,2002:seq"}
_TABLE_TAGS = {None, "!", "tag:yaml.org,2002:map"}


def read_yaml(text: str) -> tuple[object, list[Finding]]:
    """Read one document.

    Returns:
        Plain data, as far as it could be read; and what is wrong with it.
    """
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.MarkedYAMLError as refused:
        mark = refused.problem_mark or refused.context_mark
        words = refused.problem or refused.context or "it can't be understood"
        reader.findings.append(error(_at(mark), f"this is not YAML: {words}"))
    except yaml.YAMLError as refused:
        words = str(refused).splitlines()[0]
        reader.findings.append(error("", f"this is not YAML: {words}"))
    except _TooDeep as refused:
        reader.findings.append(error(_at(refused.mark), f"more than {DEEPEST} levels deep"))
    return reader.value, reader.findings


def write_yaml(value: object) -> str:
    """Write plain data as one document; short lists stand on one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH,
        default_flow_style=None,
    )  # fmt: skip
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        # Two policies that say the same are still two.
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Other styles let a reader take one kind of line break for another.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


class _TooDeep(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, mark: object) -> None:
        self.mark = mark


class _Place:
    """A list or a table that is being read."""

    def __init__(self, value: list[Any] | dict[str, Any]) -> None:
        self.value = value
        self.key: str | None = None
        self.wants_key = isinstance(value, dict)


class _Reader:
    """Puts data together from events, so that no depth of a document is a depth of calls."""

    def __init__(self) -> None:
        self.value: object = None
        self.findings: list[Finding] = []
        self._open: list[_Place] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            hint = "write out what it stands for; a text that begins with '*' wants quotes"
            self._note(event, f"an alias (*{shown(event.anchor or '')}) is not taken", hint)
            self._put(event, None)
        elif isinstance(event, yaml.ScalarEvent):
            self._put(event, self._scalar(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, event.tag, _LIST_TAGS)
            self._begin(event, [])
        elif isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event, event.tag, _TABLE_TAGS)
            self._begin(event, {})
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            ended = self._open.pop()
            self._put(event, ended.value)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self._note(event, "a second document begins here", "put all policies into one")

    def _begin(self, event: yaml.Event, value: list[Any] | dict[str, Any]) -> None:
        if len(self._open) >= DEEPEST:
            raise _TooDeep(event.start_mark)
        self._open.append(_Place(value))

    def _put(self, event: yaml.Event, value: object) -> None:
        if not self._open:
            if self._documents == 1:
                self.value = value
            return
        place = self._open[-1]
        if isinstance(place.value, list):
            place.value.append(value)
        elif place.wants_key:
            place.wants_key = False
            place.key = self._key(event, value, place.value)
        else:
            place.wants_key = True
            if place.key is not None:
                place.value[place.key] = value

    def _key(self, event: yaml.Event, value: object, table: dict[str, Any]) -> str | None:
        if not isinstance(value, str):
            self._note(event, "a key is not text", "write it in quotes")
            return None
        if value == "<<":
            self._note(event, "a merge (<<) is not taken", "write out what it stands for")
            return None
        if value in table:
            self._note(event, f"the key '{shown(value)}' is there twice", "leave one of them out")
            return None
        return value

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        text: str = event.value
        plain = event.implicit[0] and event.tag is None
        if not plain:
            self._check_tag(event, event.tag, _TEXT_TAGS)
            return text
        if text in _NULL:
            return None
        if text in _FLAGS:
            return _FLAGS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FRACTION.fullmatch(text) else text

    def _check_tag(self, event: yaml.Event, tag: str | None, known: Iterable[str | None]) -> None:
        if tag not in known:
            self._note(event, f"the tag '{shown(tag or '')}' is not taken", "leave it out")

    def _note(self, event: yaml.Event, message: str, hint: str) -> None:
        self.findings.append(error(_at(event.start_mark), message, hint))


def _at(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
