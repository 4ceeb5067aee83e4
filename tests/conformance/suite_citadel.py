"""citadel/spiffe: the grammar of ids. citadel/csr: requests against a running Citadel in strict mode."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID, ObjectIdentifier

from tests.conformance.cases import Result
from windward.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from windward.client.certificates import CertificateKeeper, Enrolment
from windward.identity.keys import new_key
from windward.identity.names import (
    ADMIN_ACCOUNT,
    CITADEL_ACCOUNT,
    CONTROL_PLANE_DNS,
    ROOT_NAMESPACE,
)
from windward.identity.spiffe_id import SpiffeId, SpiffeIdError, workload_id
from windward.local.etcd import EtcdProcess
from windward.rpc.channel import ChannelSource

IDENTITY = workload_id("cluster.local", ROOT_NAMESPACE, ADMIN_ACCOUNT)


def spiffe(folder: Path) -> Result:
    result = Result()
    path = folder / "citadel" / "spiffe" / "spiffe_id_vectors.json"
    for number, vector in enumerate(json.loads(path.read_text())):
        result.count(f"citadel/spiffe#{number}", judge_id(vector))
    return result


def judge_id(vector: dict[str, Any]) -> str:
    try:
        made = SpiffeId.parse(vector["input"])
    except SpiffeIdError as error:
        return f"refused: {error}" if vector["valid"] else ""
    if not vector["valid"]:
        return "accepted"
    right = made.trust_domain == vector["trust_domain"] and made.path == vector["path"]
    return "" if right else f"parsed as {made.trust_domain!r} and {made.path!r}"


def csr(folder: Path) -> Result:
    rows = json.loads((folder / "citadel" / "csr" / "csr_compare_table.json").read_text())
    return asyncio.run(_csr([*rows]))


async def _csr(rows: list[dict[str, Any]]) -> Result:
    result = Result()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        etcd = EtcdProcess(base / "etcd")
        await etcd.start()
        citadel = await _start_citadel(base, etcd.url)
        try:
            ports = await _ports(base / "ports")
            keeper = CertificateKeeper(
                Enrolment(
                    IDENTITY,
                    f"127.0.0.1:{ports['tls']}",
                    f"127.0.0.1:{ports['mtls']}",
                    base / "bootstrap" / "root-cert.pem",
                    base / "bootstrap" / "admin.token",
                    base / "admin",
                )
            )
            # Strict mode: the keeper's own requests name exactly its identity, so they pass.
            source = await keeper.first()
            channels = ChannelSource(
                [f"127.0.0.1:{ports['mtls']}"],
                server_name=CONTROL_PLANE_DNS[CITADEL_ACCOUNT],
                source=source,
            )
            stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
            for number, row in enumerate(rows):
                result.count(f"citadel/csr#{number}", await _judge(stub, row))
            await channels.close()
        finally:
            citadel.terminate()
            await citadel.wait()
            await etcd.stop()
    return result


async def _start_citadel(base: Path, store: str) -> asyncio.subprocess.Process:
    flags = {
        "--store": store, "--kek-file": base / "kek", "--bootstrap-dir": base / "bootstrap", "--csr-mode": "strict",
        "--tls-address": "127.0.0.1:0", "--mtls-address": "127.0.0.1:0", "--metrics-address": "127.0.0.1:0",
        "--ports-file": base / "ports", "--log-level": "error",
    }  # fmt: skip
    words = [str(word) for flag in flags.items() for word in flag]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.citadel.main", *words
    )


async def _ports(path: Path) -> dict[str, int]:
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.05)
    ports: dict[str, int] = json.loads(path.read_text())
    return ports


async def _judge(stub: Any, row: dict[str, Any]) -> str:
    nothing = "nil" in {row.get("go_csr"), row.get("template")}
    text = "" if nothing else build(str(row["go_csr"]))
    try:
        await stub.CreateCertificate(ca_pb2.IstioCertificateRequest(csr=text), timeout=5)
    except grpc.aio.AioRpcError as error:
        accepted = False
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            return f"{error.code().name}: {error.details()}"
    else:
        accepted = True
    wanted = expected(row)
    return "" if accepted == wanted else f"{'accepted' if accepted else 'refused'}, should not be"


def expected(row: dict[str, Any]) -> bool:
    """The table's word, but for what the whole flow decides otherwise: an empty subject is an empty organisation, and a
    common name is never asked for here.
    """
    go = str(row["go_csr"])
    if "nil" in {go, row["template"]}:
        return False
    if "Subject" not in go:
        return True
    if re.search(r'CommonName:\s*[^"\s]', go):
        return False
    return bool(row["accept"])


def build(go: str) -> str:
    """A request with the fields of a Go literal, and one URI name: the caller's own."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(IDENTITY))]
    for field, made in (("DNSNames", x509.DNSName), ("EmailAddresses", x509.RFC822Name)):
        names += [made(value) if value else EMPTY_NAME for value in strings(go, field)]
    if re.search(r"IPAddresses:\s*\[\]net\.IP\{\{", go):
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    if len(re.findall(r"\{Host:", go)) > 1:
        names.append(x509.UniformResourceIdentifier("spiffe://cluster.local/ns/other/sa/other"))
    subject = [
        x509.NameAttribute(oid, value)
        for field, oid in SUBJECT
        for value in strings(go, field)
        if value
    ]
    subject += [
        x509.NameAttribute(NameOID.COMMON_NAME, name)
        for name in re.findall(r'CommonName:\s*"?(\w+)', go)
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if "ObjectIdentifier{" in go:
        extension = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
        builder = builder.add_extension(extension, critical=False)
    request = builder.sign(new_key(), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


EMPTY_NAME = x509.RegisteredID(ObjectIdentifier("1.2.3.4"))
"""Stands for an empty DNS or e-mail name, which no encoder writes: a name of another kind than a URI all the same."""
SUBJECT = (
    ("Country", NameOID.COUNTRY_NAME),
    ("Organization", NameOID.ORGANIZATION_NAME),
    ("OrganizationalUnit", NameOID.ORGANIZATIONAL_UNIT_NAME),
    ("Locality", NameOID.LOCALITY_NAME),
    ("Province", NameOID.STATE_OR_PROVINCE_NAME),
    ("StreetAddress", NameOID.STREET_ADDRESS),
    ("PostalCode", NameOID.POSTAL_CODE),
)


def strings(go: str, field: str) -> list[str]:
    """The values of a Go ``Field: []string{...}``."""
    found = re.search(rf"\b{field}:\s*\[\]string\s*\{{([^}}]*)\}}", go)
    return re.findall(r'"([^"]*)"', found[1]) if found else []
