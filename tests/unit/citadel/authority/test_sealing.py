"""Sealing: who has the key reads it, at the place it was sealed for, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.citadel.authority.sealing import (
    KEY_BYTES,
    SealingError,
    load_or_make_key,
    seal,
    unseal,
)

KEY = b"k" * KEY_BYTES


@given(st.binary(max_size=500), st.text(max_size=40))
def test_what_is_sealed_comes_back_and_is_not_seen(secret: bytes, place: str):
    sealed = seal(KEY, secret, place)
    assert unseal(KEY, sealed, place) == secret
    assert len(secret) < 4 or secret not in sealed


def test_no_two_sealings_are_alike():
    assert len({seal(KEY, b"secret", "here") for _ in range(100)}) == 100


@given(st.integers(0, 33), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, flip: int):
    sealed = bytearray(seal(KEY, b"secret", "here"))
    sealed[at] ^= flip
    with pytest.raises(SealingError):
        unseal(KEY, bytes(sealed), "here")


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_else(sealed: bytes):
    with pytest.raises(SealingError):
        unseal(KEY, sealed, "here")


def test_another_key_or_place_does_not_open_it():
    sealed = seal(KEY, b"secret", "here")
    for key, place in ((b"x" * KEY_BYTES, "here"), (KEY, "there")):
        with pytest.raises(SealingError):
            unseal(key, sealed, place)


def test_a_missing_key_is_made_for_its_owner_alone_and_kept(tmp_path: Path):
    path = tmp_path / "kek"
    made = load_or_make_key(path)
    assert len(made) == KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make_key(path) == made
    assert load_or_make_key(tmp_path / "other") != made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "kek"
    load_or_make_key(path)
    path.chmod(mode)
    with pytest.raises(SealingError, match="chmod 600"):
        load_or_make_key(path)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, length: int):
    path = tmp_path / "kek"
    path.write_bytes(b"k" * length)
    path.chmod(0o600)
    with pytest.raises(SealingError, match=f"has {length} bytes"):
        load_or_make_key(path)


def test_a_place_where_no_key_can_be_is_named(tmp_path: Path):
    with pytest.raises(SealingError, match="--kek-file"):
        load_or_make_key(tmp_path / "missing" / "kek")
    with pytest.raises(SealingError, match="--kek-file"):
        load_or_make_key(tmp_path)
