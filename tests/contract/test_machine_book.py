"""Authority, tokens for joining and machines, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast.base.errors import (
    AlreadyExists,
    Forbidden,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    NotFound,
    WrongKey,
    WrongState,
)
from holdfast.base.ids import ClientName
from holdfast.control.access import AuditLog
from holdfast.control.machines import MachineBook, Said
from holdfast.control.machines.schema import authority, enrollment_tokens
from holdfast.control.policies import PolicyBook
from holdfast.wire.identity import EnrollmentToken, MachineKey, MachineRole, identity_of
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from holdfast.control.database import Database
    from holdfast.wire.identity import Authority, Peer

POOL_KEY = b"k" * 32
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
AGENT = MachineRole.AGENT
WEB1 = ClientName("web1")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def audit(database: Database, clock: FakeClock) -> AuditLog:
    return AuditLog(database, clock)


@pytest.fixture
def book(database: Database, clock: FakeClock, audit: AuditLog) -> MachineBook:
    return MachineBook(database, clock, audit, [ClientName("Here")])


@pytest.fixture
def ca(book: MachineBook) -> Authority:
    return book.authority(POOL_KEY)


def invited(book: MachineBook, name: str | None = None, **more: Any) -> str:
    given: dict[str, Any] = {"role": AGENT, "valid": HOUR, "who": "alice"} | more
    return book.invite(name=name, **given)[1].secret


def enrolled(
    book: MachineBook,
    ca: Authority,
    secret: str,
    name: str = "web1",
    key: MachineKey | None = None,
    role: MachineRole = AGENT,
) -> Peer:
    csr = (key or MachineKey.generate()).csr_pem()
    pem = book.enroll(
        ca,
        secret=secret,
        csr_pem=csr,
        role=role,
        name=ClientName(name),
        life=WEEK,
        details={"from": "192.0.2.1"},
    )
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return identity_of(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))


def test_an_authority_is_made_once_and_is_sealed(
    book: MachineBook, database: Database, ca: Authority
) -> None:
    again = book.authority(POOL_KEY)
    assert again.certificate_pem == ca.certificate_pem == book.authority_pem()
    assert again.key == ca.key
    with database.read() as connection:
        row = connection.execute(sa.select(authority)).one()
    assert b"PRIVATE" not in row.sealed_key
    assert ca.key.pem[40:80] not in row.sealed_key
    with pytest.raises(WrongKey):
        book.authority(b"x" * 32)


def test_many_who_ask_first_get_one_authority(
    database: Database, clock: FakeClock, audit: AuditLog
) -> None:
    found: list[bytes] = []

    def ask() -> None:
        found.append(MachineBook(database, clock, audit).authority(POOL_KEY).certificate_pem)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_nobody_is_invited_to_a_site_that_takes_no_machines(book: MachineBook) -> None:
    with pytest.raises(WrongState, match="takes no machines"):
        invited(book)


def test_a_machine_joins_and_is_known(
    book: MachineBook, ca: Authority, audit: AuditLog, database: Database, clock: FakeClock
) -> None:
    secret = invited(book)
    peer = enrolled(book, ca, secret)
    assert (peer.name, peer.role, peer.site_id) == ("web1", AGENT, ca.site_id)
    (one,) = book.machines(limit=10)
    assert (one.name, one.role, one.enrollment, one.revoked_at) == ("web1", AGENT, 1, None)
    assert one.enrolled_at == clock.now()
    assert one.certificate_until == clock.now() + WEEK
    standing = book.standing()
    assert standing.serials == {peer.serial: "web1"}
    assert standing.agents == {"web1"}
    (row,) = audit.rows(limit=10)
    assert (row.entry.who, row.entry.what, row.entry.about) == (
        "machine:web1",
        "enroll",
        "machines/web1",
    )
    assert secret not in row.entry.details
    policies = PolicyBook(database, clock, [ClientName("here")])
    assert policies.known_clients().names == ("here", "web1")
    assert policies.known_clients().matching("web*") == ("web1",)


def test_what_is_stored_of_a_token_lets_nobody_in(
    book: MachineBook, ca: Authority, database: Database
) -> None:
    secret = invited(book)
    with database.read() as connection:
        row = connection.execute(sa.select(enrollment_tokens)).one()
    assert all(secret not in str(value) for value in row)
    with pytest.raises(NotAuthenticated):
        enrolled(book, ca, row.secret_hash)


def test_a_token_lets_one_machine_in(book: MachineBook, ca: Authority) -> None:
    secret = invited(book)
    enrolled(book, ca, secret)
    with pytest.raises(NotAuthenticated, match=r"used already.*by 'web1'"):
        enrolled(book, ca, secret, "web2")
    with pytest.raises(NotAuthenticated, match="used already"):
        enrolled(book, ca, secret)


def test_who_lost_the_answer_asks_again_with_the_same_key(book: MachineBook, ca: Authority) -> None:
    secret, key = invited(book), MachineKey.generate()
    first = enrolled(book, ca, secret, key=key)
    assert enrolled(book, ca, secret, key=key) == first
    with pytest.raises(NotAuthenticated):
        enrolled(book, ca, secret, "web2", key=key)
    book.revoke(WEB1)
    with pytest.raises(NotAuthenticated):
        enrolled(book, ca, secret, key=key)


def test_of_many_at_once_one_gets_in(book: MachineBook, ca: Authority) -> None:
    secret = invited(book)
    outcomes: list[str] = []

    def join(name: str) -> None:
        try:
            outcomes.append(enrolled(book, ca, secret, name).name)
        except HoldfastError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=join, args=(f"web{number}",)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert outcomes.count("not-authenticated") == 5
    assert len(book.machines(limit=10)) == 1


def test_a_token_expires(book: MachineBook, ca: Authority, clock: FakeClock) -> None:
    secret = invited(book)
    clock.move(HOUR)
    with pytest.raises(NotAuthenticated, match="expired"):
        enrolled(book, ca, secret)


def test_a_token_is_for_a_role_and_may_be_for_a_name(book: MachineBook, ca: Authority) -> None:
    media = invited(book, role=MachineRole.MEDIA)
    with pytest.raises(Invalid, match="role 'media'"):
        enrolled(book, ca, media)
    assert enrolled(book, ca, media, "m1", role=MachineRole.MEDIA).role is MachineRole.MEDIA
    assert book.standing().agents == frozenset()
    named = invited(book, "db1")
    with pytest.raises(Forbidden, match="for the name 'db1'"):
        enrolled(book, ca, named)
    assert enrolled(book, ca, named, "db1").name == "db1"


@pytest.mark.parametrize(
    "wrong",
    [{"role": MachineRole.MASTER}, {"valid": timedelta(seconds=1)}, {"valid": timedelta(days=31)}],
)
def test_a_token_that_makes_no_sense_is_not_made(
    book: MachineBook, ca: Authority, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        invited(book, **wrong)
    with pytest.raises(Invalid):
        invited(book, "a/b")


def test_nobody_gets_the_name_of_the_site_itself(book: MachineBook, ca: Authority) -> None:
    for name in ("Here", "here"):
        with pytest.raises(AlreadyExists):
            invited(book, name)
        with pytest.raises(AlreadyExists):
            enrolled(book, ca, invited(book), name)


def test_a_name_changes_hands_only_by_a_token_made_for_it(book: MachineBook, ca: Authority) -> None:
    for_it = invited(book, "web1")
    with pytest.raises(AlreadyExists, match="kept"):
        enrolled(book, ca, invited(book))
    old = enrolled(book, ca, for_it)
    with pytest.raises(AlreadyExists, match="already"):
        enrolled(book, ca, invited(book))
    with pytest.raises(AlreadyExists):
        enrolled(book, ca, invited(book), "WEB1")
    first, second = invited(book, "web1"), invited(book, "web1")
    new = enrolled(book, ca, first)
    assert book.standing().serials == {new.serial: "web1"}
    assert old.serial != new.serial
    assert book.machine("web1").enrollment == 2
    # The second was made for a machine that has been replaced since.
    with pytest.raises(AlreadyExists):
        enrolled(book, ca, second)


def test_a_client_of_whom_there_are_images_is_not_taken_over(
    book: MachineBook, ca: Authority, database: Database
) -> None:
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO clients (name) VALUES ('Old1')"))
    for name in ("Old1", "old1"):
        with pytest.raises(AlreadyExists, match="images of a client"):
            enrolled(book, ca, invited(book), name)
    assert enrolled(book, ca, invited(book, "Old1"), "Old1").name == "Old1"


def test_who_is_revoked_is_out_and_can_be_let_in_anew(
    book: MachineBook, ca: Authority, clock: FakeClock, database: Database
) -> None:
    peer = enrolled(book, ca, invited(book))
    stale = invited(book, "web1")
    clock.move(HOUR / 2)
    out = book.revoke(WEB1)
    assert out.revoked_at == clock.now()
    assert out.certificate_until is None
    assert book.revoke(WEB1) == out
    standing = book.standing()
    assert standing.serials == {}
    # What is backed up of it is still not of the machine that the master runs on.
    assert standing.agents == {"web1"}
    assert PolicyBook(database, clock).known_clients().names == ()
    with pytest.raises(NotAuthenticated):
        book.renew(ca, peer, MachineKey.generate().csr_pem(), WEEK)
    with pytest.raises(NotAuthenticated, match="expired"):
        enrolled(book, ca, stale)
    with pytest.raises(AlreadyExists):
        enrolled(book, ca, invited(book))
    again = enrolled(book, ca, invited(book, "web1"))
    assert book.standing().serials == {again.serial: "web1"}
    assert book.machine("web1").revoked_at is None
    with pytest.raises(NotFound):
        book.revoke(ClientName("web9"))


def test_a_certificate_is_renewed_and_older_ones_end(
    book: MachineBook, ca: Authority, clock: FakeClock, audit: AuditLog
) -> None:
    key = MachineKey.generate()
    first = enrolled(book, ca, invited(book), key=key)
    clock.move(timedelta(days=4))
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    def renewed(peer: Peer) -> Peer:
        pem = book.renew(ca, peer, key.csr_pem(), WEEK)
        return identity_of(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))

    second = renewed(first)
    assert set(book.standing().serials) == {first.serial, second.serial}
    third = renewed(first)
    assert set(book.standing().serials) == {first.serial, third.serial}
    with pytest.raises(NotAuthenticated):
        renewed(second)
    clock.move(timedelta(days=4))
    assert set(book.standing().serials) == {third.serial}
    assert [row.entry.what for row in audit.rows(limit=9)] == ["renew", "renew", "enroll"]


def test_what_a_machine_says_of_itself_is_kept_within_bounds(
    book: MachineBook, ca: Authority, clock: FakeClock
) -> None:
    enrolled(book, ca, invited(book))
    said = Said("holdfast\n1\x00" + "x" * 999, ("192.0.2.1",) * 99, ("/", "/srv\0"))
    book.hear({WEB1: said, ClientName("nobody"): said})
    one = book.machine("web1")
    assert one.last_seen_at == clock.now()
    assert "\n" not in one.software
    assert len(one.software) <= 200
    assert len(one.addresses) == 64
    assert one.drives == ("/", "/srv")
    assert book.standing().drives == {"web1": ("/", "/srv")}


def test_machines_come_in_pages(book: MachineBook, ca: Authority) -> None:
    for number in range(5):
        enrolled(book, ca, invited(book), f"web{number}")
    first = book.machines(limit=3)
    rest = book.machines(limit=3, after=first[-1].name)
    assert [one.name for one in first + rest] == [f"web{number}" for number in range(5)]
    for name in ("nobody", "a/b", "\0"):
        with pytest.raises(NotFound):
            book.machine(name)


def test_the_text_of_a_token_fits_its_authority(book: MachineBook, ca: Authority) -> None:
    _, token = book.invite(AGENT, HOUR, "alice")
    assert EnrollmentToken.parse(token.text()).is_of(ca.certificate_pem)
