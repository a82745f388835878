"""How a host joins: what is signed, and what becomes of what is not."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from perijove.model import ForbiddenError, OperatorError
from perijove_spawners.fabric.news import accept, news
from perijove_spawners.fabric.refused import REFUSED, serials_in, stamp
from perijove_spawners.fabric.renewing import expiring, renewed, take
from perijove_spawners.fabric.tls import (
    AUTHORITY,
    AUTHORITY_KEY,
    SHARED,
    Authority,
    Party,
    ensure_tls,
    load_tls,
    write_pair,
)
from perijove_spawners.joining import (
    Joined,
    JoinToken,
    answer_of,
    checked_answer,
    checked_request,
    request_of,
)
from perijove_spawners.membership import Membership, find_membership

PARTIES: tuple[Party, ...] = ("scheduler", "service", "node")
TOLD = Joined("n1", "tls://192.0.2.1:8786", "s3://bucket", "ab12cd")


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.at(tmp_path / "tls")


def test_a_token_is_read_as_it_was_printed_and_never_shown(authority: Authority) -> None:
    token = JoinToken.make(authority)
    assert JoinToken.parse(f" {token.text}\n") == token
    assert token.fingerprint == authority.fingerprint
    assert token.text.partition(".")[0].removeprefix("pjn_") not in repr(token)
    for wrong in ("", "pjn_", token.text[:-1], token.text[4:], token.text.replace(".", ""), f"{token.text}é"):
        with pytest.raises(OperatorError, match="copy all of its line") as refused:
            JoinToken.parse(wrong)
        assert not wrong or wrong not in str(refused.value)


def test_a_request_is_of_its_token_its_key_and_its_node(authority: Authority) -> None:
    token, mine = JoinToken.make(authority), key()
    asked = request_of(token, "n1", mine)
    hash_, public = checked_request(**asked)
    assert hash_ == token.hash
    assert public == mine.public_key()
    assert token.text.partition(".")[0].removeprefix("pjn_") not in json.dumps(asked)
    other = request_of(JoinToken.make(authority), "n1", key())
    altered = [
        {**asked, "node": "n2"},
        {**asked, "csr": other["csr"]},
        {**asked, "key": other["key"]},
        {**asked, "signature": other["signature"]},
        {**asked, "signature": "?"},
        {**asked, "key": ""},
        {**asked, "csr": "-----BEGIN CERTIFICATE REQUEST-----"},
    ]
    for one in altered:
        with pytest.raises(ForbiddenError):
            checked_request(**one)
    weak = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    with pytest.raises(ForbiddenError):
        checked_request(asked["node"], asked["csr"], weak, asked["signature"])


def test_an_answer_is_taken_from_the_pinned_authority_only(authority: Authority, tmp_path: Path) -> None:
    token, mine = JoinToken.make(authority), key()
    asked = request_of(token, "n1", mine)
    certificate = authority.issue(mine.public_key(), "node", "n1")
    answer = answer_of(authority, asked["csr"], certificate, TOLD)
    assert checked_answer(token, asked["csr"], mine, answer)[0] == TOLD

    stranger = Authority.at(tmp_path / "stranger")
    forged = answer_of(stranger, asked["csr"], stranger.issue(mine.public_key(), "node", "n1"), TOLD)
    with pytest.raises(OperatorError, match="not the service that the token is of"):
        checked_answer(token, asked["csr"], mine, forged)
    said = json.loads(answer["answer"])
    for changed in ({"store": "s3://theirs"}, {"scheduler": "tls://203.0.113.9:1"}, {"request": "0" * 64}):
        text = json.dumps({**said, **changed})
        with pytest.raises(OperatorError, match="not signed by it"):
            checked_answer(token, asked["csr"], mine, {**answer, "answer": text})
    wrong: list[Any] = [{}, [], {"answer": "{}", "signature": ""}, {"answer": 5, "signature": 5}]
    for broken in wrong:
        with pytest.raises(OperatorError):
            checked_answer(token, asked["csr"], mine, broken)
    # What was answered to another host, at another time, with another key.
    with pytest.raises(OperatorError, match="another request"):
        checked_answer(token, request_of(token, "n1", mine)["csr"], mine, answer)
    with pytest.raises(OperatorError, match="another request"):
        checked_answer(token, asked["csr"], key(), answer)


def test_a_node_belongs_where_it_joined(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="give --join URL"):
        find_membership(tmp_path, Membership("n1"))
    given = find_membership(tmp_path, Membership("n1", "tls://h:1"))
    assert given == Membership("n1", "tls://h:1", tmp_path / "tls", "", "")
    (tmp_path / "joined.json").write_text(
        json.dumps({"node": "n1", "scheduler": "tls://h:2", "store": "s3://b", "installation": "i"})
    )
    # Joined already: neither the URL nor a token is looked at any more.
    found = find_membership(tmp_path, Membership(store="s3://mine"), "http://127.0.0.1:1", "/no/such/file")
    assert found == Membership("n1", "tls://h:2", tmp_path / "tls", "s3://mine", "i")
    with pytest.raises(OperatorError, match="is of the node n1"):
        find_membership(tmp_path, Membership("n2"))
    (tmp_path / "joined.json").write_text("{}")
    with pytest.raises(OperatorError, match="join anew"):
        find_membership(tmp_path, Membership())


def test_each_party_has_a_key_of_its_own_that_strict_verification_accepts(tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    for party in PARTIES:
        ensure_tls(tls, party)
    kept = {path.name: path.read_bytes() for path in tls.iterdir()}
    for party in PARTIES:
        ensure_tls(tls, party)
    assert kept == {path.name: path.read_bytes() for path in tls.iterdir()}
    assert set(kept) == {AUTHORITY, AUTHORITY_KEY, "scheduler.pem", "service.pem", "node.pem", "lock"}
    assert tls.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in tls.iterdir()} == {0o600}
    assert handshake(tls, server="scheduler.pem", client="service.pem") == "TLSv1.3"
    assert handshake(tls, server="node.pem", client="scheduler.pem") == "TLSv1.3"
    with pytest.raises(ssl.SSLError):  # who has the service's key cannot pretend to be the scheduler
        handshake(tls, server="service.pem", client="node.pem")


def test_what_is_about_to_expire_or_of_another_authority_is_made_anew(tmp_path: Path) -> None:
    tls, mine = tmp_path / "tls", key()
    authority = Authority.at(tls)
    soon = authority.issue(mine.public_key(), "service", "service", life=datetime.timedelta(days=300))
    for other in (soon, Authority.at(tmp_path / "other").issue(mine.public_key(), "service", "service")):
        write_pair(tls / "service.pem", other, mine)
        ensure_tls(tls, "service")
        made = x509.load_pem_x509_certificate((tls / "service.pem").read_bytes())
        made.verify_directly_issued_by(authority.certificate)
        assert made != other
    (tls / "service.pem").write_bytes(b"half")
    ensure_tls(tls, "service")
    assert handshake(tls, server="service.pem", client="service.pem", strict=False) == "TLSv1.3"


def test_a_node_with_the_shared_key_of_an_earlier_version_works_on(tmp_path: Path) -> None:
    old = tmp_path / "old"
    authority = Authority.at(old)  # the shared pair was its own authority too
    shared = (old / AUTHORITY).read_bytes() + (old / AUTHORITY_KEY).read_bytes()
    remote, tls = tmp_path / "remote", tmp_path / "tls"
    for directory in (remote, tls):
        directory.mkdir(mode=0o700)
        (directory / SHARED).write_bytes(shared)
    ensure_tls(tls, "scheduler")
    assert Authority.at(tls).fingerprint == authority.fingerprint
    assert load_tls(remote).get_tls_config_for_role("worker")["ca_file"] == str(remote / SHARED)
    server, client = context(tls, "scheduler.pem", server=True), context(remote, SHARED, ca=SHARED)
    assert shake(server, client) == "TLSv1.3"
    with pytest.raises(FileNotFoundError, match="perijove node --join"):
        load_tls(tmp_path / "none")


def context(directory: Path, pair: str, *, server: bool = False, ca: str = AUTHORITY) -> ssl.SSLContext:
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose, cafile=str(directory / ca))
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain(directory / pair)
    return made


def handshake(directory: Path, *, server: str, client: str, strict: bool = True) -> str | None:
    ends = context(directory, server, server=True), context(directory, client)
    if not strict:
        ends[1].verify_mode = ssl.CERT_NONE
    return shake(*ends)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="perijove"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert all(end.getpeercert(binary_form=True) is not None for end in ends)
    return ends[0].version()


def test_refused_certificates_open_no_link_and_others_do(tmp_path: Path) -> None:
    tls, far = tmp_path / "tls", tmp_path / "far"
    authority = Authority.at(tls)
    far.mkdir(mode=0o700)
    for name in ("n1", "n2"):
        mine = key()
        write_pair(tls / f"{name}.pem", authority.issue(mine.public_key(), "node", name), mine)
    ensure_tls(tls, "scheduler")
    serials = {
        name: x509.load_pem_x509_certificate((tls / f"{name}.pem").read_bytes()).serial_number
        for name in ("n1", "n2")
    }
    assert shake(listening(tls), context(tls, "n1.pem")) == "TLSv1.3"
    (far / AUTHORITY).write_bytes((tls / AUTHORITY).read_bytes())
    assert authority.refuse(tls, [serials["n1"]]) and not authority.refuse(tls, [serials["n1"]])
    first = news(tls)
    with pytest.raises(ssl.SSLError, match="revoked"):
        shake(listening(tls), context(tls, "n1.pem"))
    assert shake(listening(tls), context(tls, "n2.pem")) == "TLSv1.3"
    # What another host is told: only by the authority, and never an older list.
    stranger = Authority.at(tmp_path / "stranger")
    stranger.refuse(tmp_path / "stranger", [serials["n2"]])
    assert (
        not accept(far, news(tmp_path / "stranger")) and not accept(far, b"") and not accept(far, first[:-30])
    )
    forged = first.partition(b"-----BEGIN X509 CRL")[0] + stamp(tmp_path / "stranger")
    assert not accept(far, forged) and not (far / REFUSED).exists()
    assert accept(far, first) and not accept(far, first)
    authority.refuse(tls, [serials["n2"]])
    assert accept(far, news(tls)) and not accept(far, first)
    assert serials_in(far) == serials_in(tls) == set(serials.values())
    assert (far / REFUSED).stat().st_mode & 0o777 == 0o600


def test_an_authority_of_an_earlier_version_may_refuse_too(tmp_path: Path) -> None:
    authority = Authority.at(tmp_path)
    mine, private = key(), authority._key
    write_pair(tmp_path / "node.pem", authority.issue(mine.public_key(), "node", "n1"), mine)
    old = authority.certificate
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
    usage |= dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
    made = x509.CertificateBuilder(old.issuer, old.subject, private.public_key(), 7)
    made = made.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(
        x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True
    )
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    shared = made.sign(private, SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / AUTHORITY).write_bytes(shared)
    (tmp_path / SHARED).write_bytes(shared + (tmp_path / AUTHORITY_KEY).read_bytes())
    again = Authority.at(tmp_path)
    assert again.fingerprint == authority.fingerprint
    ensure_tls(tmp_path, "scheduler")
    for pair in ("node.pem", SHARED):
        assert shake(listening(tmp_path), context(tmp_path, pair)) == "TLSv1.3"
    again.refuse(tmp_path, [12345])
    assert shake(listening(tmp_path), context(tmp_path, "node.pem")) == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        shake(listening(tmp_path), context(tmp_path, SHARED))


def test_a_nodes_certificate_is_made_anew_for_its_key_and_its_name_alone(tmp_path: Path) -> None:
    tls, far, now = tmp_path / "tls", tmp_path / "far", datetime.datetime.now(datetime.UTC)
    authority, mine = Authority.at(tls), key()
    far.mkdir(mode=0o700)
    (far / AUTHORITY).write_bytes((tls / AUTHORITY).read_bytes())

    def given(days: int, party: Party = "node") -> bytes:
        made = authority.issue(mine.public_key(), party, "n1", life=datetime.timedelta(days=days))
        write_pair(far / "node.pem", made, mine)
        return made.public_bytes(Encoding.PEM)

    given(400)
    assert expiring(far, now) is None and expiring(tls, now) is None
    old = given(300)
    assert expiring(far, now) == old
    name, made = renewed(authority, tls, old)
    assert (name, made.public_key()) == ("n1", mine.public_key())
    assert made.not_valid_after_utc - now > datetime.timedelta(days=4 * 365)
    stranger = Authority.at(tmp_path / "stranger")
    others = stranger.issue(mine.public_key(), "node", "n1").public_bytes(Encoding.PEM)
    keys = authority.issue(key().public_key(), "node", "n1").public_bytes(Encoding.PEM)
    for wrong in (others, keys, b""):
        assert not take(far, wrong)
    assert take(far, made.public_bytes(Encoding.PEM)) and expiring(far, now) is None
    ensure_tls(tls, "scheduler")
    write_pair(tls / "far.pem", made, mine)
    assert shake(listening(tls), context(tls, "far.pem")) == "TLSv1.3"
    authority.refuse(tls, [made.serial_number])
    bad = [others, given(300, "service"), given(-1), made.public_bytes(Encoding.PEM), b"", b"x"]
    for one in bad:
        with pytest.raises(ForbiddenError, match=r"no certificate|is refused"):
            renewed(authority, tls, one)


def listening(directory: Path) -> ssl.SSLContext:
    made = ensure_tls(directory, "scheduler").get_listen_args("scheduler")["ssl_context"]
    assert isinstance(made, ssl.SSLContext)
    return made
