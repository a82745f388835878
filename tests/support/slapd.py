"""A real OpenLDAP server for tests: TLS, two people, a group, one who may search."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from waiting import wait_until

ADMIN, ADMIN_PASSWORD = "cn=admin,dc=test", "admin secret"
BASE = "ou=people,dc=test"

CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {root}/slapd.pid
argsfile {root}/slapd.args
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
TLSCACertificateFile {root}/ca.pem
TLSCertificateFile {root}/server.pem
TLSCertificateKeyFile {root}/server.key
database mdb
suffix "dc=test"
rootdn "{admin}"
rootpw "{password}"
directory {root}/db
maxsize 67108864
overlay memberof
access to attrs=userPassword by self write by anonymous auth by * none
access to * by users read by anonymous auth
"""

ENTRIES = """
dn: dc=test
objectClass: dcObject
objectClass: organization
dc: test
o: Test

dn: ou=people,dc=test
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=test
objectClass: organizationalUnit
ou: groups

dn: uid=grace,ou=people,dc=test
objectClass: inetOrgPerson
uid: grace
cn: Grace Hopper
sn: Hopper
mail: grace@example.test
userPassword: grace's password

dn: uid=odd\\2Cname*,ou=people,dc=test
objectClass: inetOrgPerson
uid: odd,name*
cn: Odd Name
sn: Name
userPassword: odd password

dn: cn=Compiler Group,ou=groups,dc=test
objectClass: groupOfNames
cn: Compiler Group
member: uid=grace,ou=people,dc=test
"""


@dataclass(frozen=True)
class Slapd:
    """A server that listens on both ports."""

    ldap: str
    ldaps: str
    ca_file: Path


def has_slapd() -> bool:
    return _program("slapd") is not None


@contextmanager
def slapd(root: Path) -> Iterator[Slapd]:
    """A server with its data under `root`."""
    (root / "db").mkdir()
    certificates(root)
    (root / "slapd.conf").write_text(CONFIGURATION.format(root=root, admin=ADMIN, password=ADMIN_PASSWORD))
    plain, tls = free_port(), free_port()
    server = Slapd(f"ldap://localhost:{plain}", f"ldaps://localhost:{tls}", root / "ca.pem")
    program = _program("slapd")
    assert program is not None
    listen = f"ldap://127.0.0.1:{plain}/ ldaps://127.0.0.1:{tls}/"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-f", str(root / "slapd.conf"), "-h", listen, "-d", "0"], stdout=log, stderr=log
        )
    command = ["ldapadd", "-x", "-H", server.ldap, "-D", ADMIN, "-w", ADMIN_PASSWORD]
    try:

        def answers() -> bool:
            assert process.poll() is None, (root / "log").read_text()
            asked = ["ldapwhoami", *command[1:]]
            return subprocess.run(asked, capture_output=True, check=False).returncode == 0

        wait_until(answers, "slapd answering", 60)
        # By LDAP and not into the files: only so the overlay writes memberOf.
        subprocess.run(command, input=ENTRIES.encode(), check=True, capture_output=True)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def certificates(root: Path) -> None:
    """An authority, and a certificate for ``localhost`` by it."""
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    now = datetime.datetime.now(datetime.UTC)
    base = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    ca = (
        base.subject_name(name)
        .public_key(authority.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    leaf = (
        base.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .public_key(server.public_key())
        .serial_number(2)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (root / "ca.pem").write_bytes(ca.public_bytes(pem))
    (root / "server.pem").write_bytes(leaf.public_bytes(pem))
    (root / "server.key").write_bytes(
        server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
