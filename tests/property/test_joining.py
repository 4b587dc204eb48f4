"""Whoever joins, renews and is let out, in any order: nobody is two, nobody becomes another."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.base.errors import HoldfastError
from holdfast.base.ids import ClientName
from holdfast.control.access import AuditLog
from holdfast.control.machines import MachineBook
from holdfast.wire.identity import MachineKey, MachineRole, Peer, peer_of_pem
from tests.kit import quick_disk
from tests.kit.clock import FakeClock
from tests.kit.databases import new_file

NAMES = st.sampled_from(["web1", "web1", "web1", "web2", "WEB1", "here"])
KEYS = [MachineKey.generate() for _ in range(2)]
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
AGENT = MachineRole.AGENT


@dataclass
class Token:
    """What a test knows of a token.

    Attributes:
        secret: What lets in.
        name: For which name alone.
        seen: How often a machine of that name had joined when it was made.
        revoked: How often one of that name had been let out by then.
        expires_s: When it ends, in seconds from the beginning.
        used: The key and name that used it.
    """

    secret: str
    name: str | None
    seen: int
    revoked: int
    expires_s: float
    used: tuple[int, str] | None = None


class Joining(RuleBasedStateMachine):
    """The book of machines beside a model of who may be let in."""

    def __init__(self) -> None:
        super().__init__()
        self.path = quick_disk.make()
        self.database = new_file(self.path / "control.db")
        self.clock = FakeClock()
        audit = AuditLog(self.database, self.clock)
        self.book = MachineBook(self.database, self.clock, audit, [ClientName("here")])
        self.ca = self.book.authority(b"k" * 32)
        self.now_s = 0.0
        self.tokens: list[Token] = []
        self.joined: dict[str, int] = {}
        self.let_out: dict[str, int] = {}
        self.out: set[str] = set()
        self.live: dict[str, list[Peer]] = {}

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.path)

    @rule(name=st.none() | NAMES)
    def invite(self, name: str | None) -> None:
        try:
            _, token = self.book.invite(AGENT, HOUR, "a test", name)
        except HoldfastError:
            assert name == "here"
            return
        assert name != "here"
        seen, out = self.joined.get(name or "", 0), self.let_out.get(name or "", 0)
        self.tokens.append(Token(token.secret, name, seen, out, self.now_s + 3600))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), name=NAMES, key=st.integers(0, len(KEYS) - 1))
    def enroll(self, data: st.DataObject, name: str, key: int) -> None:
        self.use(data.draw(st.sampled_from(self.tokens)), name, key)

    @rule(name=NAMES, key=st.integers(0, len(KEYS) - 1), bound=st.booleans())
    def invite_and_enroll(self, name: str, key: int, bound: bool) -> None:
        before = len(self.tokens)
        self.invite(name if bound else None)
        if len(self.tokens) > before:
            self.use(self.tokens[-1], name, key)

    @rule(name=st.sampled_from(["web1", "web2"]), key=st.integers(0, len(KEYS) - 1))
    def enroll_with_each_of_two_tokens_for_a_name(self, name: str, key: int) -> None:
        self.invite(name)
        self.invite(name)
        for token in self.tokens[-2:]:
            self.use(token, name, key)

    @precondition(lambda self: any(one.used for one in self.tokens))
    @rule(name=NAMES, key=st.integers(0, len(KEYS) - 1))
    def enroll_with_a_used_token(self, name: str, key: int) -> None:
        self.use([one for one in self.tokens if one.used][-1], name, key)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), key=st.integers(0, len(KEYS) - 1))
    def enroll_as_it_was_meant(self, data: st.DataObject, key: int) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        self.use(token, token.name or "web1", key)

    def use(self, token: Token, name: str, key: int) -> None:
        again = token.used == (key, name)
        try:
            pem = self.book.enroll(
                self.ca,
                secret=token.secret,
                csr_pem=KEYS[key].csr_pem(),
                role=AGENT,
                name=ClientName(name),
                life=WEEK,
                details={},
            )
        except HoldfastError:
            assert not self.may(token, name)
            return
        peer = peer_of_pem(pem)
        assert peer.name == name
        if again:
            # The same certificate as before, and only while it counts.
            assert peer in self.live[name]
            return
        assert self.may(token, name)
        token.used = key, name
        self.joined[name] = self.joined.get(name, 0) + 1
        self.live[name] = [peer]
        self.out.discard(name)

    def may(self, token: Token, name: str) -> bool:
        if token.used is not None or self.now_s >= token.expires_s or name == "here":
            return False
        if any(other != name and other.casefold() == name.casefold() for other in self.joined):
            return False
        if token.name is not None:
            now = self.joined.get(name, 0), self.let_out.get(name, 0)
            # One who is let out takes the tokens that were made for the name along.
            return token.name == name and (token.seen, token.revoked) == now
        kept = any(
            one.name is not None
            and one.name.casefold() == name.casefold()
            and one.used is None
            and self.now_s < one.expires_s
            and one.revoked == self.let_out.get(one.name, 0)
            for one in self.tokens
        )
        return name not in self.joined and not kept

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data(), key=st.integers(0, len(KEYS) - 1))
    def renew(self, data: st.DataObject, key: int) -> None:
        peer = data.draw(st.sampled_from([one for some in self.live.values() for one in some]))
        pem = self.book.renew(self.ca, peer, KEYS[key].csr_pem(), WEEK)
        self.live[peer.name] = [peer, peer_of_pem(pem)]

    @precondition(lambda self: self.joined)
    @rule(data=st.data())
    def let_somebody_out(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.joined)))
        self.book.revoke(ClientName(name))
        self.let_out[name] = self.let_out.get(name, 0) + 1
        self.out.add(name)
        self.live[name] = []

    @rule(minutes=st.sampled_from([1, 61]))
    def time_passes(self, minutes: int) -> None:
        self.clock.move(timedelta(minutes=minutes))
        self.now_s += minutes * 60

    @invariant()
    def who_is_let_in_is_who_should_be(self) -> None:
        now_ns = self.clock.now_ns()
        wanted = {
            one.serial: one.name
            for some in self.live.values()
            for one in some
            if one.expires_ns > now_ns
        }
        standing = self.book.standing()
        assert dict(standing.serials) == wanted
        assert standing.agents == set(self.joined)
        there = {one.name: one for one in self.book.machines(limit=10)}
        assert {name: one.enrollment for name, one in there.items()} == self.joined
        assert {name for name, one in there.items() if one.revoked_at is not None} == self.out


TestJoining = Joining.TestCase
TestJoining.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
