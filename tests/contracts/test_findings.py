"""Suggestions: the name that was meant."""

from __future__ import annotations

import difflib

from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.findings import did_you_mean

NAMES = st.lists(st.text("abc_", max_size=8), max_size=12, unique=True)


@given(st.text("abc_", min_size=1, max_size=8), NAMES)
def test_the_suggestion_is_the_close_match_of_difflib(word: str, names: list[str]) -> None:
    """It is found in another order, but among names that are equally near it is the same one."""
    (nearest,) = difflib.get_close_matches(word, names, n=1, cutoff=0.6) or [""]
    assert did_you_mean(word, names) == (f" Did you mean '{nearest}'?" if nearest else "")
