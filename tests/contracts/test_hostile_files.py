"""Files made to hurt: bounded time, bounded memory, one clear error. Each is checked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS, MEGABYTES = 2, 500

ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGE_BOMB = "m0: &m0 {k0: 1}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 60)
)
HEAD = "schema_version: 2\nmetadata: {version: '1', description: d, references: [r]}\nfalsification_tests:\n"

FILES = {
    "deep list": ("a: " + "[" * 100_000 + "]" * 100_000, "YAML-004"),
    "deep mapping": ("a: " + "{b: " * 100_000 + "}" * 100_000, "YAML-004"),
    "deep block": ("".join(f"{' ' * i}a:\n" for i in range(3000)), "YAML-004"),
    "deep sequence of dashes": ("- " * 100_000, "YAML-004"),
    "alias bomb": (ALIAS_BOMB, "YAML-004"),
    "merge bomb": (MERGE_BOMB, "YAML-006"),
    "a hundred thousand keys": ("".join(f"k{i}: {i}\n" for i in range(100_000)), "SCHEMA-101"),
    "too many keys": ("\n".join(f"k{i}: {i}" for i in range(250_000)), "YAML-004"),
    "a line of ten megabytes": (f"a: {'x' * 10_000_000}\n", "SCHEMA-101"),
    "a key of ten megabytes": (f"{'x' * 10_000_000}: a\n", "YAML-001"),
    "a quoted line of ten megabytes": (f"a: '{'x' * 10_000_000}\n", "YAML-001"),
    "a number of a megabyte": (f"a: {'9' * 1_000_000}\n", "YAML-005"),
    "ten thousand duplicate keys": ("a: 1\n" * 10_000, "SCHEMA-020"),
    "ten thousand merge keys": ("".join(f"k{i}: {{<<: {{a: 1}}}}\n" for i in range(10_000)), "YAML-006"),
    "ten thousand strange tags": ("".join(f"k{i}: !t x\n" for i in range(10_000)), "YAML-003"),
    "more than sixteen megabytes": ("#" * (17 * 2**20), "YAML-004"),
    "twenty thousand empty falsifiers": (HEAD + "  - {}\n" * 20_000, "SCHEMA-101"),
    "ten thousand unknown keys": (HEAD + "  - {" + ", ".join(f"falsifyer{i}: 1" for i in range(10_000)) + "}\n", "SCHEMA-024"),
    "ten thousand expectations": (
        HEAD + "  - id: F-1\n    rule: r\n    prediction: p\n    if_fails: i\n    probe: m:f\n    expect:\n"
        + "".join(f"      - a{i} * b{i} < c{i}\n" for i in range(10_000)), "CODE-001",
    ),
    "a long expectation": (
        HEAD + "  - {id: F-1, rule: r, prediction: p, if_fails: i, probe: 'm:f', expect: ['" + "(" * 50_000 + "']}\n", "EXPR-001",
    ),
    "ten thousand obligations": (
        HEAD + "  - {id: F-1, rule: r, prediction: p, if_fails: i}\nproof_obligations:\n"
        + "".join(f"  - {{id: O-{i}, type: bound, property: p}}\n" for i in range(10_000)), "REF-002",
    ),
    "two thousand covers of four thousand obligations": (
        HEAD + "  - {id: F-1, rule: r, prediction: p, if_fails: i, covers: [" + ", ".join(f"OBL-X{i}" for i in range(2000))
        + "]}\nproof_obligations:\n" + "".join(f"  - {{id: OBL-{i}, type: bound, property: p}}\n" for i in range(4000)), "REF-001",
    ),
    "a thousand near misses": ("".join(f"falsification_test{i}: 1\n" for i in range(1000)), "SCHEMA-101"),
    "null bytes": ("a: \0\n" * 1000, "YAML-001"),
}  # fmt: skip

CHECK = """
import json, sys, time
from pathlib import Path
from aprender.contracts.validate import validate
started = time.process_time()
result = validate([sys.argv[1]])
seconds = time.process_time() - started
# Not getrusage: its peak includes what this process was before it became a Python of its own, a copy of pytest.
peak = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
megabytes = int(peak[0]) / 1024
print(json.dumps([seconds, megabytes, len(result.findings), sorted({f.rule for f in result.findings})]))
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")


@needs_proc
@pytest.mark.parametrize("name", FILES)
def test_hostile_files_end_in_findings_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    """Depth, alias expansion, size and the number of findings are bounded before they cost anything."""
    text, rule = FILES[name]
    path = tmp_path / "contract-v1.yaml"
    path.write_text(text)
    done = subprocess.run([sys.executable, "-c", CHECK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, megabytes, findings, rules = json.loads(done.stdout)
    assert rule in rules
    assert findings <= 1001  # the last one says how many more there are
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


@needs_proc
def test_hostile_bytes_are_findings(tmp_path: Path) -> None:
    """What is no text at all: other encodings, pictures, a lone surrogate."""
    path = tmp_path / "contract-v1.yaml"
    for content in ("a: 1".encode("utf-16"), b"\x89PNG\r\n\x1a\n" * 1000, b"\xed\xa0\x80", bytes(range(256)), b"\xff"):
        path.write_bytes(content)
        done = subprocess.run([sys.executable, "-c", CHECK, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)[3][0] in ("YAML-001", "YAML-002")
