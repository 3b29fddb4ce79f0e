"""Which data set a budget is for, said so that nobody without the key learns a word of it."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

KEY_BYTES = 32
KEY_SUFFIX = ".budget-key"

_CHUNK = 1 << 20


def data_fingerprint(*, key: bytes, data: Path | str) -> str:
    """HMAC-SHA256 of a file's bytes, or of all files in a folder, in hex.

    A file of bytes x has HMAC(key, x); a folder HMAC(key, the sorted digests of its files). Without
    the key the digest is as good as random, so that it neither tells a row nor whether a guessed
    row is in the file; with it, equal bytes are known as equal, and nothing else.

    Args:
        key: the budget's secret, 32 bytes.
        data: a file, or a folder, of which names and order do not count; key files in it neither.

    Raises:
        ValueError: there is no such file, or it cannot be read.

    Source: HMAC is a pseudo-random function if its compression function is one (Bellare 2006,
    "New proofs for NMAC and HMAC"); no arXiv number.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name) / "train.jsonl"
    >>> _ = file.write_text("rows")
    >>> [data_fingerprint(key=key, data=file)[:8] for key in (bytes(32), bytes(31) + b"1")]
    ['442f6839', '1ec013cb']
    >>> folder.cleanup()
    """
    path = Path(data).expanduser()
    try:
        if path.is_dir():
            files = (each for each in sorted(path.rglob("*")) if each.is_file())
            parts = sorted(_digest(key, each) for each in files if not _is_key(each))
            return hmac.new(key, b"".join(parts), sha256).hexdigest()
        return _digest(key, path).hex()
    except OSError as failure:
        raise ValueError(f"cannot read the data {path}: {failure.strerror}") from failure


def _digest(key: bytes, file: Path) -> bytes:
    digest = hmac.new(key, digestmod=sha256)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _is_key(file: Path) -> bool:
    return KEY_SUFFIX in file.name
