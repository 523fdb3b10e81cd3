"""Get checkpoints from a folder or a base URL: resumed, and checked against the sha256 in their cards."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from .config import SwysError

INDEX = "index.json"  # {"checkpoints": [id, ...]}, beside the checkpoints' folders
TIMEOUT = 10  # seconds without an answer


def fetch_checkpoints(base: str, folder: Path, ids: Iterable[str] | None = None) -> Iterator[str]:
    """Bring checkpoints from ``base`` (a folder or an http(s) URL) into ``folder``; yields a line on each file.

    A file that is there with the right sha256 is kept; a partial one (``*.part``) is continued. The card comes last, so
    that an interrupted fetch never leaves a checkpoint that looks complete.

    Raises:
        SwysError: ``base`` or an id is not there, or a file is not what its card says.
    """
    base = base.rstrip("/")
    if ids is None:
        ids = json.loads(_small(f"{base}/{INDEX}"))["checkpoints"]
    for checkpoint in ids:
        text = _small(f"{base}/{checkpoint}/card.json")
        try:
            entries = _files(json.loads(text))
        except (ValueError, KeyError):
            raise SwysError(f"'{base}/{checkpoint}/card.json' is not a card; check the base URL or folder") from None
        target = folder / checkpoint
        target.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            path = target / entry["name"]
            if path.is_file() and file_sha256(path) == entry["sha256"]:
                yield f"{checkpoint}/{entry['name']}: already there"
                continue
            size = _bring(f"{base}/{checkpoint}/{entry['name']}", path, entry["sha256"])
            yield f"{checkpoint}/{entry['name']}: fetched, {size / 1e6:.1f} MB, sha256 right"
        part = target / "card.json.part"
        part.write_bytes(text)
        part.replace(target / "card.json")


def check_checkpoints(folder: Path) -> Iterator[tuple[str, bool]]:
    """What is in ``folder``: (line, all right?) for each checkpoint, by the sha256 in its card."""
    for card in sorted(folder.glob("*/*/card.json")):
        entries = _files(json.loads(card.read_text()))
        paths = [(card.parent / entry["name"], entry["sha256"]) for entry in entries]
        wrong = [p.name for p, sha in paths if not p.is_file() or file_sha256(p) != sha]
        name = card.parent.relative_to(folder)
        size = sum(entry["bytes"] for entry in entries) / 1e6
        yield (
            (f"{name}: missing or altered: {', '.join(wrong)}" if wrong else f"{name}: complete, {size:.1f} MB"),
            not wrong,
        )


def _files(card: dict) -> list[dict]:
    """Every file that a card names: the weights and, where they are shipped, the predictions."""
    return card["files"] + ([card["predictions"]] if "predictions" in card else [])


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _small(source: str) -> bytes:
    """A small file (index, card) whole."""
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=TIMEOUT) as answer:
                return answer.read()
        return Path(source).read_bytes()
    except OSError as error:
        raise SwysError(f"cannot read '{source}' ({_reason(error)}); check the base URL or folder") from None


def _bring(source: str, path: Path, sha256: str) -> int:
    """Continue ``path``.part, or start it; rename it when its sha256 is right. Returns its size in bytes."""
    part = path.with_name(path.name + ".part")
    for again in (False, True):
        try:
            if source.startswith(("http://", "https://")):
                _download(source, part)
            else:
                shutil.copyfile(source, part)
        except OSError as error:
            raise SwysError(
                f"cannot fetch '{source}' ({_reason(error)}); the same command goes on where it stopped"
            ) from None
        if file_sha256(part) == sha256:
            part.replace(path)
            return path.stat().st_size
        part.unlink()  # a continued file may have had a wrong beginning: once more from the start
        if again:
            raise SwysError(f"'{source}' is not what its card says (sha256 differs); nothing was kept of it")
    raise AssertionError("unreachable")


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is complete, or too long
            return
        raise
    with answer, open(part, "ab" if answer.status == 206 else "wb") as out:
        shutil.copyfileobj(answer, out, 1 << 18)


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
