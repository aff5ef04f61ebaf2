"""What the contract reference says beside its tables."""

from __future__ import annotations

INTRODUCTION = """\
# Contract reference

<!-- Made by `python scripts/contract_reference.py` from the JSON Schema and the rulebook: change those and run it. -->

Every key that a contract may have, and every rule that `pv validate` knows. For a first contract start with
[contracts.md](contracts.md); for completion while you type see [editors.md](editors.md).

A file with `schema_version: 2` is held to [version 2](#version-2): an unknown key at any depth is an error. A file
without it is read as the [published dialect](#the-published-dialect): what the published parser accepts is accepted,
and an unknown key is a warning. In both, keys that begin with `x-` are yours, at any depth where keys are checked.
"""

EXPRESSIONS = """\
## Expressions

An expectation or a guard is exactly one comparison, at most 500 characters long:

```
val_loss < 0.7 * ln(vocab_size)
abs(val_loss - oracle_val_loss) <= val_loss_envelope
tokens_evaluated >= 512
min(rows, positions) > 2 ** 3
```

| part | what there is |
|---|---|
| comparison | one of `<` `<=` `>` `>=` `==` `!=`, once; no chain, no `and`, no `or`, no `not` |
| arithmetic | `+` `-` `*` `/` `**`, a sign, parentheses |
| functions | `ln(x)`, `log2(x)`, `sqrt(x)`, `abs(x)`, `min(a, b)`, `max(a, b)` |
| names | what the probe observes, such as `val_loss` |
| numbers | `512`, `0.7`, `1e-5` |

A side that has no finite value (a division by zero, an overflow, the logarithm of a negative number) makes the verdict
ERROR, never GREEN.
"""

PUBLISHED = """\
## The published dialect

Contracts without `schema_version` have the blocks of version 2 with the differences below; what is not named is the
same. Their falsifiers are not run. Texts may be empty as far as the shape goes: where a rule forbids it, the key names
the rule.

- *Not mandatory*: version 2 demands the key, the published parser does not.
- *May be empty*: the key may stand there without a value.
- *Of any type*: the key is known, and its value is not checked.
- *Unknown here*: the key belongs to version 2 and gets a warning.
- *Only here*: a key of older contracts, known so that nothing is said about it.
"""

FAMILIES = {
    "yaml": "Reading",
    "schema": "Shape",
    "provability": "Provability",
    "ref": "References",
    "expr": "Expectations and guards",
    "teeth": "Teeth",
    "code": "Code under contract",
    "vacuity": "Vacuity",
    "summary": "Verification summary",
    "status": "Status",
    "bind": "Binding to probes",
    "beat": "Beat benchmarks",
    "kaizen": "Kaizen records",
    "crux": "Competitive research",
    "parity": "Parity ledgers",
    "pm-shape": "Publish manifests",
    "plugin": "Plug-ins",
}
