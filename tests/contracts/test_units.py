"""Units: unlike things are not compared, added or subtracted; what is written down fits anything."""

from __future__ import annotations

import pytest

from aprender.contracts.expression import column_of, parse
from aprender.contracts.units import UnlikeUnits, check_units, dimension_of

UNITS = {
    "val_loss": "nats", "oracle_loss": "nats", "loss_bits": "bits", "vocab": "tokens", "tokens": "tokens", "rows": "rows",
    "per_row": "tokens/row", "seconds": "s", "speed": "tokens/s", "ratio": "", "area": "m^2", "side": "m",
}  # fmt: skip
ADVICE = "; ln gives nats and log2 bits, and nats / ln(2) are bits"


@pytest.mark.parametrize(
    "text",
    [
        "val_loss < 0.7 * ln(vocab)", "loss_bits < log2(vocab)", "val_loss < 4.8", "abs(val_loss - oracle_loss) <= 1e-3",
        "val_loss / ln(2) < loss_bits", "val_loss < loss_bits * ln(2)", "val_loss < ln(2) * loss_bits", "loss_bits < ln(vocab) / ln(2)",
        "tokens == rows * per_row", "tokens / seconds >= speed", "tokens + 1 > 3 * vocab", "val_loss / oracle_loss < ratio",
        "abs(ln(tokens / vocab)) < ratio", "(val_loss - oracle_loss) ** 2 < oracle_loss ** 2", "sqrt(area) == side", "area == side ** 2",
        "2 ** loss_bits < vocab", "max(val_loss, 1) < oracle_loss", "ratio ** ratio < 2", "-val_loss < -oracle_loss", "1 / speed < 3",
        "ln(vocab) / ln(tokens) < ratio", "ln(tokens) < ln(vocab)", "ln(ratio) < ln(vocab)", "ln(tokens) - ln(seconds) < ln(speed)",
        "0.5 * ln(area) < ln(side)", "ln(val_loss) < ln(3)", "ln(tokens / rows) < ln(per_row)",
    ],
)  # fmt: skip
def test_like_units_go_together(text: str) -> None:
    """Also by way of products, powers, and logarithms of counts."""
    check_units(parse(text), UNITS)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("val_loss < 0.7 * log2(vocab)", "compares nats with bits: 'val_loss' with '0.7 * log2(vocab)'" + ADVICE, 12),
        ("loss_bits < ln(vocab)", "compares bits with nats: 'loss_bits' with 'ln(vocab)'" + ADVICE, 13),
        ("val_loss < loss_bits", "compares nats with bits: 'val_loss' with 'loss_bits'" + ADVICE, 12),
        ("ln(vocab) < log2(vocab)", "compares nats with bits: 'ln(vocab)' with 'log2(vocab)'" + ADVICE, 13),
        ("val_loss < ln(vocab) / ln(2)", "compares nats with bits: 'val_loss' with 'ln(vocab) / ln(2)'" + ADVICE, 12),
        ("abs(val_loss - loss_bits) < 1", "subtracts nats and bits: 'val_loss' and 'loss_bits'" + ADVICE, 16),
        (
            "ln(val_loss) < ln(loss_bits)",
            "compares a logarithm of nats with one of bits: 'ln(val_loss)' with 'ln(loss_bits)'",
            16,
        ),
        (
            "max(ln(tokens), -log2(rows)) < 3",
            "takes the max of nats and bits: 'ln(tokens)' and '-log2(rows)'" + ADVICE,
            17,
        ),
        (
            "min(ln(tokens), -ln(rows)) < 3",
            "takes the min of a logarithm of tokens and one of rows: 'ln(tokens)' and '-ln(rows)'",
            17,
        ),
        ("tokens + rows > 3", "adds tokens and rows: 'tokens' and 'rows'", 10),
        ("tokens == rows", "compares tokens with rows: 'tokens' with 'rows'", 11),
        ("val_loss < ratio", "compares nats with a pure number: 'val_loss' with 'ratio'", 12),
        ("max(val_loss, tokens) < 3", "takes the max of nats and tokens: 'val_loss' and 'tokens'", 15),
        (
            "tokens / seconds > rows / seconds",
            "compares tokens/s with rows/s: 'tokens / seconds' with 'rows / seconds'",
            20,
        ),
        ("area > side", "compares m^2 with m: 'area' with 'side'", 8),
        ("tokens ** ratio < 3", "raises tokens to a power that is observed: 'tokens ** ratio' has no unit", 11),
    ],
)
def test_unlike_units_do_not(text: str, message: str, column: int) -> None:
    """The sentence names both units and both parts, the place is that of the second one."""
    comparison = parse(text)
    with pytest.raises(UnlikeUnits) as refused:
        check_units(comparison, UNITS)
    assert (str(refused.value), column_of(text, refused.value.node)) == (message, column)


@pytest.mark.parametrize(
    ("one", "other"),
    [("tokens", "token"), ("tokens/s", "token s^-1".replace(" s", "*s")), ("m*s/m", "s"), ("m**2", "m*m"), ("", "1"), ("rows / s", "rows/s")],
)  # fmt: skip
def test_ways_of_writing_a_unit(one: str, other: str) -> None:
    """Plural, order and powers make no difference."""
    assert dimension_of(one) == dimension_of(other)


def test_different_units_stay_different() -> None:
    """A short unit keeps its s: ms is no m."""
    assert len({dimension_of(unit) for unit in ("ms", "m", "s", "m/s", "m*s", "", "nats", "bits")}) == 8
