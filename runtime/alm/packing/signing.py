"""Ed25519: who packed a file. Keys are PEM files, as openssl writes them.

openssl genpkey -algorithm ed25519 -out key.pem
openssl pkey -in key.pem -pubout -out key.pub
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path
from typing import Any

from alm.errors import BadArtifacts, BadOption, MissingFile, MissingPackage
from alm.parsing import Misshapen, need, parse

ALGORITHM = "ed25519"
MOST_KEY = 2**16  # bytes of a file
FINGERPRINT = re.compile("[0-9a-f]{64}")


def private(path: Path) -> Any:
    """The private key in a PEM file.

    Raises:
        MissingFile, BadOption: there is none, it has a password, or it is of another kind.
        MissingPackage: cryptography is not installed.
    """
    serialization, ed25519 = _package()
    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise BadOption(f"{path} has a password; sign with a key that has none") from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what OpenSSL says
        raise BadOption(f"{path} holds no private key in PEM: {_short(error)}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise BadOption(f"{path} is no key of Ed25519; {_make(path)}")
    return key


def public(path: Path) -> Any:
    """The public key in a PEM file; raises as `private`."""
    serialization, ed25519 = _package()
    data = _read(path)
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as error:
        raise BadOption(f"{path} holds no public key in PEM: {_short(error)}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise BadOption(f"{path} is no public key of Ed25519")
    return key


def fingerprint(key: Any) -> str:
    """Tells public keys apart: the sha256 of their 32 bytes, in hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(key: Any, contents: bytes) -> dict[str, str]:
    """What `signature.json` says of the list of a file's members."""
    signature = base64.b64encode(key.sign(contents)).decode()
    return {"algorithm": ALGORITHM, "key": fingerprint(key.public_key()), "signature": signature}


def signer(signature: bytes, file: Path) -> str:
    """Whose key a signature says it is of; BadArtifacts where it is none."""
    return _parsed(signature, file)["key"]


def check(key: Any, contents: bytes, signature: bytes, file: Path) -> None:
    """Refuse, with BadArtifacts, a list of members that this key did not sign."""
    said = _parsed(signature, file)
    if said["key"] != fingerprint(key):
        raise BadArtifacts(f"{file} is signed by the key {said['key']:.16}..., which is another")
    try:
        key.verify(base64.b64decode(said["signature"], validate=True), contents)
    except (binascii.Error, ValueError) as error:
        raise BadArtifacts(f"the signature of {file} cannot be read") from error
    except Exception as error:  # InvalidSignature
        raise BadArtifacts(
            f"the signature of {file} is not of what it lists: 'contents.json' was changed"
        ) from error


def _parsed(signature: bytes, file: Path) -> dict[str, str]:
    try:
        plain = parse(signature.decode("utf-8"))
        said = {name: need(plain, name, str) for name in ("algorithm", "key", "signature")}
    except (Misshapen, ValueError, RecursionError) as error:
        raise BadArtifacts(f"'signature.json' in {file} is misshapen: {error}") from error
    if said["algorithm"] != ALGORITHM:
        raise BadArtifacts(f"{file} is signed by {said['algorithm']!r:.40}, not {ALGORITHM}")
    if not FINGERPRINT.fullmatch(said["key"]):
        raise BadArtifacts(f"'signature.json' in {file} names {said['key']!r:.40}, which is no key")
    return said


def _package() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingPackage(
            "signing wants cryptography, which is not installed: pip install 'alm-edge[sign]'"
        ) from error
    return serialization, ed25519


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_KEY)
    except FileNotFoundError:
        raise MissingFile(f"there is no key {path}; {_make(path)}") from None
    except OSError as error:
        raise BadOption(f"the key {path} cannot be read: {error.strerror or error}") from error


def _make(path: Path) -> str:
    return f"make one with: openssl genpkey -algorithm ed25519 -out {path.name}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
