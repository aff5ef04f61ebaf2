"""Break each kernel of the CUDA path in known ways, one at a time, and see whether its tests notice.

    python bench/kernel_mutants.py [WORD]

Works on a copy of the checkout in a temporary folder; WORD selects mutants whose file or text contains it. Prints one
line per mutant with the first test that failed, and exits with 1 when one survived.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OPS = "aprender/transformer/cuda/ops"
TESTS = "tests/transformer/cuda_ops"


class Mutant(NamedTuple):
    """One edit of a kernel: ``before`` occurs in ``file``, and its first occurrence becomes ``after``."""

    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def of(file: str, tests: str, *edits: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, before, after, tuple(f"test_{name}.py" for name in tests.split())) for before, after in edits]


# fmt: off
MUTANTS = [
    *of(
        "rms_norm.py",
        "rms_norm",
        ("mean_square + eps", "mean_square"),
        ("tl.div_rn(1.0, tl.sqrt_rn(mean_square + eps))", "tl.div_rn(1.0, tl.sqrt_rn(mean_square) + eps)"),
        ("tl.sum(h * h, axis=1) * (1.0 / D)", "tl.sum(h * h, axis=1) * (1.0 / (D - 1 + (D == 1)))"),
        ("tl.sum(h * h, axis=1) * (1.0 / D)", "tl.sum(h * h, axis=1) * (1.0 / WIDTH)"),
        ("h * scale[:, None] * weight[None, :]", "h * scale[:, None]"),
        ("h * scale[:, None] * weight[None, :]", "h * scale[:, None] * (1.0 + weight[None, :])"),
        ("h = stored.to(tl.float32)", "h = h + added.to(tl.float32)"),
        ("(weighted - normed * through_r[:, None])", "weighted"),
        ("gradient += tl.load(d_residual", "gradient -= tl.load(d_residual"),
        ("weighted = d_out * weight[None, :]", "weighted = d_out"),
        ("d_gain += tl.sum(d_out * normed, axis=0)", "d_gain += tl.sum(d_out * h_row, axis=0)"),
        ("d_gain += tl.sum(d_out * normed, axis=0)", "d_gain = tl.sum(d_out * normed, axis=0)"),
        ("inside = (row < rows)[:, None] & (column < D)[None, :]\n    place", "inside = (row < rows - 1)[:, None] & (column < D)[None, :]\n    place"),
    ),
    *of(
        "rope.py",
        "rope_and_swiglu",
        ("(a * angle_cos - b * angle_sin)", "(a * angle_cos + b * angle_sin)"),
        ("target + R, (b * angle_cos + a * angle_sin)", "target + R, (b * angle_cos - a * angle_sin)"),
        ("angle_sin = -angle_sin", "angle_sin = angle_sin"),
        ("inside = (head < H)", "inside = (head < 1)"),
        ("(token < N)\n", "(token < N - 1)\n"),
        ("source + R", "source + 1"),
        ("tl.load(positions + token, mask=token < N, other=0)", "(token % T)"),
        ("known = (position >= 0) & (position < table_rows)", "known = position >= 0"),
    ),
    *of(
        "swiglu.py",
        "rope_and_swiglu",
        ("(g * s * u)", "(u * s * g * s)"),
        ("(g * s * u)", "(g * s)"),
        ("decay = exp(-tl.abs(x), EXACT=True)", "decay = exp(-tl.abs(x) * 1.702, EXACT=True)"),
        ("(1.0 + g * rest)", "(1.0 + g)"),
        ("d_out * g * s).to", "d_out * s).to"),
        ("tl.where(x >= 0, larger, smaller)", "larger"),
        ("(column < F)", "(column < F - 1)"),
        ("(row < N)", "(row < N - 1)"),
    ),
    *of(
        "exponential.py",
        "rope_and_swiglu cross_entropy attention",
        ("n * 1.4286068202862268e-06", "n * 1.5e-06"),
        ("tl.where(x < -104.0, -104.0, x)", "x * 1.0"),
    ),
    *of("residual.py", "rms_norm", ("to(tl.float32) + tl.load", "to(tl.float32) - tl.load"), ("place < n)\n\n", "place < n - 1)\n\n")),
    *of(
        "linear.py",
        "linear_and_embedding",
        ("x.dtype, self.bias)", "x.dtype, None)"),
        ("product(d_y_MN, self.weight, x.dtype)", "product(d_y_MN, self.weight * 1.01, x.dtype)"),
        ("product(d_y_MN.T, x.reshape(-1, K), torch.float32)", "product(d_y_MN.T, x.reshape(-1, K), x.dtype).float()"),
        ("torch.sum(d_y_MN, 0", "torch.mean(d_y_MN, 0"),
        ("torch.sum(d_y_MN, 0, dtype=torch.float32, out=d_bias)", "d_bias.copy_(torch.sum(d_y_MN, 0))"),
    ),
    *of("matmul.py", "linear_and_embedding", ("sums.add_(bias_N)", "sums.add_(bias_N, alpha=2)")),
    *of(
        "embedding.py",
        "linear_and_embedding all_stages",
        ("tl.load(tokens + n, mask=n < N, other=0)", "(tl.load(tokens + n, mask=n < N, other=0) + 1)"),
        ("total += tl.sum", "total = tl.sum"),
        ("mask=occurs, other=0)", "mask=place < end[:, None] - 1, other=0)"),
        ("place < end[:, None]", "place <= end[:, None]"),
        ("tl.max(end - begin, axis=0)", "tl.min(end - begin, axis=0)"),
        ("(token < V)[:, None]", "(token < V - 1)[:, None]"),
        ("known = (token >= 0) & (token < V)", "known = token < V"),
        ("(n < N) & (column < D)", "(n < N) & (column < D - 1)"),
    ),
    *of(
        "attention_mask.py",
        "attention",
        ("seen = key_position <= query_position", "seen = key_position < query_position"),
        ("seen = key_position <= query_position", "seen = key_position <= query_position + 1"),
        ("query_position - key_position < window", "query_position - key_position <= window"),
        ("(query_document == key_document) &", "(query_document >= key_document) &"),
        ("alive = alive & (document >= 0)", "alive = alive & (document >= -1)"),
        ("seen = seen & (key_position <= last)", "seen = seen & (key_position <= first)"),
        ("full = seen & (key_position <= first) & alike", "full = seen & (key_position <= last) & alike"),
        ("full = seen & (key_position <= first) & alike", "full = seen & (key_position <= first)"),
        ("full = full & (last - key_position < window)", "full = full & (first - key_position < window)"),
        ("greatest(key + 1, seen)", "greatest(key, seen)"),
        ("(tl.minimum(full_begin, S) + KEYS - 1) // KEYS * KEYS", "tl.minimum(full_begin, S) // KEYS * KEYS"),
        ("sees & (query_position >= first)", "sees & (query_position > first)"),
        ("sees = sees & (query_position - last < window)", "sees = sees & (query_position - first < window)"),
        ("greatest(query + 1, sees)", "greatest(query, sees)"),
        ("for start in range(0, S, SCAN)", "for start in range(0, SCAN, SCAN)"),
        ("for start in range(0, T, SCAN)", "for start in range(0, SCAN, SCAN)"),
    ),
    *of(
        "attention_forward.py",
        "attention",
        ('input_precision="ieee") * scale', 'input_precision="ieee") * scale * 1.001'),
        ('input_precision="ieee") * scale', 'input_precision="ieee")'),
        ("mass = mass * rescale + tl.sum(weights, axis=1)", "mass = mass + tl.sum(weights, axis=1)"),
        ("mass = mass * rescale + tl.sum(weights, axis=1)", "mass = mass * rescale + tl.sum(weights, axis=1) * 0.999"),
        ("v_tile, total * rescale[:, None]", "v_tile, total"),
        ("seen = seen & alive[None, :]", "seen = seen"),
        ("v_tile = tl.where(wild, 0.0, v_tile)", "v_tile = v_tile"),
        ("tl.where(wild_seen > 0.0, float(\"nan\"), total)", "total"),
        ("exp(scores - base[:, None], EXACT)", "exp(scores, EXACT)"),
        ("(head // GROUP).to(tl.int64) * k_stride_g", "(head % (H // GROUP)).to(tl.int64) * k_stride_g"),
        ("(head // GROUP).to(tl.int64) * v_stride_g", "(head % (H // GROUP)).to(tl.int64) * v_stride_g"),
        ("blind = mass == 0.0", "blind = mass < 0.0"),
        ("float(\"inf\"), peak + tl.log", "float(\"inf\"), tl.log"),
        ("(full_end, end, S, scale", "(full_end, full_end, S, scale"),
        ("(full_begin, full_end, S, scale", "(full_begin, full_begin, S, scale"),
        ("(begin, full_begin, S, scale", "(full_begin, full_begin, S, scale"),
        ("tl.where(new_peak == float(\"-inf\"), 0.0, new_peak)", "new_peak"),
    ),
    *of(
        "attention_backward.py",
        "attention",
        ("tl.sum(d_tile * out_tile, axis=1)", "tl.sum(d_tile * out_tile, axis=1) * 0.0"),
        ("tl.sum(d_tile * out_tile, axis=1)", "tl.sum(d_tile * d_tile, axis=1)"),
        ('input_precision="ieee") * scale', 'input_precision="ieee")'),
        ("weights * (d_weights - delta[:, None])", "d_weights - delta[:, None]"),
        ("tl.where(seen, weights * (d_weights - delta[:, None]), 0.0)", "weights * (d_weights - delta[:, None])"),
        ("tl.where(seen, exp(scores - lse[:, None], EXACT), 0.0)", "exp(scores - lse[:, None], EXACT)"),
        ("(gradient * scale).to", "gradient.to"),
        ("(k_gradient * scale).to", "k_gradient.to"),
        ("k = k + batch * k_stride_b + head // GROUP * k_stride_g", "k = k + batch * k_stride_b + head % (H // GROUP) * k_stride_g"),
        ("for member in range(GROUP)", "for member in range(1)"),
        ("head = group * GROUP + member", "head = member * (H // GROUP) + group"),
        ("tl.trans(weights.to(d_tile.dtype)), d_tile, v_gradient", "tl.trans(weights.to(d_tile.dtype)), d_tile, v_gradient * 0.0"),
        ("(d_scores.to(q_tile.dtype)), q_tile, k_gradient", "(d_scores.to(q_tile.dtype)), d_tile, k_gradient"),
        ("finite = alive & counted & (lse_tile == lse_tile)", "finite = alive"),
        ("tl.where(delta_tile == delta_tile, lse_tile, delta_tile)", "lse_tile"),
        ("tl.where(idle, float(\"inf\"), total)", "total"),
        ("tl.where(total - total == 0.0, total, float(\"nan\"))", "total"),
        ("== 0.0, k_tile, 0.0)", "== 0.0, k_tile, k_tile)"),
        ("seen = seen & (alive & counted)[:, None] & k_alive[None, :]\n        _weights", "seen = seen & k_alive[None, :]\n        _weights"),
        ("seen & (alive & counted)[:, None] & k_alive[None, :]\n            weights", "seen & alive[:, None] & k_alive[None, :]\n            weights"),
        ("inside = (key < S)[:, None]", "inside = (key < S - 1)[:, None]"),
    ),
    *of(
        "cross_entropy.py",
        "cross_entropy",
        ("valid = target != ignore_index", "valid = target == target"),
        ("sums * exp(peak - base, True)[:, None] +", "sums +"),
        ("loss = tl.where(known, (peak - z_target) + log_sum", "loss = tl.where(known, (peak - z_target) + log_sum * 1.001"),
        ("loss = tl.where(known, (peak - z_target)", "loss = tl.where(known, (0.0 - z_target)"),
        ("mask=inside, other=float(\"-inf\"))\n        new_peak", "mask=inside, other=0.0)\n        new_peak"),
        ("mask=n < N)", "mask=n < N - 1)"),
        ("p - (start + column == target[:, None]).to(tl.float32)", "p"),
        ("(start + column == target[:, None])", "(start + column == target[:, None] + 1)"),
        ("to(tl.float32)) * weight", "to(tl.float32))"),
        ("d_weight += product", "d_weight = product"),
        ("d_x[rows] = product(d_logits, self.weight, torch.float32)", "d_x[rows] = product(d_logits, self.weight, x.dtype)"),
        ("(losses_N.sum(dtype=torch.float64) / valid)", "(losses_N.sum(dtype=torch.float64) / len(losses_N))"),
        ("(d_x * scale).to", "d_x.to"),
        ("d_weight * scale}", "d_weight}"),
        ("x_nD.dtype != torch.float32:", "False:"),
    ),
    *of(
        "adamw.py",
        "adamw",
        ("beta1 * tl.load(m", "1.0 * tl.load(m"),
        ("rest1 * gradient", "gradient"),
        ("rest2 * (gradient * gradient)", "rest2 * gradient"),
        ("second, tl.zeros_like(second) + correction2", "second, tl.zeros_like(second) + 1.0"),
        ("first, tl.zeros_like(first) + correction1", "first, tl.zeros_like(first) + 1.0"),
        ("root + eps)", "root)"),
        ("tl.sqrt_rn(tl.div_rn(second, tl.zeros_like(second) + correction2))", "tl.sqrt_rn(tl.div_rn(second, tl.zeros_like(second) + correction2) + eps * eps)"),
        ("lr * step + decay * weight", "lr * step"),
        ("lr * step + decay * weight", "lr * (step + decay * weight)"),
        ("gradient *= tl.load(clip)", "gradient *= 1.0"),
        ("weight.to(copy.dtype.element_ty)", "(weight * 1.01).to(copy.dtype.element_ty)"),
        ("tl.store(v + place, second", "tl.store(v + place, second * 0.0"),
        ("to(tl.float64)\n", "to(tl.float32)\n"),
        ("tl.sum(values * values, axis=0)", "tl.sum(values, axis=0)"),
        (".sum().sqrt()", ".sum()"),
        ("(max_norm / norm).clamp(max=1.0)", "(max_norm / norm)"),
        ("1.0 - self.beta1**t", "1.0 - self.beta1"),
        ("float(self.lr), self.lr * self.weight_decay", "float(self.lr), self.weight_decay"),
    ),
]
# fmt: on


def failed(folder: Path, tests: Iterable[str]) -> str | None:
    """Run tests in ``folder``: the first that failed, or None."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"{TESTS}/{name}" for name in tests),
    ]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    lines = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].split("/")[-1].split(" - ")[0] if lines else f"exit {result.returncode}"


def first_failure(folder: Path, mutant: Mutant) -> str | None:
    """Run the mutant's tests in its folder: the first that failed, or None when it survived."""
    path = folder / OPS / mutant.file
    original = path.read_text("utf-8")
    if mutant.before not in original:
        sys.exit(f"{mutant.file} does not contain {mutant.before!r}: this list is out of date")
    path.write_text(original.replace(mutant.before, mutant.after, 1), "utf-8")
    try:
        return failed(folder, mutant.tests)
    finally:
        path.write_text(original, "utf-8")


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    selected = [mutant for mutant in MUTANTS if word in mutant.file or word in mutant.before]
    survived = 0
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # an edit within one second of another must not meet its bytecode
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("aprender", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        for cached in folder.rglob("__pycache__"):
            shutil.rmtree(cached)
        if unmutated := failed(folder, sorted({name for mutant in selected for name in mutant.tests})):
            sys.exit(f"{unmutated} fails without any mutant: a failure would show nothing")
        for mutant in selected:
            failure = first_failure(folder, mutant)
            survived += failure is None
            print(f"{failure or 'SURVIVED'} | {mutant.file} | {mutant.before!r} -> {mutant.after!r}", flush=True)
    print(f"{len(selected)} mutants, {len(selected) - survived} killed, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
