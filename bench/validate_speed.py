"""How fast ``pv validate`` is, as ratios in one run on the same files.

    python bench/validate_speed.py [FOLDER]

FOLDER holds real contracts (default: ../shared/corpus). They are copied round by round, under names of the
round, until there are 296 and 1,632 of them. Each measurement is a process of its own; measurements that are
compared alternate, and medians are compared. check-jsonschema is measured where it is installed.

Run it with the Python of a plain installation (pip install .): an editable one imports a finder first.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FEW, MANY = 296, 1632
_IDS = re.compile(r"^\s*(?:-\s+)?\{?id:\s*[\"']?([A-Za-z][\w.-]+)", re.MULTILINE)
PV = str(Path(sys.executable).with_name("pv"))
PEER = str(Path(sys.executable).with_name("check-jsonschema"))

LOAD = """
import sys, time, yaml
from pathlib import Path
files = sorted(Path(sys.argv[1]).rglob("*.yaml"))
started = time.perf_counter()
for file in files:
    yaml.load(file.read_bytes(), yaml.CSafeLoader)
print(time.perf_counter() - started)
"""
VALIDATE = """
import sys, time
import aprender.contracts.check  # the peer's imports are not timed either
from aprender.contracts.validate import validate
started = time.perf_counter()
result = validate([sys.argv[1]])
print(time.perf_counter() - started)
"""
VALIDATE_AGAIN = """
import sys, time
from aprender.contracts.validate import validate
started = time.perf_counter()
result = validate([sys.argv[1]], cached=True)
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared" / "corpus")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default: 9)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        measure(arguments.folder, Path(scratch), arguments.rounds)


def measure(corpus: Path, scratch: Path, rounds: int) -> None:
    """Print one line per claim: what was measured, the ratio, and the bound that it is held to."""
    few, many = (copies(corpus, scratch / str(count), count) for count in (FEW, MANY))
    one = next(file for file in sorted(few.iterdir()) if 4_000 < file.stat().st_size < 6_000)
    size = sum(file.stat().st_size for file in few.iterdir())
    print(f"{FEW} contracts, {size / 1e6:.2f} MB; {MANY} contracts; medians of {rounds} processes each")
    report("one file, cold, against python -c pass", "<= 4.5", alternate(rounds * 3, {
        "pv": lambda: seconds(PV, "validate", str(one)), "peer": lambda: seconds(sys.executable, "-c", "pass"),
    }))  # fmt: skip
    report(f"{FEW} files, cold, against CSafeLoader merely loading them", "<= 1.0", alternate(rounds, {
        "pv": lambda: inside(VALIDATE, few), "peer": lambda: inside(LOAD, few),
    }))  # fmt: skip
    report("the same, whole processes with their start and imports", "no bound", alternate(rounds, {
        "pv": lambda: seconds(PV, "validate", "--quiet", "--no-cache", str(few)),
        "peer": lambda: seconds(sys.executable, "-c", LOAD, str(few)),
    }))  # fmt: skip
    again(few, FEW, rounds)
    again(many, MANY, rounds)
    report(f"{MANY} files on one process, per file, against {FEW} files", "1.0 is linear", alternate(rounds, {
        "pv": lambda: inside(VALIDATE, many, one_processor=True) / MANY, "peer": lambda: inside(VALIDATE, few) / FEW,
    }))  # fmt: skip
    report(f"{MANY} files on {os.cpu_count()} processors against one", "< 1", alternate(rounds, {
        "pv": lambda: inside(VALIDATE, many), "peer": lambda: inside(VALIDATE, many, one_processor=True),
    }))  # fmt: skip
    if Path(PEER).exists():
        schema = scratch / "contract.schema.json"
        schema.write_text(subprocess.run([PV, "schema"], capture_output=True, text=True, check=True).stdout)
        files = [str(file) for file in sorted(few.iterdir())]
        report(f"check-jsonschema on the {FEW} files against pv (whole process)", ">= 8", alternate(min(rounds, 5), {
            "peer": lambda: seconds(PV, "validate", "--quiet", "--no-cache", str(few)),
            "pv": lambda: seconds(PEER, "--schemafile", str(schema), *files),
        }))  # fmt: skip
    else:
        print("check-jsonschema is not installed beside this Python: not measured")
    print(f"peak memory of {MANY} files, one process: {megabytes(many):.0f} MB (<= 60)")


def again(folder: Path, count: int, rounds: int) -> None:
    """What a second run costs when nothing changed."""
    inside(VALIDATE_AGAIN, folder)
    report(f"{count} files, nothing changed, against cold", "<= 0.15", alternate(rounds, {
        "pv": lambda: inside(VALIDATE_AGAIN, folder), "peer": lambda: inside(VALIDATE, folder, one_processor=True),
    }))  # fmt: skip
    report("the same, whole processes with their start and imports", "no bound", alternate(rounds, {
        "pv": lambda: seconds(PV, "validate", "--quiet", str(folder)),
        "peer": lambda: seconds(PV, "validate", "--quiet", "--no-cache", str(folder)),
    }))  # fmt: skip


def copies(corpus: Path, folder: Path, count: int) -> Path:
    """A folder with ``count`` contracts: those of ``corpus``, again and again."""
    folder.mkdir()
    files = sorted(corpus.rglob("*.yaml"))
    if not files:
        sys.exit(f"{corpus}: no contracts there; name a folder of contracts")
    names = re.compile("|".join(sorted((re.escape(file.stem) for file in files), key=len, reverse=True)))
    for number in range(count):
        turn, index = divmod(number, len(files))
        text = files[index].read_text("utf-8")
        renamed = names.sub(rf"\g<0>-{turn}", text)  # what contracts depend on exists
        if ids := sorted(set(_IDS.findall(text)), key=len, reverse=True):  # and no two contracts have one id
            renamed = re.sub(rf"\b(?:{'|'.join(map(re.escape, ids))})(?![\w-])", rf"\g<0>-{turn}", renamed)
        (folder / f"{files[index].stem}-{turn}.yaml").write_text(renamed, "utf-8")
    return folder


def alternate(rounds: int, measured: dict[str, Callable[[], float]]) -> tuple[float, float]:
    """Medians of both sides, measured in turn."""
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, take in measured.items():
            taken[name].append(take())
    return statistics.median(taken["pv"]), statistics.median(taken["peer"])


def report(what: str, bound: str, medians: tuple[float, float]) -> None:
    """One line: the ratio of the two medians, and both."""
    ours, theirs = medians
    print(f"{what}: {ours / theirs:.2f} ({bound}; {1e3 * ours:.4g} ms against {1e3 * theirs:.4g} ms)", flush=True)


def seconds(*command: str) -> float:
    """How long a whole process takes."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def inside(code: str, folder: Path, *, one_processor: bool = False) -> float:
    """What ``code`` says that its work took, in a process of its own."""
    preamble = "import os; os.cpu_count = lambda: 1\n" if one_processor else ""
    done = subprocess.run(
        [sys.executable, "-c", preamble + code, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def megabytes(folder: Path) -> float:
    """Peak resident memory of one validation on one process."""
    code = "import os; os.cpu_count = lambda: 1\n" + VALIDATE
    code += "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
