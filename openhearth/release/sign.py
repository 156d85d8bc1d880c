"""Signatures: who stands for a folder, checked by anyone offline.

The format is that of OpenSSF model-signing v1.0: a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement that lists
every file with its sha256, signed with ECDSA on P-256. Its `model-signing` package verifies what is written here, and the other way
round. The public key lies beside the signature as `model.pub`; trust is in its fingerprint, which is had from the signer by another way.

Signing is deterministic (RFC 6979): the same folder and key give the same bytes. An expiry is stated by the signer. It protects against
an old key that was forgotten, not against one that was stolen.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openhearth.errors import DamagedError, HearthError
from openhearth.inputs import read_small
from openhearth.ledger import Json, disk_error, write_atomic
from openhearth.release.manifest import UNLISTED, strict_json, walk

SIGNATURE, PUBLIC_KEY = UNLISTED
_MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What model-signing leaves out of a folder, beside the signature."""


class SignatureError(HearthError):
    """A signature that does not stand; each kind has its exit status."""

    exit_status = 23


class UnsignedError(SignatureError):
    """There is no signature, or no key to check it with."""

    exit_status = 20


class UntrustedError(SignatureError):
    """Signed with a key that is not the trusted one."""

    exit_status = 21


class ExpiredError(SignatureError):
    """Signed with a key whose time is over."""

    exit_status = 22


# -- keys -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A private key and the day after which it is not to be used ('' for none)."""

    private: ec.EllipticCurvePrivateKey
    expires: str

    @property
    def public(self) -> bytes:
        """The public key as PEM."""
        return _pem(self.private.public_key())


def new_key(path: Path, expires: str = "") -> str:
    """Make a key: the private half in `path` (mode 0600), the public in `path`.pub; gives its fingerprint. Never overwrites."""
    if expires and _day(expires, "--expires") <= _today():
        raise HearthError(f"--expires {expires}: lies in the past")
    private = ec.generate_private_key(ec.SECP256R1())
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    head = f"Expires: {expires}\n".encode() if expires else b""
    public = path.with_name(path.name + ".pub")
    if public.exists():
        raise HearthError(f"{public}: exists; a key is never overwritten, choose another name")
    for file, content, mode in ((path, head + data, 0o600), (public, _pem(private.public_key()), 0o644)):
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise HearthError(f"{file}: exists; a key is never overwritten, choose another name") from None
        except OSError as error:
            raise HearthError(f"{file}: cannot be written ({error.strerror})") from None
        with os.fdopen(handle, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    return fingerprint(private.public_key())


def load_key(path: Path) -> Key:
    """Read a private key; raises HearthError for one that is missing, readable by others, not P-256, or expired (ExpiredError)."""
    text = read_small(path, limit=10_000, what="key", suffix=".key")
    if path.stat().st_mode & 0o077:
        raise HearthError(f"{path}: others may read this key; close it with: chmod 600 {path}")
    try:
        private = serialization.load_pem_private_key(text[text.find("-----BEGIN") :].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise HearthError(f"{path}: not a private key without a password; make one with: hearth key new {path}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise HearthError(f"{path}: not a key on the curve P-256; make one with: hearth key new FILE")
    found = re.match(r"Expires: (\S+)\n", text)
    expires = found.group(1) if found else ""
    if expires and _day(expires, str(path)) < _today():
        raise ExpiredError(f"{path}: this key expired on {expires}; make another with: hearth key new FILE")
    return Key(private, expires)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the public key's PEM, in hex: what model-signing writes as the hint of a key."""
    return hashlib.sha256(_pem(key)).hexdigest()


def read_public(data: bytes, where: str) -> ec.EllipticCurvePublicKey:
    """A public key from PEM; raises DamagedError for anything but one on P-256."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise DamagedError(f"{where}: not a public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise DamagedError(f"{where}: not a key on the curve P-256")
    return key


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _day(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise HearthError(f"{where}: {text[:40]!r} is not a day like 2027-12-31") from None


# -- envelopes: any statement, also an attestation of an audit ----------------------------------------------------------------


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (github.com/secure-systems-lab/dsse, protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def seal_statement(statement: Json, key: Key) -> Json:
    """The Sigstore bundle of a signed in-toto statement."""
    payload = json.dumps(statement, indent=2, sort_keys=True).encode()
    signature = key.private.sign(_encoded(payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return {
        "mediaType": _MEDIA,
        "verificationMaterial": {"publicKey": {"hint": fingerprint(key.private.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def open_statement(bundle: Any, public: ec.EllipticCurvePublicKey, where: str) -> Json:
    """The statement in a bundle whose signature is that of `public`; raises SignatureError otherwise."""
    try:
        if bundle["mediaType"] != _MEDIA or bundle["dsseEnvelope"]["payloadType"] != _PAYLOAD:
            raise SignatureError(f"{where}: not a Sigstore bundle v0.3 of an in-toto statement")
        (signature,) = bundle["dsseEnvelope"]["signatures"]
        payload, signed = (base64.b64decode(text, validate=True) for text in (bundle["dsseEnvelope"]["payload"], signature["sig"]))
        hint = bundle["verificationMaterial"]["publicKey"].get("hint")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SignatureError(f"{where}: not a Sigstore bundle with one signature by a key") from None
    if hint not in (None, "", fingerprint(public)):
        raise UntrustedError(f"{where}: signed with the key {str(hint)[:64]}, not with {fingerprint(public)}")
    try:
        public.verify(signed, _encoded(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError(f"{where}: the signature is not one of the key {fingerprint(public)}") from None
    statement = strict_json(payload, where)
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT:
        raise SignatureError(f"{where}: what is signed is not an in-toto statement")
    return statement


# -- folders ----------------------------------------------------------------------------------------------------------------


def sign_folder(folder: Path, key: Key) -> None:
    """Write `model.pub` and `model.sig` into a folder; what an earlier signature left is replaced."""
    if not folder.is_dir():
        raise HearthError(f"{folder}: {'not a folder' if folder.exists() else 'does not exist'}; give the folder of a model")
    try:
        write_atomic(folder / PUBLIC_KEY, key.public)
        resources = _resources(folder)
        serialisation = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE, *_GIT]}
        predicate = {"serialization": serialisation, "resources": resources, **({"expires": key.expires} if key.expires else {})}
        subject = [{"name": "model", "digest": {"sha256": _root(resources)}}]
        statement = {"_type": STATEMENT, "subject": subject, "predicateType": _PREDICATE, "predicate": predicate}
        write_atomic(folder / SIGNATURE, (json.dumps(seal_statement(statement, key), indent=2) + "\n").encode())
    except OSError as error:
        raise disk_error(error, folder / SIGNATURE) from None


def check_folder(folder: Path, trust: str = "") -> str:
    """What the signature of a folder says, in one line. `trust` is a fingerprint, or the path of a public key.

    Raises UnsignedError, UntrustedError, ExpiredError or SignatureError: every file must be there with the signed digest, and no other.
    """
    try:
        bundle = strict_json((folder / SIGNATURE).read_bytes(), SIGNATURE)
    except OSError:
        raise UnsignedError(f"{SIGNATURE}: missing; this folder is not signed") from None
    public = _trusted(folder, trust)
    statement = open_statement(bundle, public, SIGNATURE)
    try:
        signed = {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"] if entry["algorithm"] == "sha256"}
        left_out = statement["predicate"]["serialization"].get("ignore_paths", [])
        whole = statement["subject"][0]["digest"]["sha256"] == _root(statement["predicate"]["resources"])
        whole &= len(signed) == len(statement["predicate"]["resources"]) and statement["predicateType"] == _PREDICATE
        whole &= statement["predicate"]["serialization"]["method"] == "files" and set(left_out) <= {SIGNATURE, *_GIT}
        expires = statement["predicate"].get("expires", "")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        whole, signed, expires = False, {}, ""
    if not whole:
        raise SignatureError(f"{SIGNATURE}: not a signature over all files of a folder, in the manner of model-signing 1.0")
    if expires and _day(str(expires), SIGNATURE) < _today():
        raise ExpiredError(f"{SIGNATURE}: the signer's key expired on {expires}; ask the signer to sign again")
    here = {entry["name"]: entry["digest"] for entry in _resources(folder)}
    for name in sorted({*signed, *here}):
        if here.get(name) != signed.get(name):
            how = "missing" if name not in here else "not signed" if name not in signed else "not the bytes that were signed"
            raise SignatureError(f"{name}: {how}")
    asked = "" if trust else "; nobody was asked whom to trust: --trust FINGERPRINT"
    return f"signed by {fingerprint(public)}{f' until {expires}' if expires else ''}{asked}"


def _trusted(folder: Path, trust: str) -> ec.EllipticCurvePublicKey:
    """The public key to check with: the one that is trusted, or the one that lies there."""
    if trust and not re.fullmatch(r"[0-9a-fA-F]{64}", trust):
        return read_public(read_small(Path(trust), limit=10_000, what="public key", suffix=".pub").encode(), trust)
    try:
        lies_there = read_public((folder / PUBLIC_KEY).read_bytes()[:10_000], PUBLIC_KEY)
    except OSError:
        raise UnsignedError(f"{PUBLIC_KEY}: missing; give the signer's public key with --trust FILE") from None
    if trust and fingerprint(lies_there) != trust.lower():
        raise UntrustedError(f"{PUBLIC_KEY}: signed with the key {fingerprint(lies_there)}, not with the trusted {trust.lower()}")
    return lies_there


def _resources(folder: Path) -> list[Json]:
    """Every file below a folder with its digest, sorted by name, without the signature and what belongs to Git."""
    found = []
    for name, _ in walk(folder):
        if name.split("/")[0] not in (SIGNATURE, *_GIT):
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise SignatureError(f"{name}: not a regular file; only files are signed")
            with path.open("rb") as file:
                found.append({"name": name, "algorithm": "sha256", "digest": hashlib.file_digest(file, "sha256").hexdigest()})
    return sorted(found, key=lambda entry: entry["name"])


def _root(resources: list[Json]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()
