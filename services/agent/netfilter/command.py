"""``windward-agent netfilter apply|check|clean``: what it prints and how it ends.

Exit status: 0 done, or nothing differs; 1 it differs, or it could not be done; 2 bad flags; 126 the validation failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import TextIO

from services.agent.netfilter.apply import apply, check, clean
from services.agent.netfilter.errors import InterceptionError, NetfilterError
from services.agent.netfilter.host import CommandError, Host
from services.agent.netfilter.interception import Interception
from services.agent.netfilter.options import RESOLV_CONF, Options, options
from services.agent.netfilter.restore import restore_text, transaction
from services.agent.netfilter.routing import routing_of
from services.agent.netfilter.rules import Family, rules_of
from services.agent.netfilter.state import loaded, own_part, records
from services.agent.netfilter.transition import removal
from services.agent.netfilter.validation import ValidationError, validate

DIFFERS, BAD_FLAGS, NOT_VALID = 1, 2, 126


def main(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run the command; returns the exit status."""
    out, err = out or sys.stdout, err or sys.stderr
    try:
        asked = options(argv, environ, _resolv_conf())
        host = Host()
        wanted, notes = _for_this_machine(asked, host)
        for note in notes:
            err.write(f"windward-agent netfilter: note: {note}\n")
        return _run(asked, host, wanted, out)
    except InterceptionError as error:
        err.write(f"windward-agent netfilter: {error}\n")
        return BAD_FLAGS
    except ValidationError as error:
        err.write(f"windward-agent netfilter: {error}\n")
        return NOT_VALID
    except NetfilterError as error:
        err.write(f"windward-agent netfilter: {error}\n")
        return DIFFERS


def _run(asked: Options, host: Host, wanted: Interception, out: TextIO) -> int:
    if asked.action == "clean":
        if asked.dry_run:
            out.writelines(f"{line}\n" for line in dry_clean(wanted))
            return 0
        removed = clean(host, wanted)
        out.writelines(f"removed: {line}\n" for line in removed or ["nothing was there"])
        return 0
    if asked.dry_run:
        out.writelines(f"{line}\n" for line in dry_run(wanted))
        return 0
    if asked.action == "check":
        different = check(host, wanted, asked.forced)
        out.writelines(f"{line}\n" for line in different or ["as wanted"])
        return DIFFERS if different else 0
    if not asked.skip_apply:
        done = apply(
            host, wanted, forced=asked.forced, reconcile=asked.reconcile, force=asked.force
        )
        out.writelines(f"differed: {line}\n" for line in done.replaced)
        out.writelines(f"loaded: {line}\n" for line in done.loaded or ["nothing: all is as wanted"])
    if asked.validate:
        for family in Family:
            if family is Family.V4 or wanted.ipv6:
                validate(wanted, family, asked.probe_port, asked.probe_timeout_s)
                out.write(f"validated: IPv{family} connections come to Envoy\n")
    return 0


def dry_run(wanted: Interception) -> Iterator[str]:
    """Exactly what `apply` would load and run on a machine without rules of ours; lines with ``#`` say where it goes."""
    for family, program in ((Family.V4, "iptables"), (Family.V6, "ip6tables")):
        rules = rules_of(wanted, family)
        for what, part in (
            (f"IPv{family}", rules),
            (f"IPv{family}, a record of what is put in shared chains", records(rules)),
        ):
            if part:
                yield f"# {what}: {program}-restore --noflush"
                yield from restore_text(part).splitlines()
    for one in routing_of(wanted):
        yield " ".join(one.command("add"))


def dry_clean(wanted: Interception) -> Iterator[str]:
    """What `clean` would run after an `apply` with the same flags. (It looks at what is there, and needs none of them.)"""
    for family, program in ((Family.V4, "iptables"), (Family.V6, "ip6tables")):
        rules = rules_of(wanted, family)
        tables = loaded((*rules, *records(rules)))
        if tables:
            yield f"# IPv{family}: {program}-restore --noflush"
        for table, chains in tables.items():
            yield from transaction(table, removal(own_part(chains, {}))).splitlines()
    for one in reversed(routing_of(wanted)):
        yield " ".join(one.command("del"))


def _for_this_machine(asked: Options, host: Host) -> tuple[Interception, list[str]]:
    """The interception with IPv6 decided, and what is worth saying about it."""
    wanted, notes = asked.interception, []
    if asked.ipv6 == "auto":
        versions = _versions(host)
        on = 6 in versions if asked.dual_stack else versions[:1] == [6]
        wanted = replace(wanted, ipv6=on)
        if 6 in versions and not on:
            notes.append(
                "there are IPv6 addresses here, whose traffic is not captured: --dual-stack captures it"
            )
    if wanted.redirect_dns and not wanted.dns:
        notes.append("DNS is not captured: no resolvers are known, and --capture-all-dns is off")
    if wanted.capture_all_dns and not wanted.redirect_dns:
        notes.append("--capture-all-dns does nothing without --redirect-dns")
    outbound = wanted.outbound_cidrs or wanted.outbound_ports
    applies = asked.action == "apply" and not asked.skip_apply
    if applies and not wanted.inbound_ports and not outbound:
        notes.append(
            "nothing is captured: -b '*' captures all inbound traffic, -i '*' all outbound"
        )
    return wanted, notes


def _versions(host: Host) -> list[int]:
    """IP versions of this machine's addresses, in the kernel's order; loopback and link-local ones do not count."""
    try:
        links = json.loads(host.run(("ip", "-j", "addr", "show")))
    except (CommandError, ValueError):
        return []
    found: list[int] = []
    for link in links:
        for info in link.get("addr_info", ()):
            address = ip_address(info["local"])
            if not address.is_loopback and not address.is_link_local and info["local"] != "::6":
                found.append(address.version)
    return found


def _resolv_conf() -> str:
    try:
        return RESOLV_CONF.read_text(errors="replace")
    except OSError:
        return ""
