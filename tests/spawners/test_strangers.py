"""Strangers on the network: they neither join, nor submit, nor read, from the scheduler or from any node."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cluster import Cluster, cluster
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from distributed.comm.core import connect
from distributed.core import rpc
from waiting import until, wait_until

from perijove_spawners.fabric.tls import AUTHORITY, Authority, ensure_tls, write_pair
from perijove_spawners.joining import JoinToken, request_of

PATIENCE = 60
REFUSED = b"TLS handshake failed"
"""What Dask says of who has no certificate that holds."""
# Several processes start, on a machine that may be busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A service with two nodes on which nothing was set up but a token."""
    folder = tmp_path_factory.mktemp("strangers")
    for parent in (folder, *folder.parents[:2]):  # jobs of other accounts pass through
        parent.chmod(0o755)
    with cluster(folder) as made:
        made.scheduler()
        made.service()
        wait_until(lambda: answers(made), "the service", 180)
        for name in ("n1", "n2"):
            made.joining(name, token_of(made, name), "--cpus", "2", "--memory", "4G")
        made.ready(nodes=2, seconds=120)
        yield made


def answers(site: Cluster) -> bool:
    try:
        with site.client() as http:
            return http.get("/me").status_code == 200
    except httpx.TransportError:
        return False


def token_of(site: Cluster, node: str) -> str:
    with site.client() as http:
        answer = http.post("/nodes/join-tokens", json={"node": node})
    assert answer.status_code == 201, answer.text
    assert answer.json()["reachable"] is False  # the scheduler listens for this host alone
    return str(answer.json()["token"])


def test_nodes_that_joined_run_jobs_and_keep_their_keys_to_themselves(site: Cluster) -> None:
    with site.client() as http:
        for name in ("n1", "n2"):
            spec = {"command": ["sh", "-c", "echo I am $PERIJOVE_NODE"], "node": name, "launcher": "process"}
            job = http.post("/jobs", json=spec).json()["id"]
            ended = wait_until(partial(ending, http, job), f"the end of {job}", PATIENCE)
            assert ended["state"] == "succeeded", ended
            assert http.get(f"/jobs/{job}/logs").text == f"I am {name}\n"
        tokens = http.get("/nodes/join-tokens").json()
        assert {(t["node"], t["used"] is not None, t["token"]) for t in tokens} >= {
            ("n1", True, None),
            ("n2", True, None),
        }
    keys = [(site.folder / name / "tls/node.pem").read_bytes() for name in ("n1", "n2")]
    assert keys[0] != keys[1]
    for name in ("n1", "n2"):
        folder = site.folder / name
        assert (folder / "tls").stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in (folder / "tls").iterdir()) == [AUTHORITY, "node.pem"]
        for path in (*(folder / "tls").iterdir(), folder / "joined.json"):
            assert path.stat().st_mode & 0o777 == 0o600, path


def ending(http: httpx.Client, job: int) -> dict[str, Any] | None:
    found: dict[str, Any] = http.get(f"/jobs/{job}").json()
    return found if found["state"] in {"succeeded", "failed", "killed", "lost"} else None


def test_a_token_is_good_once_for_one_node_and_opens_nothing_else(site: Cluster) -> None:
    text = token_of(site, "n3")
    token, key = JoinToken.parse(text), ec.generate_private_key(ec.SECP256R1())
    with site.client() as http:
        del http.headers["authorization"]
        wrong = http.post("/nodes/join", json=request_of(token, "n1", key))
        assert (wrong.status_code, wrong.json()["detail"]) == (
            403,
            "this token is not for a node named n1",
        )
        unknown = JoinToken(b"x" * 32, token.fingerprint)
        assert http.post("/nodes/join", json=request_of(unknown, "n3", key)).status_code == 403
        asked = request_of(token, "n3", key)
        assert http.post("/nodes/join", json=asked).status_code == 201
        replayed = http.post("/nodes/join", json=asked)
        assert (replayed.status_code, replayed.json()["detail"]) == (
            403,
            "this token has been used; have another one made",
        )
        pem = (site.folder / "n1/tls/node.pem").read_text().replace("\n", "")
        for secret in (text, token.hash, pem, token_of(site, "n4")):
            headers = {"Authorization": f"Bearer {secret}"}
            assert http.get("/jobs", headers=headers).status_code == 401
            assert http.post("/jobs", json={"command": ["true"]}, headers=headers).status_code == 401
    used = site.joining("n5", text, "--name", "n3")
    wait_until(lambda: not used.alive, "the end of a node whose token was used", PATIENCE)
    assert "the service refuses: this token has been used" in used.log.read_text()
    assert not (site.folder / "n5/tls").exists()


# ---- the links


def context(directory: Path, pair: str | None, *, trusts: Path | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(trusts or directory / AUTHORITY))
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE  # strangers care little for whom they talk to
    if pair is not None:
        made.load_cert_chain(directory / pair)
    return made


@pytest.fixture(scope="module")
def strangers(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext | None]:
    """Ways to knock without a certificate that holds."""
    folder, theirs = tmp_path_factory.mktemp("knocking"), site.state / "tls"
    key = ec.generate_private_key(ec.SECP256R1())
    ensure_tls(folder / "other", "service")
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
    day = datetime.timedelta(days=1)
    expired = Authority.at(theirs).issue(key.public_key(), "node", "n1", past, day)
    write_pair(folder / "expired.pem", expired, key)
    forged = Authority(key, Authority.at(theirs).certificate).issue(key.public_key(), "service", "service")
    write_pair(folder / "forged.pem", forged, key)
    other = folder / "other"
    self_signed = x509.load_pem_x509_certificate((other / AUTHORITY).read_bytes())
    (folder / "self.pem").write_bytes((other / AUTHORITY).read_bytes() + (other / "ca.key").read_bytes())
    assert self_signed.issuer == self_signed.subject
    ours = theirs / AUTHORITY
    return {
        "no certificate": context(theirs, None),
        "another authority's": context(other, "service.pem"),
        "signed by itself": context(folder, "self.pem", trusts=ours),
        "expired": context(folder, "expired.pem", trusts=ours),
        "signed by another key in the authority's name": context(folder, "forged.pem", trusts=ours),
        "no TLS": None,
    }


async def first_bytes(address: tuple[str, int], tls: ssl.SSLContext | None) -> bytes:
    """What a party of the links says to who knocks; it speaks first. Nothing when it hangs up."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*address, ssl=tls)
            writer.write(b"\x02" + bytes(63))
            return await reader.read(16)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


def listening(site: Cluster) -> set[tuple[str, int]]:
    """Where scheduler and nodes, with all their children, listen for TCP."""
    found = set()
    for name in ("scheduler", "n1", "n2"):
        process = site.processes[name]._process
        assert process is not None
        for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            for connection in one.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


async def speaks_http(host: str, port: int) -> bool:
    """Whether it does. If so, it has nothing to say."""
    place = f"[{host}]" if ":" in host else host
    async with httpx.AsyncClient(base_url=f"http://{place}:{port}", timeout=PATIENCE) as http:
        try:
            for path in ("/", "/status", "/info/main/workers.html", "/json/identity.json", "/metrics"):
                assert (await http.get(path)).status_code == 404, path
        except httpx.TransportError:
            return False
    return True


async def test_every_open_port_is_a_link_or_says_nothing_to_this_host_alone(
    site: Cluster, strangers: dict[str, ssl.SSLContext | None]
) -> None:
    links = []
    for ip, port in sorted(listening(site)):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(ip, ip)
        if not await speaks_http(host, port):
            links.append((host, port))
            continue
        assert ip in {"127.0.0.1", "::1"}, f"{ip}:{port}"
    assert len(links) >= 3  # the scheduler and two nodes
    member = context(site.state / "tls", "service.pem")
    for link in links:
        assert await first_bytes(link, member) != b""
        for how, stranger in strangers.items():
            assert await first_bytes(link, stranger) == b"", (link, how)


async def test_a_strangers_client_gets_no_connection_and_a_members_does(
    site: Cluster, tmp_path: Path
) -> None:
    stranger = ensure_tls(tmp_path / "tls", "service")
    member = ensure_tls(site.state / "tls", "service")
    async with rpc(site.scheduler_url, connection_args=member.get_connection_args("client")) as scheduler:
        known = await scheduler.identity(n_workers=-1)
    assert len(known["workers"]) == 2
    for address in (site.scheduler_url, *known["workers"]):
        for url, arguments in (
            (address, stranger.get_connection_args("client")),
            (address.replace("tls://", "tcp://"), {}),
        ):
            with pytest.raises(OSError, match=r"connect|closed|TLS|SSL"):
                await connect(url, timeout=1, **arguments)
        comm = await connect(address, timeout=PATIENCE, **member.get_connection_args("client"))
        await comm.close()


async def test_a_strangers_node_does_not_join(site: Cluster, tmp_path: Path) -> None:
    ensure_tls(tmp_path / "tls", "node")
    argv = ["node", "--name", "n9", "--state", str(site.folder / "n9"), "--gpus", "none"]
    argv += ["--scheduler", site.scheduler_url, "--tls", str(tmp_path / "tls")]
    log = site.processes["scheduler"].log
    before = log.read_bytes().count(REFUSED)
    process = site._add("n9", "perijove_hub", argv)
    await until(lambda: log.read_bytes().count(REFUSED) >= before + 2, "its being refused twice", PATIENCE)
    with site.client() as http:
        assert {view["node"]["name"] for view in http.get("/nodes").json()} == {"n1", "n2"}
    process.kill()


def test_what_is_secret_in_the_services_directory_is_its_own(site: Cluster) -> None:
    tls = site.state / "tls"
    assert tls.stat().st_mode & 0o777 == 0o700
    for path in tls.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.stat().st_uid == os.geteuid()
    log = "".join(path.read_text() for path in (site.folder / "log").iterdir())
    assert "PRIVATE KEY" not in log
    assert "pjn_" not in log


async def test_a_certificate_that_is_about_to_expire_is_made_anew(site: Cluster) -> None:
    pair = site.folder / "n1/tls/node.pem"
    key = load_pem_private_key(pair.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    authority, life = Authority.at(site.state / "tls"), datetime.timedelta(days=300)
    before = site.processes["n1"]
    before.end()
    write_pair(pair, authority.issue(key.public_key(), "node", "n1", life=life), key)
    before.start()
    year = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)
    await until(lambda: certificate(pair).not_valid_after_utc > year, "another certificate", PATIENCE)
    assert certificate(pair).public_key() == key.public_key()
    await until(lambda: names_up(site) == {"n1", "n2"}, "n1 being back", PATIENCE)
    with site.client() as http:
        said = http.get("/audit", params={"subject": "node n1", "act": "join"}).json()["entries"]
    assert said[0]["after"] == {"certificate": f"{certificate(pair).serial_number:x}", "renewed": True}


def certificate(pair: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.read_bytes())


async def test_a_node_in_the_wrong_hands_is_removed_and_what_it_has_open_ends(site: Cluster) -> None:
    key = context(site.folder / "n2/tls", "node.pem")
    n1, scheduler = address_of(site, "n1"), ("127.0.0.1", site.ports["scheduler"])
    for link in (n1, scheduler):
        assert await first_bytes(link, key) != b""
    reader, writer = await asyncio.open_connection(*scheduler, ssl=key)
    try:
        await reader.readexactly(8)
        removed_while_a_job_runs(site)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(OSError):
                while await reader.read(4096):
                    pass
    finally:
        writer.transport.abort()
    await until(lambda: (site.folder / "n1/tls/refused.pem").exists(), "n1 being told", PATIENCE)
    await until(lambda: names_up(site) == {"n1"}, "n1 alone being up", PATIENCE)
    for link in (address_of(site, "n1"), scheduler):
        assert await first_bytes(link, key) == b""
    with site.client() as http:
        spec = {"command": ["true"], "node": "n1", "launcher": "process"}
        job = http.post("/jobs", json=spec).json()["id"]
        ended = await until(partial(ending, http, job), f"the end of {job}", PATIENCE)
        assert ended["state"] == "succeeded", ended
    back = site.joining("n2b", token_of(site, "n2"), "--name", "n2", "--cpus", "2", "--memory", "4G")
    await until(lambda: names_up(site) == {"n1", "n2"}, "n2 having joined anew", 120)
    back.end()


def removed_while_a_job_runs(site: Cluster) -> None:
    with site.client() as http:
        spec = {"command": ["sleep", "600"], "node": "n2", "launcher": "process"}
        job = http.post("/jobs", json=spec).json()["id"]
        wait_until(lambda: http.get(f"/jobs/{job}").json()["state"] == "running", "the job", PATIENCE)
        assert http.post("/nodes/n2/remove").status_code == 409
        assert http.post("/nodes/n9/remove").status_code == 404
        done = http.post("/nodes/n2/remove", json={"force": True})
        assert (done.status_code, done.json()) == (200, {"node": "n2", "certificates": 1, "jobs": 1})
        assert http.get(f"/jobs/{job}").json()["reason"]["code"] == "NodeFail"
        said = http.get("/audit", params={"subject": "node n2", "act": "remove"}).json()["entries"]
        assert [len(entry["after"]["certificates"]) for entry in said] == [1]


def names_up(site: Cluster) -> set[str]:
    with site.client() as http:
        return {view["node"]["name"] for view in http.get("/nodes").json() if view["node"]["state"] == "up"}


def address_of(site: Cluster, node: str) -> tuple[str, int]:
    with site.client() as http:
        known = {view["node"]["name"]: view["node"]["address"] for view in http.get("/nodes").json()}
    host, _, port = known[node].removeprefix("tls://").rpartition(":")
    return host, int(port)
