"""How a path of a policy is taken in several streams, each a source of its own.

Pure. A stream is a matter of rules: every stream walks the same path, and leaves out what is
another's. So a file is in exactly one stream whatever becomes of the tree: what is new, what is
renamed, and what was a directory and is a file now; marks and mounts mean in each stream what they
mean in all. Invariants: the named streams take the directories that a split gives them, the rest
takes everything else; a rule of the policy that leaves something out does so in every stream.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import Invalid
from holdfast.base.exclusion import Exclusion
from holdfast.wire.dividing import prefix_of, require_sealed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ClientName
    from holdfast.wire.dividing import Taken

REST: Final = "rest"

_SPECIAL = re.compile(r"([\\*?\[\]{}!#])")


@dataclass(frozen=True, slots=True)
class SplitKey:
    """What a split was made for: of anything else there is another.

    Attributes:
        client: Whose path.
        path: Absolute.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that the path is on.
        streams: Into how many at most.
        sealed_by: The client key that seals names, as the policy calls it; None for names in the
            open. With it all names of a split are sealed ones, as the pool has them.
    """

    client: ClientName
    path: str
    exclude: tuple[str, ...]
    one_file_system: bool
    streams: int
    sealed_by: str | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same rules."""
        told: list[object] = [self.exclude, self.one_file_system, self.streams]
        if self.sealed_by is not None:
            told.append(self.sealed_by)
        said = json.dumps(told)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Split:
    """How a path is divided.

    Attributes:
        number: Rises with each split of a path of a client, so that no two have a stream in common.
        taken: The directories of each named stream, relative to the path; none: it is one stream.
        sizes: What they had when it was made, the rest at last.
    """

    number: int
    taken: Taken
    sizes: tuple[int, ...] = ()


UNDIVIDED: Final = Split(0, ())


def streams_of(key: SplitKey, split: Split) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The streams of a split: what each is called, and its rules, those of the policy among them.

    A name is a part of the name of a source, and one of a kind for its client and path.
    """
    root = key.path.rstrip("/")
    others = [one for directories in split.taken for one in directories]
    # What begins so may be what a rule of the policy leaves out: that rule has the last word.
    policy_last = any(prefix_of(one) is not None for one in others)
    for number, directories in enumerate(split.taken, 1):
        only = tuple(_only(root, directories))
        rules = (*only, *key.exclude) if policy_last else (*key.exclude, *only)
        yield _name(split, f"stream-{number}"), rules
    without = tuple(f"{root}/{_pattern(one)}" for one in sorted(others))
    yield _name(split, REST), (*key.exclude, *without)


def _name(split: Split, stream: str) -> str:
    return f"split-{split.number}.{stream}"


def _only(root: str, directories: tuple[str, ...]) -> Iterator[str]:
    """Rules that leave out all but some directories; of rules the last that matches decides."""
    wanted: dict[str, set[str]] = {}
    for one in directories:
        parts = one.split("/")
        for end in range(len(parts)):
            above, name = "/".join(parts[:end]), parts[end]
            wanted.setdefault(above, set()).add(name)
    for above in sorted(wanted):
        place = f"{root}/{_literal(above)}" if above else root
        yield f"{place}/*"
        for name in sorted(wanted[above]):
            # What lies above a directory of the stream is the stream's only while it is one, too.
            leads_on = (f"{above}/{name}" if above else name) in wanted
            yield f"!{place}/{_pattern(name)}{'/' * leads_on}"


def _pattern(taken: str) -> str:
    prefix = prefix_of(taken)
    return _literal(taken) if prefix is None else f"{_literal(prefix)}*"


def _literal(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def can_divide(key: SplitKey) -> bool:
    """Whether rules can be made for a path: they are text, and mean the path as it is spelled."""
    return key.streams > 1 and key.path.isprintable() and _SPECIAL.search(key.path) is None


def may_be_by_prefix(key: SplitKey) -> bool:
    """Whether streams may take all that begins alike: rules that bring nothing back come last.

    How names begin that are sealed would tell which of them are alike.
    """
    return key.sealed_by is None and not any(rule.lstrip().startswith("!") for rule in key.exclude)


def require_fitting(key: SplitKey, taken: Taken) -> None:
    """Make sure that streams take nothing that rules of the policy leave out.

    Of sealed names only their client knows that, whose own data it is.

    Raises:
        Invalid: They would; whoever made the split did not look by these rules.
    """
    if key.sealed_by is not None:
        require_sealed(taken)
    if not may_be_by_prefix(key) and any(
        prefix_of(one) is not None for directories in taken for one in directories
    ):
        why = "names are sealed" if key.sealed_by else "rules bring something back"
        raise Invalid(f"streams are told by how names begin where {why}")
    if key.sealed_by is not None:
        return
    exclusion = Exclusion(key.path.encode(), key.exclude)
    for directories in taken:
        for one in directories:
            parts = one.split("/")
            # Of what begins so, rules may leave out some: they have the last word.
            for end in range(1, len(parts) + (prefix_of(one) is None)):
                if exclusion.leaves_out("/".join(parts[:end]).encode(), is_directory=True):
                    raise Invalid(f"a stream is to take '{one[:80]}', which rules leave out")
