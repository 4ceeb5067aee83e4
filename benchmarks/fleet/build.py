"""The fleet simulator's binary: compiled when its source has changed, kept under ``build/`` by the source's hash."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import blake2b
from pathlib import Path

SOURCE = Path(__file__).parent
BUILD = SOURCE.parents[1] / "build"
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra")
LIBRARIES = ("-lssl", "-lcrypto")


class CannotBuild(Exception):
    """One line: what is missing, and how to get it."""


def fleet_binary(build: Path = BUILD, *, tls: bool = True) -> Path:
    """The binary, compiled now if need be; without TLS it needs no OpenSSL and speaks plaintext. Raises CannotBuild."""
    sources = sorted(SOURCE.glob("*.c"))
    texts = b"".join(file.read_bytes() for file in (*sources, SOURCE / "fleet.h"))
    name = "fleet" if tls else "fleet-plaintext"
    binary = build / f"{name}-{blake2b(texts, digest_size=6).hexdigest()}"
    if binary.exists():
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotBuild("the fleet needs a C compiler: apt-get install gcc libc6-dev libssl-dev")
    build.mkdir(parents=True, exist_ok=True)
    made = binary.with_name(f"{binary.name}.{os.getpid()}")
    variant = LIBRARIES if tls else ("-DWITHOUT_TLS",)
    command = [compiler, *FLAGS, "-o", str(made), *map(str, sources), *variant]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(reason(done.stderr))
    made.replace(binary)
    return binary


def reason(stderr: str) -> str:
    """One line of what the compiler said."""
    if "openssl/" in stderr or "-lssl" in stderr:
        return "the fleet needs OpenSSL's headers: apt-get install libssl-dev"
    first = next((line for line in stderr.splitlines() if "error" in line), stderr[:200])
    return f"the fleet does not compile: {first.strip()}"
