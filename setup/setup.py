"""Makes a checkout ready: system packages, .venv, generated code. Run by every make target; 0.1 s when up to date.

in   requirements-dev.lock, pyproject.toml, proto/, setup/    (their digest is the stamp)
out  .venv/                                                  hashes checked; uv where it is there, pip otherwise
     windward/api/, stubs/                                   by generate.py
     etcd, iptables, iproute2                                when root, without starting any service

Standard library only, so that any Python 3.11 can run it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".setup-stamp"
LOCK = ROOT / "requirements-dev.lock"
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# program -> (Debian package, what works without it)
SYSTEM = {
    "etcd": (
        "etcd-server",
        "a development etcd from the lock is used, which is not safe against crashes",
    ),
    "iptables-restore": ("iptables", "the mesh runs in loopback mode, without interception"),
    "ip": ("iproute2", "the mesh runs in loopback mode, without network namespaces"),
}


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  any Python may be what `python3` is
        fail(
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11"
        )
    install_system_packages()
    wanted = digest()
    if STAMP.exists() and STAMP.read_text() == wanted and (ROOT / "windward" / "api").is_dir():
        return
    started = time.monotonic()
    make_venv()
    step("packages (hashes checked)", install_packages)
    step("generated code", generate)
    STAMP.write_text(wanted)
    print(f"set up in {time.monotonic() - started:.1f} s", flush=True)


def digest() -> str:
    """What the set-up depends on, in one number."""
    seen = hashlib.blake2b(digest_size=16)
    sources = [LOCK, ROOT / "pyproject.toml", *sorted((ROOT / "proto").rglob("*.proto"))]
    for path in [*sources, *sorted((ROOT / "setup").glob("*.py"))]:
        seen.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return seen.hexdigest()


def step(what: str, action: object) -> None:
    print(f"  {what} ...", end="", flush=True)
    started = time.monotonic()
    action()  # type: ignore[operator]
    print(f" {time.monotonic() - started:.1f} s", flush=True)


def make_venv() -> None:
    if (VENV / "bin" / "python").exists():
        return
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        fail(
            "could not make .venv: install python3-venv (apt-get install python3-venv)\n"
            + made.stdout
        )


def install_packages() -> None:
    python = str(VENV / "bin" / "python")
    uv = shutil.which("uv")
    installer = [uv, "pip"] if uv else [python, "-m", "pip", "--disable-pip-version-check"]
    target = ["--python", python] if uv else []
    run([*installer, "install", "--quiet", *target, "--require-hashes", "-r", str(LOCK)])
    # Hashes cannot be asked of the project's own folder: it goes in alone, and everything it needs is there.
    run(
        [
            *installer,
            "install",
            "--quiet",
            *target,
            "--no-deps",
            "--no-build-isolation",
            "-e",
            str(ROOT),
        ]
    )


def generate() -> None:
    run([str(VENV / "bin" / "python"), str(ROOT / "setup" / "generate.py")])


def install_system_packages() -> None:
    """Install what is missing when root; else say what is missing and what works without it."""
    missing = {name: SYSTEM[name] for name in SYSTEM if not shutil.which(name, path=SBIN)}
    if not missing:
        return
    packages = [package for package, _ in missing.values()]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        if not STAMP.exists():
            for name, (package, without) in missing.items():
                print(f"note: {name} is missing (apt-get install {package}): without it {without}")
        return
    step(f"system packages: {' '.join(packages)}", lambda: apt_install(packages))


def apt_install(packages: list[str]) -> None:
    """Install without starting any service: policy-rc.d says no for as long as this takes."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run(["apt-get", "-qq", "update"], environment)
        run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages], environment)
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run quietly; on failure show everything it said and stop."""
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")
            fail(f"\n{said}\nthis command failed: {' '.join(command)}")


def fail(message: str) -> None:
    sys.exit(f"set-up: {message}")


if __name__ == "__main__":
    main()
