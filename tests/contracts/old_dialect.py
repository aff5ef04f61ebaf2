"""Contracts of the published dialect, typed in many ways: a strategy for Hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Draw = st.DrawFn
WORDS = (
    "Output sums to 1",
    "loss: falls",
    "it's 100% # sure",
    "é: x ≥ 0",
    "true",
    "12",
    "two\nlines",
    "- dash",
    "tab\there",
)


@st.composite
def old_contracts(draw: Draw) -> str:
    """The text of a contract that version 2 has a form for."""
    return _Typist(draw).text(draw(_documents()))


@st.composite
def _documents(draw: Draw) -> dict[str, Any]:
    text = st.sampled_from(WORDS)
    metadata: dict[str, Any] = {
        "version": "1.0.0",
        "description": draw(text),
        "references": draw(st.lists(text, min_size=1, max_size=3)),
    }
    kinds: list[dict[str, Any]] = [
        {"kind": "pattern"},
        {"registry": True},
        {"registry": True, "kind": "kernel"},
        {"registry": False, "kind": "registry"},
    ]
    metadata |= draw(st.sampled_from(kinds))
    metadata |= _some(
        draw, {"status": "VERIFIED", "last_modified": "today", "epic": 12, "author": None, "lessons": ["a"]}
    )
    data: dict[str, Any] = {"metadata": metadata}
    data["falsification_tests"] = [_falsifier(draw, number) for number in range(draw(st.integers(1, 3)))]
    if obligations := [_obligation(draw, number) for number in range(draw(st.integers(0, 3)))]:
        data["proof_obligations"] = obligations
    if draw(st.booleans()):
        equation = {"formula": draw(text), **_some(draw, {"measured": 1.5, "lean_theorem": None})}
        as_list = draw(st.booleans())
        data["equations"] = [{"id": "softmax", **equation}] if as_list else {"softmax": equation}
    data |= _some(
        draw, {"qa_gate": {"id": "G", "name": "n", "min_coverage": 90}, "formats": {"a": [1, None, {"b": 2.5}]}}
    )
    return {key: data[key] for key in draw(st.permutations(list(data)))}


def _some(draw: Draw, entries: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if draw(st.booleans())}


def _falsifier(draw: Draw, number: int) -> dict[str, Any]:
    names = [
        draw(st.sampled_from(pair))
        for pair in (("rule", "description"), ("prediction", "expected"), ("if_fails", "fails_if"))
    ]
    more: dict[str, Any] = {
        "test": "pytest",
        "command": "make",
        "status": "VERIFIED",
        "mutation": {"op": "+"},
        "name": None,
    }
    classes = ["no_mask", {"bias_dropped": "it was lost"}, "bias_twice: added again"]
    more["counter_example_classes"] = classes
    return {"id": f"FALSIFY-{number}", **{name: draw(st.sampled_from(WORDS)) for name in names}, **_some(draw, more)}


def _obligation(draw: Draw, number: int) -> dict[str, Any]:
    claim = {draw(st.sampled_from(("property", "statement"))): draw(st.sampled_from(WORDS))}
    formal = _some(draw, {draw(st.sampled_from(("formal", "verification"))): f"f{number}", "tolerance": 1e-5})
    return {**_some(draw, {"id": draw(st.sampled_from((None, f"O-{number}"))), "type": "bound"}), **claim, **formal}


class _Typist:
    """Types data as YAML with comments, blank lines, flow and block style, every kind of quotes, anchors and aliases."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.comments = 0
        self.anchors: dict[str, str] = {}

    def text(self, data: dict[str, Any]) -> str:
        head = self.draw(st.sampled_from(["", "# head\n\n", "---\n", "%YAML 1.2\n---\n"]))
        lines = self._mapping(data, 0)
        return head + "\n".join(lines) + self.draw(st.sampled_from(["", "\n", "\n# the end\n"]))

    def _chance(self) -> bool:
        return self.draw(st.integers(0, 4)) == 0

    def _between(self, indent: int) -> list[str]:
        self.comments += 1
        return [" " * indent + f"# note {self.comments}"] if self._chance() else [""] if self._chance() else []

    def _mapping(self, data: dict[str, Any], indent: int) -> list[str]:
        lines: list[str] = []
        for key, value in data.items():
            quote = self.draw(st.sampled_from(["", "", '"', "'"]))
            lines += self._between(indent)
            lines += self._entry(" " * indent + f"{quote}{key}{quote}:", value, indent)
        return lines

    def _sequence(self, data: list[Any], indent: int) -> list[str]:
        lines: list[str] = []
        for item in data:
            lines += self._between(indent)
            if isinstance(item, dict) and item and not self._chance():
                first, *rest = [line for line in self._mapping(item, indent + 2) if line.strip()[:1] not in ("", "#")]
                lines += [" " * indent + "- " + first.lstrip(), *rest]
            else:
                lines += self._entry(" " * indent + "-", item, indent)
        return lines

    def _entry(self, start: str, value: Any, indent: int) -> list[str]:
        trailing = f"  # why {self.comments}" if self._chance() else ""
        if isinstance(value, dict | list) and value and not self._chance():
            nested = self._mapping(value, indent + 2) if isinstance(value, dict) else self._sequence(value, indent + 2)
            return [start + trailing, *nested]
        if isinstance(value, str) and "\n" in value and self._chance():
            return [f"{start} |-", *(f"{' ' * (indent + 2)}{line}" for line in value.split("\n"))]
        return [f"{start} {self._inline(value)}{trailing}"]

    def _inline(self, value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {self._inline(entry)}" for key, entry in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._inline, value)) + "]"
        if not isinstance(value, str):
            return json.dumps(value)
        if value in self.anchors:
            return f"*{self.anchors[value]} " if self._chance() else json.dumps(value, ensure_ascii=False)
        text = json.dumps(value, ensure_ascii=False)
        if value.isalpha() and value != "true":
            text = self.draw(st.sampled_from([value, f"'{value}'", text]))
        if self._chance():
            self.anchors[value] = f"a{len(self.anchors)}"
            return f"&{self.anchors[value]} {text}"
        return text
