"""Sums of products by named axes: einsum, tensordot."""

from functools import lru_cache
from string import ascii_letters

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import multilinear
from tinygrad_ms.ops.costs import contraction
from tinygrad_ms.ops.linalg.contraction import contract
from tinygrad_ms.ops.linalg.parts import are_half, diagonal
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import permute_dims
from tinygrad_ms.options import as_axes, is_int

__all__ = ["einsum", "tensordot"]


def einsum(subscripts, *operands):
    """Sum of products by named axes: ``einsum("ij,jk->ik", a, b)`` is a @ b.

    A letter that is not in the result is summed over; one that repeats within an operand takes its diagonal;
    ``...`` stands for leading axes that broadcast. Without ``->`` the result has the letters that occur once,
    in alphabetical order. Raises ValueError where subscripts and shapes do not fit.

    >>> tg.einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
    Tensor([3., 7.], dtype=float32)
    """
    if not isinstance(subscripts, str):
        raise TypeError(f'einsum: subscripts is {type(subscripts).__name__}; expected a string first, as "ij,jk->ik"')
    xs = [as_operand(x) for x in operands]
    steps, core, output = _plan_einsum(subscripts, tuple(x.shape for x in xs))
    for i, step, detail in steps:
        diagonals = step == "diagonal"
        xs[i] = diagonal(xs[i], axis1=detail[0], axis2=detail[1]) if diagonals else xs[i].sum(axis=detail)
    if len(xs) > 1:
        return _einsum(*xs, subscripts=core)
    (letters,), _ = _split(core)
    if letters == output:
        return xs[0]
    return permute_dims(xs[0], axes=tuple(letters.index(c) for c in output))


def _einsum_transpose(needed, g, operands, subscripts):
    """The gradient of an operand: it changes places with the result. 'ij,jk->ik' gives 'ik,jk->ij' and 'ij,ik->jk'."""
    inputs, output = _split(subscripts)

    def swapped(i):
        exchanged = _join([output, *inputs[:i], *inputs[i + 1 :]], inputs[i])
        return _einsum(g, *operands[:i], *operands[i + 1 :], subscripts=exchanged)

    return tuple(swapped(i) if wanted else None for i, wanted in enumerate(needed))


@multilinear(
    transpose=_einsum_transpose,
    formula=r"y_{ik} = \sum_j a_{ij} b_{jk}:\quad \bar a_{ij} = \sum_k \bar y_{ik} b_{jk},\quad"
    r" \bar b_{jk} = \sum_i a_{ij} \bar y_{ik}",
    source="the transpose of a contraction is a contraction with the result in place of the operand",
    notes="in the recorded op no operand repeats a letter, and every letter is in two of operands and result",
    flops=contraction,
)
def _einsum(xp, *operands, subscripts):
    """The core of ``einsum``, when diagonals and lone sums have been taken."""
    if are_half(*operands):
        y = _einsum.primitive.forward(xp, *map(wide, operands), subscripts=subscripts)
        return y.astype(operands[0].dtype)
    inputs, output = _split(subscripts)
    if len(operands) == 2:
        return contract(xp, operands[0], operands[1], inputs[0], inputs[1], output)
    return xp.einsum(subscripts, *operands, optimize=True)


def _split(subscripts):
    left, _, output = subscripts.partition("->")
    return left.split(","), output


def _join(inputs, output):
    return f"{','.join(inputs)}->{output}"


@lru_cache(maxsize=1024)
def _plan_einsum(subscripts, shapes):
    """The steps that bring a call to the core form: diagonals of repeated letters, sums over letters that occur once.

    Returns the steps (operand, "diagonal" or "sum", axes), the subscripts of the core, and its output.
    """
    described = f"einsum: subscripts {subscripts!r} with shapes {', '.join(map(str, shapes))}"
    text = subscripts.replace(" ", "")
    inputs = _parse(text, shapes, described)
    names, output = _expand_ellipsis(text, inputs, shapes)
    if len(set(output)) != len(output) or not set(output) <= set("".join(names)):
        raise ValueError(f"{described}: the result must name each of its axes once, by a letter of an operand")
    steps = _simplify(names, output, shapes, _check_sizes(names, shapes, described))
    return steps, _join(names, output), output


def _parse(text, shapes, described):
    """The subscripts of each operand. They must name all of its axes; "..." stands for any number of axes."""
    inputs, _ = _split(text)
    if len(inputs) != len(shapes) or not shapes:
        raise ValueError(f"{described}: {len(inputs)} operands are named and {len(shapes)} given")
    for named, shape in zip(inputs, shapes):
        letters = named.replace("...", "")
        missing = len(shape) - len(letters)
        if not letters.isalpha() and letters or named.count("...") > 1:
            raise ValueError(f"{described}: {named!r} must be letters and at most one '...'")
        if missing < 0 or (missing and "..." not in named):
            raise ValueError(f"{described}: {named!r} names {len(letters)} axes of an operand with {len(shape)}")
    return inputs


def _expand_ellipsis(text, inputs, shapes):
    """The subscripts with unused letters in the place of "...", aligned at the right."""
    counts = [len(shape) - len(named.replace("...", "")) for named, shape in zip(inputs, shapes)]
    used = set(text)
    ellipsis = "".join([c for c in ascii_letters if c not in used][: max(counts)])
    names = [named.replace("...", ellipsis[len(ellipsis) - n :]) for named, n in zip(inputs, counts)]
    if "->" in text:
        return names, _split(text)[1].replace("...", ellipsis)
    letters = text.replace(",", "").replace(".", "")
    return names, ellipsis + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


def _check_sizes(names, shapes, described):
    """The size of each letter. A size of one broadcasts."""
    sizes: dict[str, int] = {}
    for named, shape in zip(names, shapes):
        for c, n in zip(named, shape):
            if sizes.setdefault(c, n) != n:
                if 1 not in (n, sizes[c]):
                    raise ValueError(f"{described}: axis {c!r} has sizes {sizes[c]} and {n}")
                sizes[c] = max(n, sizes[c])
    return sizes


def _simplify(names, output, shapes, sizes):
    """The steps after which no operand repeats a letter and no letter is alone. They update ``names``."""
    steps = []
    for i, shape in enumerate(shapes):
        # An axis of size one meets a larger one of the same letter. It is dropped, and the rest broadcasts.
        stretched = tuple(k for k, (c, n) in enumerate(zip(names[i], shape)) if n != sizes[c])
        if stretched:
            steps.append((i, "sum", stretched))
            names[i] = "".join(c for k, c in enumerate(names[i]) if k not in stretched)
        while repeated := next((c for c in names[i] if names[i].count(c) > 1), None):
            first = names[i].index(repeated)
            second = names[i].index(repeated, first + 1)
            steps.append((i, "diagonal", (first, second)))
            names[i] = "".join(c for k, c in enumerate(names[i]) if k not in (first, second)) + repeated
    for i in range(len(names)):
        others = set(output).union(*names[:i], *names[i + 1 :])
        alone = tuple(k for k, c in enumerate(names[i]) if c not in others)
        if alone:
            steps.append((i, "sum", alone))
            names[i] = "".join(c for c in names[i] if c in others)
    return steps


def tensordot(a, b, axes=2):
    """The sum over ``axes``: a number n (the last n of a with the first n of b) or (axes of a, axes of b)."""
    a, b = as_operand(a), as_operand(b)
    rank_a, rank_b = a.ndim, b.ndim
    shapes = f"tensordot: a has shape {a.shape}, b has shape {b.shape} and axes is {axes!r}"
    if is_int(axes):
        if not 0 <= axes <= min(rank_a, rank_b):
            raise ValueError(f"{shapes}: expected a number of axes that both have")
        axes = (range(rank_a - axes, rank_a), range(axes))
    axes_a, axes_b = map(as_axes, axes)
    if len(axes_a) != len(axes_b):
        raise ValueError(f"{shapes}: they name {len(axes_a)} axes of a and {len(axes_b)} of b")
    for x, chosen, name in ((a, axes_a, "a"), (b, axes_b, "b")):
        if any(not -x.ndim <= i < x.ndim for i in chosen) or len({i % x.ndim for i in chosen}) < len(chosen):
            raise ValueError(f"{shapes}: {name} has no such axes, or one is named twice")
    for i, j in zip(axes_a, axes_b):
        if a.shape[i] != b.shape[j]:
            raise ValueError(f"{shapes}: axis {i} of a and axis {j} of b are summed over and differ in size")
    left, right = list(ascii_letters[:rank_a]), list(ascii_letters[rank_a : rank_a + rank_b])
    for i, j in zip(axes_a, axes_b):
        right[j] = left[i]
    summed = {left[i] for i in axes_a}
    output = "".join(c for c in left + right if c not in summed)
    return einsum(f"{''.join(left)},{''.join(right)}->{output}", a, b)
