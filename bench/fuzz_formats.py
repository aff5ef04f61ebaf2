"""Wrong model files by the ten thousand: each must end in success or in one FormatError, soon and in little memory.

    python bench/fuzz_formats.py [--cases N] [--examples N] [--seed N]

Every reader gets --cases byte mutations of a small sound file (default: 20,000), and the three formats --examples files
with a header that Hypothesis makes up (default: 2,000). Each is loaded and inspected. Printed are, for every reader:
cases, how many loaded, the slowest case's CPU time, and the most memory that one took beyond what the process had.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from aprender.errors import FormatError
from aprender.formats import load_checkpoint
from aprender.formats.inspection import inspect_model
from bench.mutations import MADE_UP, model_of, mutated, sound_files

MOST_SECONDS, MOST_MEGABYTES = 2.0, 500.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = sound_files(Path(scratch))
        for file in files.values():
            if not load(model_of(file)):  # also warms everything up
                sys.exit(f"{file}: a sound file was refused")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + (2 << 30), hard))  # beyond: MemoryError, a failure
        wrong = 0
        for kind, file in files.items():
            draw = random.Random(arguments.seed)  # noqa: S311 - mutations, not secrets
            sound = file.read_bytes()
            cases = (mutated(draw, sound, kind) for _ in range(arguments.cases))
            wrong += run(kind, "mutations", file, cases)
            if kind in MADE_UP:
                wrong += run(kind, "made up", file, made_up(kind, arguments.examples, arguments.seed))
            file.write_bytes(sound)
    sys.exit(1 if wrong else 0)


def made_up(kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Hypothesis's examples, gathered first: it wants to call, not to be asked."""
    found: list[bytes] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(MADE_UP[kind]())
    def gather(content: bytes) -> None:
        found.append(content)

    gather()
    yield from found


def run(kind: str, how: str, file: Path, cases: Iterable[bytes]) -> int:
    """One reader, one kind of cases: a line of figures, and how many cases ended badly."""
    count = loaded = wrong = 0
    slowest = most = 0.0
    for content in cases:
        count += 1
        file.write_bytes(content)
        before = forget_peak()
        started = time.process_time()  # not the clock's: the machine may be busy with something else
        try:
            loaded += load(model_of(file))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong += 1
            print(f"{kind}: case {count} ended in {type(error).__name__}: {error}", flush=True)
        slowest = max(slowest, time.process_time() - started)
        most = max(most, peak() - before)
    wrong += slowest > MOST_SECONDS or most > MOST_MEGABYTES
    print(
        f"{kind}, {how}: {count} cases, {loaded} loaded, {count - loaded} refused, {wrong} wrong; "
        f"slowest {slowest:.2f} s of CPU, most memory {most:.0f} MB",
        flush=True,
    )
    return wrong


def load(path: Path) -> bool:
    """Load and inspect; False where one of them refuses."""
    fine = True
    for read in (load_checkpoint, inspect_model):
        try:
            read(path)
        except FormatError as error:
            fine = False
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error
    return fine


def forget_peak() -> float:
    """Reset the peak of resident memory to what is resident now, in MB, and say how much that is."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
