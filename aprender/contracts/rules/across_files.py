from __future__ import annotations


def check_set(summaries):
    return []
