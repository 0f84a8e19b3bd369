"""Keys and signatures of the journal's anchors: Ed25519 now, another algorithm by name later.

    anchor.key   private, PEM (PKCS 8), 0600, made on the first start
    anchor.pub   public, one line: `ed25519-sha256 <64 hex>`; what an auditor keeps elsewhere

**What a key on the box proves, and what not.** A signature shows that whoever wrote an anchor had
the key. Somebody who can write the journal's folder but not read the key cannot make an anchor.
Somebody with root has both and can write any past anew, up to the last anchor that left the box.
So the key is the smaller half: the anchors kept off-host are the proof.

The algorithm is a name in every anchor and every public key line (`ALGORITHMS`): its first half
signs, its second half chains. `sm2-sm3` is the name kept free for the Chinese national algorithms;
it is not built (decision 0012).

Not here: what is signed (anchors.py), when (gateway/runtime/notary.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.alarms.files import sync_directory, write_whole
from gateway.model.errors import ConfigError, Fault, StorageFault

ALGORITHM = "ed25519-sha256"
KEY = "anchor.key"
PUBLIC_KEY = "anchor.pub"
_KEY_ID_LENGTH = 16
_PUBLIC_FILE_BYTES_MAX = 1 << 20


class PublicKey(NamedTuple):
    """What a signature is checked with."""

    algorithm: str
    raw: bytes

    @property
    def id(self) -> str:
        """Short enough to read out on the telephone."""
        return hashlib.sha256(self.raw).hexdigest()[:_KEY_ID_LENGTH]

    @property
    def line(self) -> str:
        return f"{self.algorithm} {self.raw.hex()}"

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """False for a wrong signature, and for an algorithm this version does not have."""
        check = ALGORITHMS.get(self.algorithm)
        return check is not None and check(self.raw, data, signature)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key of one gateway."""

    public: PublicKey
    _private: Ed25519PrivateKey

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Raises: OSError; ValueError if it is not such a key."""
        private = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError(f"{path}: not an Ed25519 key")  # noqa: TRY004  what was read is wrong
        return cls._of(private)

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """A new key at `path`, durable and for its owner only.

        Raises: StorageFault; also if `path` exists: a key is never written over.
        """
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, pem)  # a hundred bytes: whole, or an error
                os.fsync(descriptor)
            except OSError:
                path.unlink()
                raise
            finally:
                os.close(descriptor)
            sync_directory(path.parent)
        except OSError as error:
            raise StorageFault(f"{path}: {error}") from error
        return cls._of(private)

    @classmethod
    def _of(cls, private: Ed25519PrivateKey) -> SigningKey:
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(PublicKey(ALGORITHM, raw), private)


def write_public(path: Path, key: PublicKey) -> None:
    """Best effort, and only where it says something else: it is a convenience, not the proof."""
    line = f"{key.line}\n".encode()
    with contextlib.suppress(OSError, StorageFault):
        if not path.exists() or path.read_bytes() != line:
            write_whole(path, line)


def read_public_keys(path: Path) -> list[PublicKey]:
    """Every key of a file: `algorithm hex` a line, `#` begins a comment.

    Raises: ConfigError naming the line; OSError.
    """
    if path.stat().st_size > _PUBLIC_FILE_BYTES_MAX:
        raise ConfigError([Fault(str(path), 0, "", "a file of public keys, below 1 MiB")])
    keys, faults = [], []
    for number, text in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = text.partition("#")[0].split()
        if not words:
            continue
        key = _public_key(words)
        if key is None:
            expected = f"one of {', '.join(ALGORITHMS)} and 64 hexadecimal digits"
            faults.append(Fault(str(path), number, "", expected))
        else:
            keys.append(key)
    if not keys and not faults:
        faults.append(Fault(str(path), 0, "", "at least one public key"))
    if faults:
        raise ConfigError(faults)
    return keys


def _public_key(words: list[str]) -> PublicKey | None:
    if len(words) != 2 or words[0] not in ALGORITHMS:
        return None
    try:
        raw = bytes.fromhex(words[1])
    except ValueError:
        return None
    return PublicKey(words[0], raw) if len(raw) == 32 else None


def _ed25519(raw: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


ALGORITHMS: Mapping[str, Callable[[bytes, bytes, bytes], bool]] = {ALGORITHM: _ed25519}
"""Name -> (public key, data, signature) -> whether it is good."""
