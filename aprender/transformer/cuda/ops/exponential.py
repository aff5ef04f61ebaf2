"""e^x in float32, for kernels that may not be off by more than a rounding."""

from __future__ import annotations

from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def exp(x, EXACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """e^x for float32 x <= 0 or NaN; of other x, which a mask will discard, something or other.

    The GPU's own exponential multiplies x by log2(e) in float32: its relative error grows with abs(x) * 2^-24. EXACT
    takes the whole powers of two out first (Cody and Waite 1980; ln 2 in two parts, the first with 9 trailing zero
    bits), so that the hardware sees only abs(x) <= ln(2)/2 and the result is right to about one unit in the last place.
    """
    if EXACT:
        x = tl.where(x < -104.0, -104.0, x)  # e^-104 is 0 in float32; a comparison, unlike maximum, keeps NaN
        n = tl.floor(x * 1.4426950408889634 + 0.5)
        rest = (x - n * 0.693145751953125) - n * 1.4286068202862268e-06
        return tl.exp(rest) * tl.exp2(n)
    return tl.exp(x)
