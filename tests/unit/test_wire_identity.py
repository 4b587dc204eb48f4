"""Who gets a certificate, what it says, and who is let in with it."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.base.errors import HoldfastError, Invalid, NotAuthenticated
from holdfast.wire.identity import (
    Authority,
    EnrollmentToken,
    Identity,
    MachineKey,
    MachineRole,
    client_context,
    first_context,
    identity_of,
    key_fingerprint,
    machine_name,
    secret_hash,
    server_context,
    use,
    valid_between,
)
from holdfast.wire.identity.holder import load_key
from holdfast.wire.peer import IS_REVOKED, SITE_ID, peer_of
from holdfast.wire.problem import as_problems, error_of

SITE = "0123456789abcdef0123456789abcdef"
OTHER_SITE = "f" * 32
WEEK = timedelta(days=7)
PEM = serialization.Encoding.PEM


def now() -> datetime:
    return datetime.now(UTC)


def identity(
    authority: Authority,
    role: MachineRole = MachineRole.AGENT,
    name: str = "web1",
    *,
    at: datetime | None = None,
    shown_by: Authority | None = None,
) -> Identity:
    key = MachineKey.generate()
    issued = authority.issue(key.csr_pem(), role, name, at or now(), WEEK)
    judge = (shown_by or authority).certificate_pem
    return Identity(role, machine_name(name), authority.site_id, issued.pem, key, judge)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(SITE, now())


@pytest.fixture(scope="module")
def master(authority: Authority) -> Identity:
    return identity(authority, MachineRole.MASTER, "master")


async def who(
    master: Identity,
    context: ssl.SSLContext,
    revoked: frozenset[str] = frozenset(),
    require_client: bool = False,
) -> dict[str, Any]:
    """What a master answers to whoever comes with a context."""

    async def tell(request: web.Request) -> web.Response:
        peer = peer_of(request, {MachineRole.AGENT, MachineRole.MEDIA})
        return web.json_response({"name": peer.name, "role": peer.role, "serial": peer.serial})

    app = web.Application(middlewares=[as_problems])
    app[SITE_ID] = SITE
    app[IS_REVOKED] = revoked.__contains__
    app.router.add_get("/who", tell)
    runner = web.AppRunner(app)
    await runner.setup()
    served = server_context(master, require_client=require_client)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/who", ssl=context) as answer,
        ):
            body = await answer.read()
            if answer.status != 200:
                raise error_of(answer.status, body)
            found: dict[str, Any] = json.loads(body)
            return found
    finally:
        await runner.cleanup()


def asked(master: Identity, context: ssl.SSLContext, **more: Any) -> dict[str, Any]:
    return asyncio.run(who(master, context, **more))


def test_a_certificate_says_who_has_it(authority: Authority) -> None:
    issued = authority.issue(MachineKey.generate().csr_pem(), MachineRole.MEDIA, "m.1", now(), WEEK)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    peer = identity_of(certificate.public_bytes(serialization.Encoding.DER))
    assert peer == issued.peer
    assert (peer.site_id, peer.role, peer.name) == (SITE, MachineRole.MEDIA, "m.1")
    assert peer.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert int(peer.serial, 16) == certificate.serial_number


def test_what_a_request_asks_for_is_not_what_is_issued(authority: Authority) -> None:
    key = MachineKey.generate()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "master")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"holdfast://{SITE}/master/master")]
            ),
            critical=False,
        )
        .sign(load_key(key.pem), hashes.SHA256())
        .public_bytes(PEM)
    )
    issued = authority.issue(greedy, MachineRole.AGENT, "web1", now(), WEEK)
    assert (issued.peer.role, issued.peer.name) == (MachineRole.AGENT, "web1")
    certificate = x509.load_pem_x509_certificate(issued.pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not constraints.ca
    assert not usage.key_cert_sign
    assert len(certificate.extensions) == 6


def test_a_request_that_another_signed_is_refused(authority: Authority) -> None:
    good = x509.load_pem_x509_csr(MachineKey.generate().csr_pem())
    broken = bytearray(good.public_bytes(serialization.Encoding.DER))
    broken[-5] ^= 1
    pem = x509.load_der_x509_csr(bytes(broken)).public_bytes(PEM)
    with pytest.raises(Invalid, match="signed"):
        authority.issue(pem, MachineRole.AGENT, "web1", now(), WEEK)


@pytest.mark.parametrize("given", [b"", b"rubbish", b"x" * 20_000])
def test_what_is_no_request_is_refused(authority: Authority, given: bytes) -> None:
    with pytest.raises(Invalid):
        authority.issue(given, MachineRole.AGENT, "web1", now(), WEEK)


def test_a_key_of_another_kind_is_refused(authority: Authority) -> None:
    keys = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())
    for key in keys:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = request.sign(key, hashes.SHA256()).public_bytes(PEM)
        with pytest.raises(Invalid, match="P-256"):
            authority.issue(pem, MachineRole.AGENT, "web1", now(), WEEK)


@pytest.mark.parametrize("name", ["", "a/b", "../master", "a b", "web1\n", "é", "x" * 64, ".x"])
def test_a_name_that_would_say_something_else_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(Invalid):
        authority.issue(MachineKey.generate().csr_pem(), MachineRole.AGENT, name, now(), WEEK)


def test_a_certificate_ends_before_its_authority(authority: Authority) -> None:
    for_ever = timedelta(days=100_000)
    issued = authority.issue(
        MachineKey.generate().csr_pem(), MachineRole.AGENT, "a", now(), for_ever
    )
    assert valid_between(issued.pem)[1] == valid_between(authority.certificate_pem)[1]


def test_an_authority_is_taken_up_again(authority: Authority) -> None:
    again = Authority(authority.certificate_pem, authority.key)
    assert again.site_id == SITE
    with pytest.raises(Invalid, match="not that of"):
        Authority(authority.certificate_pem, MachineKey.generate())


def test_a_key_is_known_by_its_fingerprint() -> None:
    key = MachineKey.generate()
    assert key_fingerprint(key.csr_pem()) == key_fingerprint(key.csr_pem())
    assert key_fingerprint(key.csr_pem()) != key_fingerprint(MachineKey.generate().csr_pem())
    assert "PRIVATE" not in repr(key)


def certificate_with(names: list[x509.GeneralName]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now())
        .not_valid_after(now() + WEEK)
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [f"holdfast://{SITE}/agent/a", f"holdfast://{SITE}/master/a"],
        [f"holdfast://{SITE}/king/a"],
        [f"holdfast://{SITE}/agent/a/b"],
        [f"holdfast://{SITE}/agent/"],
        ["holdfast://site/agent/a"],
        [f"https://{SITE}/agent/a"],
        [f"holdfast://{SITE}/agent/a?x"],
    ],
)
def test_a_certificate_that_names_no_machine_is_nobodys(uris: list[str]) -> None:
    with pytest.raises(NotAuthenticated):
        identity_of(certificate_with([x509.UniformResourceIdentifier(one) for one in uris]))


def test_a_name_of_a_host_beside_the_address_makes_it_nobodys() -> None:
    names = [x509.UniformResourceIdentifier(f"holdfast://{SITE}/agent/a"), x509.DNSName("a")]
    with pytest.raises(NotAuthenticated):
        identity_of(certificate_with(names))
    with pytest.raises(NotAuthenticated):
        identity_of(b"rubbish")


def test_a_machine_of_the_site_is_known(authority: Authority, master: Identity) -> None:
    one = identity(authority)
    found = asked(master, client_context(one), require_client=True)
    assert (found["name"], found["role"]) == ("web1", "agent")


def test_who_shows_nothing_is_told_so(authority: Authority, master: Identity) -> None:
    with pytest.raises(NotAuthenticated, match="takes a certificate"):
        asked(master, first_context(authority.certificate_pem))


def test_who_was_revoked_is_told_so(authority: Authority, master: Identity) -> None:
    one = identity(authority)
    serial = asked(master, client_context(one))["serial"]
    with pytest.raises(NotAuthenticated, match="revoked"):
        asked(master, client_context(one), revoked=frozenset({serial}))


def test_a_role_that_is_not_wanted_is_refused(authority: Authority, master: Identity) -> None:
    other = identity(authority, MachineRole.MASTER, "other")
    with pytest.raises(HoldfastError, match="may not do that"):
        asked(master, client_context(other))


def test_a_certificate_of_another_site_is_refused(authority: Authority, master: Identity) -> None:
    elsewhere = Authority.create(OTHER_SITE, now())
    # It does look like a master of ours to them: it is the door that has to refuse.
    stranger = replace(identity(elsewhere, shown_by=authority), site_id=SITE)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        asked(master, client_context(stranger))


def test_an_authority_of_the_same_words_but_another_key_is_refused(
    authority: Authority, master: Identity
) -> None:
    impostor = identity(Authority.create(SITE, now()), shown_by=authority)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        asked(master, client_context(impostor))


def test_a_certificate_that_a_machine_signed_is_refused(
    authority: Authority, master: Identity
) -> None:
    one = identity(authority)
    holder = x509.load_pem_x509_certificate(one.certificate_pem)
    key = MachineKey.generate()
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(holder.subject)
        .public_key(load_key(key.pem).public_key())
        .serial_number(8)
        .not_valid_before(now() - WEEK)
        .not_valid_after(now() + WEEK)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"holdfast://{SITE}/agent/db1")]
            ),
            critical=False,
        )
        .sign(load_key(one.key.pem), hashes.SHA256())
        .public_bytes(PEM)
    )
    chain = forged + one.certificate_pem
    impostor = Identity(MachineRole.AGENT, machine_name("db1"), SITE, chain, key, one.authority_pem)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        asked(master, client_context(impostor))


def test_an_expired_certificate_is_refused(authority: Authority, master: Identity) -> None:
    old = identity(authority, at=now() - WEEK - timedelta(minutes=1))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        asked(master, client_context(old))


def test_an_agent_can_not_pose_as_the_master(authority: Authority) -> None:
    impostor = identity(authority, MachineRole.AGENT, "master")
    one = identity(authority)
    for context in (client_context(one), first_context(authority.certificate_pem, SITE)):
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="not a master"):
            asked(impostor, context)


def test_a_master_of_another_site_is_not_spoken_to(authority: Authority) -> None:
    elsewhere = Authority.create(OTHER_SITE, now())
    stranger = identity(elsewhere, MachineRole.MASTER, "master")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        asked(stranger, client_context(identity(authority)))


def test_older_tls_is_refused(authority: Authority, master: Identity) -> None:
    context = client_context(identity(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientError):
        asked(master, context)


def test_a_certificate_is_exchanged_while_a_context_is_in_use(
    authority: Authority, master: Identity
) -> None:
    one = identity(authority)
    context = client_context(one)
    before = asked(master, context)["serial"]
    issued = authority.issue(one.key.csr_pem(), one.role, one.name, now(), WEEK)
    newer = Identity(one.role, one.name, SITE, issued.pem, one.key, one.authority_pem)
    use(context, newer)
    assert asked(master, context)["serial"] == issued.peer.serial != before


def test_a_key_that_is_anothers_can_not_be_used(authority: Authority) -> None:
    one = identity(authority)
    wrong = Identity(
        one.role, one.name, SITE, one.certificate_pem, MachineKey.generate(), one.authority_pem
    )
    with pytest.raises(Invalid, match="can't be used"):
        client_context(wrong)


def test_a_token_is_text_that_names_its_authority(authority: Authority) -> None:
    token = EnrollmentToken.generate(authority.certificate_pem)
    again = EnrollmentToken.parse(f"  {token.text()}\n")
    assert again == token
    assert again.is_of(authority.certificate_pem)
    assert not again.is_of(Authority.create(SITE, now()).certificate_pem)
    assert token.secret not in repr(token)
    assert token.secret not in secret_hash(token.secret)


@pytest.mark.parametrize("text", ["", "hfe1", "hfe1.a.b", "hf_abc", "hfe2." + "a" * 32 + ".b"])
def test_what_is_no_token_is_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as told:
        EnrollmentToken.parse(text + "secret")
    assert "secret" not in told.value.message


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"code": 1, "message": 2}', b"\xff"])
def test_an_answer_that_is_no_problem_is_still_an_error(body: bytes) -> None:
    assert error_of(502, body).code == "unreachable"
