"""Products of vectors, matrices and tensors: matmul, dot, inner, outer, einsum, tensordot, kron."""

from functools import lru_cache
from math import prod
from string import ascii_letters

from tinygrad_ms.engine.around.sentences import shape_of
from tinygrad_ms.engine.primitive import multilinear
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.matrix_parts import diagonal
from tinygrad_ms.ops.shapes import operand, permute_dims

__all__ = ["dot", "einsum", "inner", "kron", "matmul", "outer", "tensordot", "vecdot"]

# --- matrix products ----------------------------------------------------------------------------------------


def _pull_left(g, b, a_shape):
    """The cotangent of a in a @ b: g b^T."""
    if len(b.shape) == 1:  # a matrix or vector times a vector
        return g.reshape((*g.shape, 1)) * b
    if len(a_shape) == 1:  # a vector times matrices
        return (b @ g.reshape((*g.shape, 1))).reshape((*b.shape[:-2], a_shape[0]))
    return matmul(g, b.mT)


def _pull_right(g, a, b_shape):
    """The cotangent of b in a @ b: a^T g. A batch of a against one matrix b is summed inside one product."""
    if len(a.shape) == 1:
        column = a.reshape((a.shape[0], 1))
        return a * g if len(b_shape) == 1 else column * g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    if len(b_shape) > 2:
        return a.mT @ g
    rows, inner = prod(a.shape[:-1]), a.shape[-1]
    return a.reshape((rows, inner)).T @ g.reshape((rows, *b_shape[1:]))


@multilinear(
    transpose=(_pull_left, _pull_right),
    formula=r"Y = A B:\quad \bar A = \bar Y B^T,\quad \bar B = A^T \bar Y",
    source="Giles 2008, section 2.2.2; 004, section 5",
    notes="vectors are rows at the left and columns at the right; leading dimensions broadcast",
)
def matmul(xp, a, b):
    """The matrix product a @ b of (..., n, k) and (..., k, m); either may be a vector (k,).

    Leading dimensions are a batch and broadcast.
    Raises ValueError where the inner dimensions differ, where batches do not broadcast, and for numbers.
    """
    try:
        if a.ndim > 2 and b.ndim == 2:  # one large product instead of a batch of small ones
            rows = a.reshape((prod(a.shape[:-1]), a.shape[-1]))
            return xp.matmul(rows, b).reshape((*a.shape[:-1], b.shape[-1]))
        return xp.matmul(a, b)
    except (ValueError, AttributeError):
        raise ValueError(_why_not(shape_of(a), shape_of(b))) from None


def _why_not(a, b) -> str:
    """The sentence for shapes that cannot be multiplied."""
    if not a or not b:
        return f"matmul: a has shape {a} and b has shape {b}: a number is no matrix; multiply by it with *"
    inner = b[-2] if len(b) > 1 else b[0]
    shapes = f"matmul: a has shape {a} and b has shape {b}"
    if a[-1] == inner:
        return f"{shapes}: the batch dimensions {a[:-2]} and {b[:-2]} do not broadcast"
    text = f"{shapes}: the inner dimensions {a[-1]} and {inner} differ"
    if len(b) > 1 and a[-1] == b[-1]:
        return f"{text}; did you mean a @ b.{'T' if len(b) == 2 else 'mT'}?"
    if len(a) > 1 and a[-2] == inner:
        return f"{text}; did you mean a.{'T' if len(a) == 2 else 'mT'} @ b?"
    return text


def dot(a, b):
    """NumPy's dot: a * b of numbers, else the sum over the last axis of a and the last but one of b."""
    a, b = operand(a), operand(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim == 1 or a.ndim <= 2 >= b.ndim:
        return matmul(a, b)
    return tensordot(a, b, axes=((-1,), (-2,)))


def inner(a, b):
    """The sum over the last axes, y_ij = sum_k a_ik b_jk; of two vectors, their scalar product."""
    a, b = operand(a), operand(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, axes=((-1,), (-1,)))


@multilinear(
    transpose=(
        lambda g, b, a_shape: (g @ b.reshape((b.size,))).reshape(a_shape),
        lambda g, a, b_shape: (a.reshape((a.size,)) @ g).reshape(b_shape),
    ),
    formula=r"Y = a b^T:\quad \bar a = \bar Y b,\quad \bar b = \bar Y^T a",
    source="001, section 4.5",
)
def outer(xp, a, b):
    """y_ij = a_i b_j of two vectors; other shapes are flattened first. Result (a.size, b.size)."""
    return a.reshape((a.size, 1)) * b.reshape((1, b.size))


def vecdot(a, b, axis=-1):
    """The scalar products along ``axis``, with broadcasting."""
    return (operand(a) * operand(b)).sum(axis=axis)


# --- einsum -------------------------------------------------------------------------------------------------


def _einsum_transpose(needed, g, operands, subscripts):
    """Each operand changes places with the result: 'ij,jk->ik' gives 'ik,jk->ij' and 'ij,ik->jk'."""
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
    notes="the recorded op has two or more operands, no letter twice in one, and each letter in two places",
)
def _einsum(xp, *operands, subscripts):
    """The core of ``einsum``, to which diagonals and lone sums have been taken away."""
    inputs, output = _split(subscripts)
    if len(operands) == 2:
        return _contract_pair(xp, *operands, *inputs, output)
    return xp.einsum(subscripts, *operands, optimize=True)


def einsum(subscripts, *operands):
    """Sum of products by named axes: ``einsum("ij,jk->ik", a, b)`` is a @ b.

    A letter that is not in the result is summed over; one that repeats within an operand takes its diagonal;
    ``...`` stands for leading axes that broadcast. Without ``->`` the result has the letters that occur once,
    in alphabetical order. Raises ValueError where subscripts and shapes do not fit.
    """
    if not isinstance(subscripts, str):
        raise TypeError(f'einsum: subscripts is {type(subscripts).__name__}; expected a string first, as "ij,jk->ik"')
    operands = [operand(x) for x in operands]
    steps, core, output = _plan_einsum(subscripts, tuple(x.shape for x in operands))
    for i, step, detail in steps:
        x = operands[i]
        if step == "diagonal":
            operands[i] = diagonal(x, axis1=detail[0], axis2=detail[1])
        else:
            operands[i] = x.sum(axis=detail)
    if len(operands) > 1:
        return _einsum(*operands, subscripts=core)
    (letters,), _ = _split(core)
    if letters == output:
        return operands[0]
    return permute_dims(operands[0], axes=tuple(letters.index(c) for c in output))


def _split(subscripts):
    left, _, output = subscripts.partition("->")
    return left.split(","), output


def _join(inputs, output):
    return f"{','.join(inputs)}->{output}"


@lru_cache(maxsize=1024)
def _plan_einsum(subscripts, shapes):
    """What brings a call to the core form: diagonals of repeated letters, sums over letters with no partner.

    Returns the steps (operand, "diagonal" or "sum", axes), the subscripts of the core, and its output.
    """
    text = subscripts.replace(" ", "")
    inputs, output = _split(text)
    described = f"einsum: subscripts {subscripts!r} with shapes {', '.join(map(str, shapes))}"
    if len(inputs) != len(shapes) or not shapes:
        raise ValueError(f"{described}: {len(inputs)} operands are named and {len(shapes)} given")
    used = set(text)
    spare = [c for c in ascii_letters if c not in used]
    batch = 0  # how many axes the longest ellipsis stands for
    for named, shape in zip(inputs, shapes):
        letters = named.replace("...", "")
        missing = len(shape) - len(letters)
        if not letters.isalpha() and letters or named.count("...") > 1:
            raise ValueError(f"{described}: {named!r} must be letters and at most one '...'")
        if missing < 0 or (missing and "..." not in named):
            raise ValueError(f"{described}: {named!r} names {len(letters)} axes of an operand with {len(shape)}")
        batch = max(batch, missing)
    ellipsis = "".join(spare[:batch])
    names = []
    for named, shape in zip(inputs, shapes):
        count = len(shape) - len(named.replace("...", ""))
        names.append(named.replace("...", ellipsis[batch - count :]))
    if "->" in text:
        output = output.replace("...", ellipsis)
    else:
        letters = text.replace(",", "").replace(".", "")
        output = ellipsis + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(set(output)) != len(output) or not set(output) <= set("".join(names)):
        raise ValueError(f"{described}: the result must name each of its axes once, by a letter of an operand")
    sizes = {}
    for named, shape in zip(names, shapes):
        for c, n in zip(named, shape):
            if sizes.setdefault(c, n) != n:
                if 1 not in (n, sizes[c]):
                    raise ValueError(f"{described}: axis {c!r} has sizes {sizes[c]} and {n}")
                sizes[c] = max(n, sizes[c])
    steps = []
    for i, shape in enumerate(shapes):
        # An axis of size one against a larger one of the same letter: without it, the rest broadcasts.
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
    return steps, _join(names, output), output


def _contract_pair(xp, a, b, left, right, output):
    """Two operands as one batched matrix product: axes in both and in the result are the batch, axes in both
    and not in the result are summed, the others are rows (of a) and columns (of b)."""
    batch, summed, rows, columns = _pair_axes(left, right, output)
    if not summed:  # an elementwise or outer product
        letters = batch + rows + columns
        y = _arrange(xp, a, left, letters) * _arrange(xp, b, right, letters)
    else:
        sizes = dict(zip(left, a.shape)) | dict(zip(right, b.shape))
        batch_shape = [sizes[c] for c in batch]
        n, k, m = (prod(sizes[c] for c in group) for group in (rows, summed, columns))
        a = xp.transpose(a, [left.index(c) for c in batch + rows + summed]).reshape((*batch_shape, n, k))
        b = xp.transpose(b, [right.index(c) for c in batch + summed + columns]).reshape((*batch_shape, k, m))
        letters = batch + rows + columns
        y = xp.matmul(a, b).reshape([sizes[c] for c in letters])
    return y if letters == output else xp.transpose(y, [letters.index(c) for c in output])


@lru_cache(maxsize=1024)
def _pair_axes(left, right, output):
    return (
        "".join(c for c in left if c in right and c in output),
        "".join(c for c in left if c in right and c not in output),
        "".join(c for c in left if c not in right),
        "".join(c for c in right if c not in left),
    )


def _arrange(xp, x, names, letters):
    """The axes of x in the order of ``letters``, with size one where it has none."""
    order = [c for c in letters if c in names]
    shape = iter([x.shape[names.index(c)] for c in order])
    x = xp.transpose(x, [names.index(c) for c in order])
    return x.reshape([next(shape) if c in names else 1 for c in letters])


def tensordot(a, b, axes=2):
    """The sum over ``axes``: a number n (the last n of a with the first n of b) or (axes of a, axes of b)."""
    a, b = operand(a), operand(b)
    rank_a, rank_b = a.ndim, b.ndim
    if isinstance(axes, int):
        axes = (range(rank_a - axes, rank_a), range(axes))
    axes_a, axes_b = ([n] if isinstance(n, int) else list(n) for n in axes)
    if len(axes_a) != len(axes_b):
        raise ValueError(f"tensordot: axes {axes} name {len(axes_a)} axes of a and {len(axes_b)} of b")
    left, right = list(ascii_letters[:rank_a]), list(ascii_letters[rank_a : rank_a + rank_b])
    for i, j in zip(axes_a, axes_b):
        right[j] = left[i]
    summed = {left[i] for i in axes_a}
    output = "".join(c for c in left + right if c not in summed)
    return einsum(f"{''.join(left)},{''.join(right)}->{output}", a, b)


def kron(a, b):
    r"""The Kronecker product of matrices, A (x) B = [a_ij B], (..., n, m) and (..., p, q) -> (..., n p, m q).

    vec(A X B) = (B^T (x) A) vec(X). Leading dimensions broadcast; vectors are taken as in NumPy.
    """
    a, b = operand(a), operand(b)
    if a.ndim < 2 and b.ndim < 2:
        return outer(a, b).reshape((a.size * b.size,))
    a, b = _as_matrix(a), _as_matrix(b)
    y = einsum("...ij,...kl->...ikjl", a, b)
    return y.reshape((*y.shape[:-4], y.shape[-4] * y.shape[-3], y.shape[-2] * y.shape[-1]))


def _as_matrix(x):
    return x.reshape((*(1,) * (2 - x.ndim), *x.shape)) if x.ndim < 2 else x


Tensor.matmul = matmul
Tensor.dot = dot
Tensor.__matmul__ = matmul
Tensor.__rmatmul__ = lambda b, a: matmul(a, b)
