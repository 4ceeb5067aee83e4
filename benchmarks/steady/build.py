"""The binary of ``steady.c``: compiled when its source has changed, kept under ``build/`` by the source's hash."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import blake2b
from pathlib import Path

from benchmarks.fleet.build import BUILD, FLAGS, CannotBuild

SOURCE = Path(__file__).with_name("steady.c")


def steady_binary(build: Path = BUILD) -> Path:
    """The binary, compiled now if need be. Raises CannotBuild."""
    binary = build / f"steady-{blake2b(SOURCE.read_bytes(), digest_size=6).hexdigest()}"
    if binary.exists():
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotBuild("steady needs a C compiler: apt-get install gcc libc6-dev")
    build.mkdir(parents=True, exist_ok=True)
    made = binary.with_name(f"{binary.name}.{os.getpid()}")
    command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no reason")
        raise CannotBuild(f"steady does not compile: {first.strip()}")
    made.replace(binary)
    return binary
