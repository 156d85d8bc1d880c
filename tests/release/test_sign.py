"""Signatures: made here and read by the reference package, made there and read here; and every way in which one must not stand."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openhearth.errors import HearthError
from openhearth.ledger import read_json, write_json
from openhearth.release import sign
from openhearth.release.commands import key_command, sign_command, verify_command
from openhearth.release.sign import PUBLIC_KEY, SIGNATURE, check_folder, fingerprint, load_key, new_key, sign_folder
from openhearth.release.verify import verify


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys `mine` and `other`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        new_key(folder / name)
    return folder


def print_of(keys: Path, name: str = "mine") -> str:
    return fingerprint(load_key(keys / name).private.public_key())


@pytest.fixture
def signed(release: Path, keys: Path) -> Path:
    """A signed release, to be broken."""
    sign_folder(release, load_key(keys / "mine"))
    return release


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small folder that is no release."""
    for name in ("a.txt", "sub/b.bin", "sub/deep/c", ".gitattributes"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


# -- keys -------------------------------------------------------------------------------------------------------------------


def test_a_key_is_readable_by_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    made = new_key(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert made == fingerprint(load_key(tmp_path / "k").private.public_key())
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(HearthError, match="never overwritten"):
        new_key(tmp_path / "k")
    (tmp_path / "k").unlink()
    with pytest.raises(HearthError, match="never overwritten"):
        new_key(tmp_path / "k")  # the public half is still there
    assert before and not (tmp_path / "k").exists()


@pytest.mark.parametrize("content", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "x" * 20_000, "\x00\xff"])
def test_what_is_no_key_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "k").write_text(content)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(HearthError) as caught:
        load_key(tmp_path / "k")
    assert "\n" not in str(caught.value) and caught.value.exit_status == 2


def test_a_key_that_others_may_read_or_on_another_curve_is_refused(tmp_path: Path, keys: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    shutil.copy(keys / "mine", tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(HearthError, match="chmod 600"):
        load_key(tmp_path / "open")
    private = ec.generate_private_key(ec.SECP384R1())
    encoded = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "p384").write_bytes(encoded)
    (tmp_path / "p384").chmod(0o600)
    with pytest.raises(HearthError, match="P-256"):
        load_key(tmp_path / "p384")
    with pytest.raises(HearthError, match="no such file"):
        load_key(tmp_path / "none")


# -- signing and verifying --------------------------------------------------------------------------------------------------


def test_a_signed_release_verifies_with_its_fingerprint_or_its_key_file(signed: Path, keys: Path) -> None:
    for trust in ("", print_of(keys), print_of(keys).upper(), str(keys / "mine.pub")):
        report = verify(signed, trust)
        assert report.ok and f"signed by {print_of(keys)}" in next(f.detail for f in report.findings if f.name == "signature")


def test_signing_twice_gives_the_same_bytes_and_leaves_the_root(made_release: Path, signed: Path, keys: Path) -> None:
    before = (signed / SIGNATURE).read_bytes()
    sign_folder(signed, load_key(keys / "mine"))
    assert (signed / SIGNATURE).read_bytes() == before
    assert verify(signed).root == verify(made_release).root


def test_one_changed_missing_or_added_file_breaks_the_signature(model: Path, keys: Path) -> None:
    sign_folder(model, load_key(keys / "mine"))
    assert verify(model, print_of(keys)).ok
    for name in ("a.txt", "sub/b.bin", "sub/deep/c", PUBLIC_KEY):
        data = (model / name).read_bytes()
        (model / name).write_bytes(data + b"x")
        assert verify(model).exit_status in (20, 21, 23), name
        (model / name).unlink()
        assert verify(model).exit_status in (20, 23), name
        (model / name).write_bytes(data)
    (model / "new").write_text("x")
    assert verify(model).fault == "new: not signed"


def test_every_flipped_byte_of_the_signature_is_found(model: Path, keys: Path) -> None:
    sign_folder(model, load_key(keys / "mine"))
    bundle = read_json(model / SIGNATURE)
    payload = bundle["dsseEnvelope"]["payload"]
    for place in range(0, len(payload), 97):
        other = "A" if payload[place] != "A" else "B"
        changed = {**bundle["dsseEnvelope"], "payload": payload[:place] + other + payload[place + 1 :]}
        write_json(model / SIGNATURE, {**bundle, "dsseEnvelope": changed})
        assert verify(model).exit_status == 23


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"mediaType": 1}'])
def test_a_signature_that_is_none_is_refused(model: Path, keys: Path, content: bytes) -> None:
    sign_folder(model, load_key(keys / "mine"))
    (model / SIGNATURE).write_bytes(content)
    assert verify(model).exit_status == 23 and "\n" not in verify(model).fault


def test_a_signer_cannot_leave_files_out(model: Path, keys: Path) -> None:
    """A well signed statement that says to ignore a file, or that lists one twice, is not one over the folder."""
    key = load_key(keys / "mine")
    sign_folder(model, key)
    statement = json.loads(base64.b64decode(read_json(model / SIGNATURE)["dsseEnvelope"]["payload"]))
    statement["predicate"]["serialization"]["ignore_paths"].append("a.txt")
    write_json(model / SIGNATURE, sign.seal_statement(statement, key))
    assert "not a signature over all files" in verify(model).fault


@pytest.mark.parametrize(
    ("break_it", "trust", "status", "words"),
    [
        (lambda path: (path / SIGNATURE).unlink(), "mine", 11, "not listed"),  # its key is left behind
        (lambda path: [(path / name).unlink() for name in (SIGNATURE, PUBLIC_KEY)], "mine", 20, "not signed"),
        (lambda path: None, "other", 21, "not with the trusted"),
        (lambda path: (path / PUBLIC_KEY).unlink(), "mine", 20, "missing"),
    ],
)
def test_each_way_in_which_a_signature_fails_has_its_exit_status_and_one_line(
    signed: Path, keys: Path, capsys: pytest.CaptureFixture[str], break_it: Any, trust: str, status: int, words: str
) -> None:
    break_it(signed)
    assert verify_command(signed, trust=print_of(keys, trust)) == status
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_another_trusted_key_file_is_refused_even_where_the_key_beside_was_swapped(signed: Path, keys: Path) -> None:
    shutil.copy(keys / "other.pub", signed / PUBLIC_KEY)
    assert verify(signed, str(keys / "other.pub")).exit_status == 21
    assert verify(signed).exit_status == 21  # the hint names the key that signed


def test_an_expired_key_signs_nothing_and_its_signatures_no_longer_hold(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HearthError, match="lies in the past"):
        new_key(tmp_path / "old", "2020-01-01")
    with pytest.raises(HearthError, match="not a day"):
        new_key(tmp_path / "old", "soon")
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2)
    new_key(tmp_path / "k", day.isoformat())
    key = load_key(tmp_path / "k")
    sign_folder(model, key)
    assert f"until {day}" in check_folder(model)
    monkeypatch.setattr(sign, "_today", lambda: day)
    assert verify(model).ok  # its last day
    monkeypatch.setattr(sign, "_today", lambda: day + datetime.timedelta(days=1))
    assert verify(model).exit_status == 22
    with pytest.raises(sign.ExpiredError, match="expired on"):
        load_key(tmp_path / "k")


def test_the_commands_say_what_comes_next(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert key_command(tmp_path / "k") == 0 and sign_command(release, tmp_path / "k") == 0
    said = capsys.readouterr().out.split()
    assert verify_command(release, trust=said[-1]) == 0
    with pytest.raises(HearthError, match="does not exist"):
        sign_command(tmp_path / "none", tmp_path / "k")


# -- the reference package ----------------------------------------------------------------------------------------------------


def reference() -> Any:
    """OpenSSF's package; it imports pyOpenSSL, which it does not declare."""
    pytest.importorskip("OpenSSL")
    return pytest.importorskip("model_signing")


def test_the_reference_package_verifies_our_signature_and_finds_a_changed_byte(model: Path, keys: Path) -> None:
    model_signing = reference()
    sign_folder(model, load_key(keys / "mine"))
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
    verifier.verify(model, model / SIGNATURE)
    with pytest.raises(ValueError, match="Key mismatch"):
        model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys / "other.pub").verify(model, model / SIGNATURE)
    (model / "sub/b.bin").write_text("x")
    with pytest.raises(ValueError):
        verifier.verify(model, model / SIGNATURE)


def test_the_reference_package_verifies_a_whole_signed_release(signed: Path, keys: Path) -> None:
    model_signing = reference()
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub").verify(signed, signed / SIGNATURE)


def test_a_signature_of_the_reference_package_verifies_here(model: Path, keys: Path) -> None:
    model_signing = reference()
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[model / SIGNATURE], ignore_git_paths=True)
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys / "mine").set_hashing_config(hashing)
    signer.sign(model, model / SIGNATURE)
    assert verify(model, str(keys / "mine.pub")).ok
    assert verify(model, str(keys / "other.pub")).exit_status == 21
    (model / "a.txt").write_text("y")
    assert verify(model, str(keys / "mine.pub")).fault == "a.txt: not the bytes that were signed"


def test_openssl_reads_our_keys(keys: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    said = subprocess.run([openssl, "ec", "-in", str(keys / "mine"), "-noout", "-text"], capture_output=True, text=True, check=True)
    assert "P-256" in said.stdout + said.stderr


def test_verify_answers_before_torch_is_loaded(signed: Path) -> None:
    code = f"import sys; from openhearth.release.verify import verify; assert verify(__import__('pathlib').Path({str(signed)!r})).ok"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
