"""The ledger: append-only JSON lines, each naming the hash of the line before it.

One file per contract and device, ``evidence/<contract>.<device>.jsonl``, so that machines do not write into each
other's chains. A line is the RFC 8785 canonical JSON of a record; ``sha256`` in it is the digest of the rest of
the record, ``previous`` is the ``sha256`` of the line before. What a chain can't show is that its last lines were
dropped: anchor the head outside (commit the file).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aprender.errors import AprenderError
from aprender.falsify.digest import canonical, digest
from aprender.falsify.record import FalsifierRun
from aprender.falsify.verdict import Verdict

FORMAT = 1
DEVICES = ("cpu", "cuda")
_REMEDY = "restore the file from git, or move it away and run pv run again"


class EvidenceError(AprenderError):
    """Evidence can't be written."""


class Tampered(AprenderError):
    """A ledger does not verify; the message names the file, the line, and what does not fit."""


@dataclass(frozen=True)
class Ledger:
    """One evidence file."""

    path: Path

    def append(self, record: dict[str, Any]) -> dict[str, Any]:
        """Chain ``record`` to the last one, write it and flush it to disk; returns it as written.

        A torn last line, left by a crash in the middle of a write, is set aside in ``*.torn`` first; a write that
        fails is taken back. Raises EvidenceError where nothing could be written, Tampered where the chain is broken.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as file:
                whole = self._set_torn_aside(file)
                records = _verify(self.path, whole)
                body = {"format": FORMAT, **record, "previous": records[-1]["sha256"] if records else None}
                written = {**body, "sha256": digest(body)}
                _write(file, len(whole), canonical(written) + b"\n")
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "make the folder writable"
            raise EvidenceError(
                f"{self.path}: evidence not written: {error.strerror}; {remedy}, then run again"
            ) from None
        return written

    def records(self) -> list[dict[str, Any]]:
        """All complete records, oldest first, verified. Raises Tampered, EvidenceError where it can't be read."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            message = f"{self.path}: evidence can't be read: {error.strerror}; move what is in the way"
            raise EvidenceError(message) from None
        return _verify(self.path, raw[: raw.rfind(b"\n") + 1])

    @contextmanager
    def _locked(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _set_torn_aside(self, file: int) -> bytes:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if torn := raw[len(whole) :]:
            self.path.with_suffix(".torn").write_bytes(torn)
            os.ftruncate(file, len(whole))
        return whole


def ledger_for(root: Path, contract: str, device: str) -> Ledger:
    """The ledger of one contract's runs on one device."""
    return Ledger(root / "evidence" / f"{contract}.{device}.jsonl")


def ledgers_of(root: Path, contract: str) -> dict[str, Ledger]:
    """The ledgers of one contract by device."""
    return {device: ledger_for(root, contract, device) for device in DEVICES}


def evidence_record(run: FalsifierRun) -> dict[str, Any]:
    """What the ledger says of a run: the printed record plus its provenance."""
    return {
        **run.to_json(),
        "contract": run.contract.id,
        "seed": run.provenance.get("system", {}).get("seed"),
        **run.provenance,
    }


def same_evidence(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a run adds nothing to a recorded one: same observation, same digests, same verdict and witnesses."""
    keys = ("id", "verdict", "observed_at", "digests", "inputs", "options", "witnesses", "observations")
    return all(old.get(key) == new[key] for key in keys)


def _write(file: int, size: int, line: bytes) -> None:
    try:
        os.lseek(file, size, os.SEEK_SET)
        left = memoryview(line)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def _well_formed(record: dict[str, Any]) -> bool:
    """Whether the fields that the gate goes by are there and of the right type. May raise what a lookup raises."""
    options, observed_at = record["options"], datetime.fromisoformat(record["observed_at"])
    texts = [
        record["id"],
        record["contract"],
        record["reason"],
        *record["inputs"].values(),
        *record["digests"].values(),
    ]
    return (
        record["format"] == FORMAT
        and record["verdict"] in list(Verdict)
        and observed_at.tzinfo is not None
        and options["device"] in DEVICES
        and (options["model"] is None or isinstance(options["model"], str))
        and all(isinstance(text, str) for text in texts)
        and "previous" in record
    )


def _number(digits: str) -> int | float:
    """Canonical JSON writes floats up to 1e21 without a point: from 2**53 on no integer was meant."""
    number = int(digits)
    return number if abs(number) < 2**53 else float(digits)


def _verify(path: Path, raw: bytes) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    previous: str | None = None
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            record = json.loads(line, parse_int=_number)
            body = {key: value for key, value in record.items() if key != "sha256"}
            intact = canonical(record) == line and digest(body) == record["sha256"] and _well_formed(record)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AprenderError):
            intact = False
        if not intact:
            message = f"{path}:{number}: not a record as this tool writes it: it was changed afterwards"
            raise Tampered(f"{message}; {_REMEDY}")
        if record["previous"] != previous:
            message = f"{path}:{number}: does not follow the line before it: records were removed or reordered"
            raise Tampered(f"{message}; {_REMEDY}")
        previous = record["sha256"]
        records.append(record)
    return records
