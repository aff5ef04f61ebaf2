"""What changed in one falsifier: what it measures, demands and must catch, and whether it can be passed over."""

from __future__ import annotations

from typing import Any

from aprender.contracts.bounds import ranges_of
from aprender.contracts.change import Pair, same, texts_of

PROSE = ("rule", "description", "prediction", "expected", "if_fails", "fails_if", "name", "tolerance_reason")
_RUN_BY = ("test", "command", "test_harness")  # how the old dialect says what is executed


def compare_falsifier(pair: Pair) -> None:
    """Record every change between the two mappings of ``pair``."""
    _measurement(pair)
    ranges = ranges_of(*(texts_of(side.get("guards")) for side in (pair.old, pair.new)))
    became = pair.compare_texts("expect", "expectation", bounds=True, ranges=ranges)
    pair.compare_texts("guards", "guard", bounds=True, ranges=ranges)
    pair.compare_texts("covers", "covered obligation")
    _classes(pair, became)
    _shipping(pair)
    pair.compare_number("tolerance", larger="weakened")
    if not (pair.old.get("expect") or pair.new.get("expect")):
        for key in ("prediction", "expected"):  # the only bound there is
            pair.compare_claim(key)
    if pair.new.get("tolerance_reason") is None:
        pair.compare_claim("tolerance_reason")
    pair.compare_rest(PROSE)


def _measurement(pair: Pair) -> None:
    """Another probe, or another argument, is another measurement: nobody can tell which one shows more."""
    for key in ("probe", *_RUN_BY):
        old, new = pair.both(key)
        if same(old, new):
            continue
        if new is None:
            pair.add("weakened", f"{key} removed: '{old}' is not run any more", key, old=old)
        elif old is None:
            pair.add("tightened", f"{key} added", key, new=new)
        else:
            pair.add("weakened", f"{key} '{old}' became '{new}': another measurement", key, old=old, new=new)
    inner = pair.inner("with")
    for key in dict.fromkeys((*inner.old, *inner.new)):
        old, new = inner.both(key)
        if not same(old, new):
            what = f"{_shown(old)} became {_shown(new)}: another measurement"
            pair.add("weakened", f"with.{key} {what}", "with", old=old, new=new, names=[f"{inner.name}.{key}"])


def _shipping(pair: Pair) -> None:
    """Whether it stops a release, and where it may be skipped."""
    old, new = (value is True for value in pair.both("ship_blocking"))
    if old != new:
        what = "now ship-blocking" if new else "no longer ship-blocking"
        pair.add("tightened" if new else "weakened", what, "ship_blocking", old=old, new=new)
    before, after = pair.both("requires")
    if not same(before, after):
        if after is None:
            pair.add("neutral", "requires removed: it runs on every host", "requires", old=before)
        else:
            what = f"requires {_shown(before)} became {_shown(after)}: it is skipped on other hosts than before"
            pair.add("weakened", what, "requires", old=before, new=after)
    before, after = pair.both("gate_requires")
    if not same(before, after):
        what = f"gate_requires {_shown(before)} became {_shown(after)}"
        pair.add("weakened" if before is not None else "tightened", what, "gate_requires", old=before, new=after)


def _classes(pair: Pair, became: dict[str, str]) -> None:
    """The defect classes, and for what reason each must turn the falsifier RED."""
    key = "counter_example_classes"
    before, after = (_by_name(value) for value in pair.both(key))
    for name, (index, _) in before.items():
        if name not in after:
            pair.add("weakened", f"defect class '{name}' removed", key, old=name, at=(index, None))
    for name, (index, _) in after.items():
        if name not in before:
            pair.add("tightened", f"defect class '{name}' added", key, new=name, at=(None, index))
    for name, (old_index, old) in before.items():
        if name in after:
            new_index, new = after[name]
            stated = [text if text in new else became.get(text, text) for text in old]
            _violates(pair, name, (old_index, new_index), stated, new)


def _violates(pair: Pair, name: str, at: tuple[int, int], old: list[str], new: list[str]) -> None:
    """The reasons that count as a catch: none stated means any, so the first one stated is stricter."""
    key = "counter_example_classes"
    if old and not new:
        what = f"defect class '{name}' may now turn it RED for any reason: violates removed"
        pair.add("weakened", what, key, old=old, new=[], at=at, names=[name, *old])
        return
    for text in old:
        if text not in new:
            what = f"defect class '{name}' need not violate '{text}' any more"
            pair.add("weakened", what, key, old=text, new=[], at=at, names=[name])
    for text in new:
        if text not in old:
            pair.add(
                "tightened", f"defect class '{name}' must now violate '{text}'", key, new=text, at=at, names=[name]
            )


def _by_name(value: Any) -> dict[str, tuple[int, list[str]]]:
    """Index and ``violates`` of each class: ``slug``, ``slug: story`` in either form, or ``{class: slug, ...}``."""
    found: dict[str, tuple[int, list[str]]] = {}
    for index, entry in enumerate(value if isinstance(value, list) else []):
        if isinstance(entry, dict):
            name = entry.get("class", next(iter(entry), ""))
            found.setdefault(str(name), (index, list(texts_of(entry.get("violates")))))
        else:
            found.setdefault(str(entry).partition(":")[0].strip(), (index, []))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return "none" if value is None else str(value)
