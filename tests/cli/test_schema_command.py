"""``pv schema`` prints the packaged JSON Schema, byte for byte."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aprender.cli import schema

PACKAGED = Path(schema.__file__).parents[1] / "contracts/schema/contract.schema.json"


def test_the_packaged_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Redirected into a file it is the same file, so that a saved copy can be compared with ``diff``."""
    parser = argparse.ArgumentParser()
    schema.configure(parser)
    assert schema.run(parser.parse_args([])) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (PACKAGED.read_text("utf-8"), "")


def test_an_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """There is one schema for both dialects: nothing to choose."""
    parser = argparse.ArgumentParser(prog="pv schema")
    schema.configure(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["contract.yaml"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: contract.yaml" in capsys.readouterr().err
