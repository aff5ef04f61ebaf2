# ruff: noqa: RUF001 - characters that look alike are what these tables are about
"""What stands for what in LaTeX: characters, names of letters, functions. Tables only.

All commands are of LaTeX itself, amsmath or amssymb.
"""

from __future__ import annotations

_GREEK_NAMES = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
    "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
)  # fmt: skip

LETTERS = {name: f"\\{name}" for name in _GREEK_NAMES} | {
    "eps": r"\epsilon", "infinity": r"\infty", "inf": r"\infty", "nabla": r"\nabla", "ell": r"\ell",
}  # fmt: skip

_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", (LETTERS[name] for name in _GREEK_NAMES), strict=True))

# Things that values are made of.
OPERANDS = _GREEK | {
    "ϵ": r"\epsilon", "ϑ": r"\vartheta", "ϕ": r"\phi", "ς": r"\varsigma", "µ": r"\mu",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "𝔼": r"\mathbb{E}", "ℙ": r"\mathbb{P}", "ℓ": r"\ell", "∞": r"\infty", "∅": r"\emptyset", "½": r"\tfrac{1}{2}",
    "¼": r"\tfrac{1}{4}", "⊤": r"\top", "⊥": r"\bot", "ℒ": r"\mathcal{L}", "𝒩": r"\mathcal{N}",
}  # fmt: skip

# What stands before an operand.
PREFIXES = {
    "∂": r"\partial", "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∀": r"\forall", "∃": r"\exists",
    "¬": r"\lnot",
}  # fmt: skip

OPERATORS = {
    "∈": r"\in", "∉": r"\notin", "∋": r"\ni", "⊂": r"\subset", "⊆": r"\subseteq", "⊃": r"\supset", "⊇": r"\supseteq",
    "∪": r"\cup", "∩": r"\cap", "∖": r"\setminus", "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "÷": r"\div",
    "∘": r"\circ", "⊗": r"\otimes", "⊕": r"\oplus", "⊙": r"\odot", "±": r"\pm", "∓": r"\mp", "−": "-", "∗": r"\ast",
    "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "≡": r"\equiv", "≅": r"\cong", "≃": r"\simeq",
    "∼": r"\sim", "∝": r"\propto", "≪": r"\ll", "≫": r"\gg", "→": r"\to", "←": r"\leftarrow", "↔": r"\leftrightarrow",
    "↦": r"\mapsto", "⇒": r"\Rightarrow", "⟹": r"\Longrightarrow", "⇔": r"\Leftrightarrow", "⟺": r"\Longleftrightarrow",
    "⟶": r"\longrightarrow", "∧": r"\land", "∨": r"\lor", "≔": ":=", "≜": r"\triangleq", "∣": r"\mid", "…": r"\ldots",
    "⋯": r"\cdots",
}  # fmt: skip
OPENING = {"⟨": r"\langle", "⌈": r"\lceil", "⌊": r"\lfloor", "(": "(", "[": "["}
CLOSING = {"⟩": r"\rangle", "⌉": r"\rceil", "⌋": r"\rfloor", ")": ")", "]": "]"}

# Operators of more than one ASCII character; longer ones come first.
DIGRAPHS = {
    "<=>": r"\Leftrightarrow", "<->": r"\leftrightarrow", "...": r"\ldots", "||": r"\|", "‖": r"\|", "<=": r"\le",
    ">=": r"\ge", "!=": r"\ne", "==": "=", ":=": ":=", "->": r"\to", "=>": r"\Rightarrow", "&&": r"\land",
    "..": r"\ldots", "+=": r"\mathrel{+}=", "-=": r"\mathrel{-}=",
}  # fmt: skip
SINGLES = {"+": "+", "-": "-", "/": "/", "=": "=", "<": "<", ">": ">", ",": ",", ":": ":", ";": ";", "~": r"\sim"}

_COMMANDS = (
    "exp", "log", "ln", "sin", "cos", "tan", "tanh", "sinh", "cosh", "arcsin", "arccos", "arctan", "max", "min",
    "sup", "arg", "det", "gcd", "lim",
)  # fmt: skip
_UPRIGHT = (
    "argmax", "argmin", "softmax", "sigmoid", "relu", "ReLU", "GELU", "gelu", "SiLU", "silu", "swish", "sign",
    "sgn", "mean", "var", "Var", "std", "erf", "diag", "tr", "rank", "norm", "clamp", "clip", "round", "sum",
    "prod", "count", "len", "abs", "softplus", "KL", "CE", "RMS", "RMSNorm", "LayerNorm",
)  # fmt: skip
FUNCTIONS = {name: f"\\{name}" for name in _COMMANDS} | {name: f"\\operatorname{{{name}}}" for name in _UPRIGHT}
BIG_LETTERS = {"Σ": r"\sum", "Π": r"\prod"}  # with a subscript; a matrix is called Σ, too
QUANTIFIERS = {"forall": r"\forall", "exists": r"\exists"}
LOGARITHMS = {"log2": "2", "log10": "10"}
BIG = {"sum": r"\sum", "prod": r"\prod", "integral": r"\int"}  # with limits, or a variable, behind them
DELIMITED = {"floor": (r"\lfloor", r"\rfloor"), "ceil": (r"\lceil", r"\rceil"), "abs": ("|", "|")}
CONNECTIVES = frozenset((
    "where", "for", "if", "iff", "else", "otherwise", "when", "and", "or", "not", "in", "with", "all", "then", "each",
    "every", "given", "over",
))  # fmt: skip

ACCENTS = {  # combining characters: in text, and in formulas
    "\u0300": ("`", "grave"), "\u0301": ("'", "acute"), "\u0302": ("^", "hat"), "\u0303": ("~", "tilde"),
    "\u0304": ("=", "bar"), "\u0306": ("u", "breve"), "\u0307": (".", "dot"), "\u0308": ('"', "ddot"),
    "\u030a": ("r", "mathring"), "\u030c": ("v", "check"),
}  # fmt: skip

_SUPERSCRIPTS = ("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀᵏᵗᵈᵇᵐᵖˣ", "0123456789+-=()niTktdbmpx")
_SUBSCRIPTS = ("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ᵢⱼₖₗₘₙₚₜₓₐₑₕₒₛᵣᵤᵥ", "0123456789+-=()ijklmnptxaehosruv")
SUPERSCRIPTS, SUBSCRIPTS = (dict(zip(*pair, strict=True)) for pair in (_SUPERSCRIPTS, _SUBSCRIPTS))
