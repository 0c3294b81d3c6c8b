"""The LaTeX of formulas as plain text, for labels and terminals."""

import re

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "phi": "φ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ",
    "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "partial": "∂", "nabla": "∇", "infty": "∞",
    "sum": "Σ", "prod": "Π", "int": "∫", "cdot": "·", "times": "×", "odot": "⊙", "oplus": "⊕", "otimes": "⊗",
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡", "in": "∈",
    "to": "→", "leftarrow": "←", "rightarrow": "→", "mapsto": "↦", "ldots": "…", "cdots": "…", "dots": "…",
    "circ": "∘", "pm": "±",
    "wedge": "∧", "vee": "∨", "neg": "¬", "top": "T", "mid": "|", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈",
    "rceil": "⌉", "langle": "⟨", "rangle": "⟩", "exists": "∃", "forall": "∀", "bmod": "mod", "star": "*", "ast": "*",
    "quad": "  ", "qquad": "   ", ",": "\u2009", ";": " ", ":": " ", "!": "", " ": " ", "#": "#", "%": "%", "_": "_",
    "{": "{", "}": "}", "|": "‖", "Vert": "‖", "lVert": "‖", "rVert": "‖", "left": "", "right": "", "big": "",
    "Big": "", "bigl": "", "bigr": "", "displaystyle": "", "textstyle": "", "limits": "",
    "colon": ":", "ell": "ℓ", "dagger": "†",
}  # fmt: skip
STYLES = {"mathrm", "mathbf", "mathit", "mathcal", "mathsf", "text", "operatorname", "boldsymbol", "textrm", "mathbb"}
ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303", "dot": "\u0307", "overline": "\u0304", "vec": "\u20d7"}
SUPERSCRIPTS = dict(zip("0123456789+-=()nTi", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿᵀⁱ"))
TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[{}^_&~]|\s+|[^\\{}^_&~\s]", re.DOTALL)


def renamed(latex: str, symbols: dict[str, str]) -> str:
    """A formula in which some letters are replaced by other LaTeX. Words and names of functions stay."""
    tokens, out, verbatim = re.findall(r"\\[A-Za-z]+|\\.|[A-Za-z]|.", latex), "", False
    for token, following in zip(tokens, [*tokens[1:], ""]):
        if verbatim and token == "}":
            verbatim = False
        elif token in (r"\operatorname", r"\mathrm", r"\text"):
            verbatim = True
        elif not verbatim and token in symbols:
            symbol = symbols[token]
            token = f"{{({symbol})}}" if following == "_" and "_" in symbol else f"{{{symbol}}}"
        out += token
    return out


def to_text(latex: str) -> str:
    """``\\frac{dy}{dx} = \\cos x`` -> ``dy/dx = cos x``. The text is readable; it may leave out details."""
    tokens = TOKEN.findall(latex)
    text, position = sequence(tokens, 0)
    while position < len(tokens):  # after a closing brace without an opening one
        more, position = sequence(tokens, position + 1)
        text += more
    return re.sub(r" {2,}", "  ", re.sub(" *\u2009 *", " ", text)).strip()


def sequence(tokens, i):
    """The text up to a closing brace or the end, and the position of that end. Formulas nest only a few levels deep."""
    out = ""
    while i < len(tokens) and tokens[i] != "}":
        piece, i = one(tokens, i)
        if piece in (", ", "; ", "]", ")") and tokens[i - 1] != piece:  # of &, \\\\ and the end of a matrix
            out = out.rstrip()
        if out and out[-1].isalnum() and piece[:1].isalpha() and len(piece) > 2 and piece in FUNCTIONS:
            out += " "
        out += piece
    return out, i


FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch", "exp", "log", "ln", "max",
    "min", "sign", "tr", "det", "diag", "arg", "arcsin", "arccos", "arctan", "lim", "sup", "inf",
}  # fmt: skip


def group(tokens, i):
    """The argument of a command, which is a group in braces or one token, and the position after it."""
    while i < len(tokens) and tokens[i].isspace():
        i += 1
    if i < len(tokens) and tokens[i] == "{":
        text, i = sequence(tokens, i + 1)
        return text, i + 1
    return one(tokens, i) if i < len(tokens) else ("", i)


def one(tokens, i):
    token = tokens[i]
    i += 1
    if token == "{":
        text, i = sequence(tokens, i)
        return text, i + 1
    if token == "^":
        text, i = group(tokens, i)
        if text and all(c in SUPERSCRIPTS for c in text):
            return "".join(SUPERSCRIPTS[c] for c in text), i
        return "^" + bracketed(text), i
    if token == "_":
        text, i = group(tokens, i)
        return ("_" + text if len(text) == 1 or text.isalnum() else f"_{{{text}}}"), i
    if token.isspace() or token == "~":
        return " ", i
    if token == "&":
        return ", ", skip_space(tokens, i)
    if not token.startswith("\\"):
        return token, i
    name = token[1:]
    if name in ("frac", "tfrac", "dfrac"):
        above, i = group(tokens, i)
        below, i = group(tokens, i)
        return f"{bracketed(above)}/{bracketed(below)}", i
    if name == "sqrt":
        text, i = group(tokens, i)
        return f"√{bracketed(text)}", i
    if name in ACCENTS:
        text, i = group(tokens, i)
        if name == "vec" and text.isdecimal():  # 1^T, a row of ones; terminals misplace the arrow above a digit
            return text, i
        one_letter = re.fullmatch(r"\w(_\w+|_\{.*\})?(\[.*\])?", text)
        return (text[0] + ACCENTS[name] + text[1:] if one_letter else name + enclosed(text)), i
    if name in STYLES or name.rstrip("*") in STYLES:
        return group(tokens, i)
    if name in ("begin", "end"):
        what, i = group(tokens, i)
        opening, closing = {"cases": ("{ ", ""), "bmatrix": ("[", "]"), "pmatrix": ("(", ")")}.get(what, ("", ""))
        return (opening, skip_space(tokens, i)) if name == "begin" else (closing, i)
    if name == "\\":
        return "; ", skip_space(tokens, i)
    if name in FUNCTIONS:
        following = tokens[i] if i < len(tokens) else ""
        return name + (" " if following and not following.isspace() and following not in "(^_}," else ""), i
    if name in ("partial", "nabla"):
        i = skip_space(tokens, i)
    return SYMBOLS.get(name, name), i


def enclosed(text: str) -> str:
    return text if re.fullmatch(r"\([^()]*\)", text) else f"({text})"


def skip_space(tokens, i):
    return i + 1 if i < len(tokens) and tokens[i].isspace() else i


def bracketed(text: str) -> str:
    """The text in brackets, unless it is one symbol or one product."""
    return text if re.fullmatch(r"[\w∂.'\[\]\u0300-\u036f⁰¹²³⁴⁵⁶⁷⁸⁹]+|\([^()]*\)", text) else f"({text})"
