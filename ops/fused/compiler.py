"""From a scalar body in restricted Python to a compiled loop: the text of a module, kept on disk with its machine code.

A body is a plain function of floats: arithmetic, comparisons, ``x if c else y``, calls of other such functions, float
constants of its module. Python can run it. numba compiles a text with the body, all that it calls, and the loop around
it. The hash of this one string names the file in the cache, so nothing stale is found there.
"""

import ast
import hashlib
import inspect
import math
import os
import struct
import sys
import textwrap
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

from tinygrad_ms.ops.fused import tiles

__all__: list[str] = []


def bits(x):
    """The bits of a float64 as an integer."""
    return struct.unpack("<q", struct.pack("<d", x))[0]


def from_bits(n):
    """The float64 with the lowest 64 of these bits."""
    return struct.unpack("<d", struct.pack("<Q", n % 2**64))[0]


def two_to(n):
    """2^n as a float, for an integer n. It is made of bits; out of range it is 0 or infinite."""
    return math.inf if n > 1023 else 2.0**n if n > -1023 else 0.0


def left_of(p, a, b):
    """The rounding error of p = a b in float32."""
    return float(Fraction(a) * Fraction(b) - Fraction(p)) if math.isfinite(p) else math.nan


def two_at(t):
    """2^n, for t = n + 1.5 2^23 in float32 or n + 1.5 2^52 in float64, whose lowest bits are n."""
    return 2.0 ** (t - (12582912.0 if t < 1e15 else 6755399441055744.0))


def rank(x):
    """A 32-bit integer that grows with the float32 x. For NaN it is the largest or the least one."""
    n = struct.unpack("<i", struct.pack("<f", x))[0]
    return n if n >= 0 else n ^ 0x7FFFFFFF


def from_rank(n):
    """The float32 whose ``rank`` this is."""
    return struct.unpack("<f", struct.pack("<i", n if n >= 0 else n ^ 0x7FFFFFFF))[0]


def intrinsics() -> dict:
    """The functions above for numba, in a few instructions each."""
    from llvmlite import ir
    from llvmlite.binding import get_host_cpu_features
    from numba import types
    from numba.extending import intrinsic

    def made(source, target, generate):
        def typed(typing_context, value):
            known = target(source) if source else value(value)
            return known, lambda context, builder, signature, arguments: generate(builder, arguments[0])

        return intrinsic(typed)

    i32, i64 = ir.IntType(32), ir.IntType(64)

    def folded(builder, n):
        sign = builder.ashr(n, i32(31))
        return builder.xor(n, builder.and_(sign, i32(0x7FFFFFFF)))

    def power(builder, t):
        """The lowest bits go where the exponent stands."""
        digits, one, whole = (52, 1023, i64) if t.type == ir.DoubleType() else (23, 127, i32)
        k = builder.shl(builder.bitcast(t, whole), whole(digits))
        return builder.bitcast(builder.add(k, whole(one << digits)), t.type)

    def power_of(builder, n):
        """Added to that constant, n is rounded into the lowest bits."""
        return power(
            builder, builder.fadd(n, ir.Constant(n.type, 1.5 * 2.0 ** (52 if n.type == ir.DoubleType() else 23)))
        )

    @intrinsic
    def left_of(typing_context, p, a, b):
        def generate(context, builder, signature, arguments):
            p, a, b = arguments
            if get_host_cpu_features().get("fma", True):
                return builder.fma(a, b, builder.fneg(p))
            p, a, b = (builder.fpext(x, ir.DoubleType()) for x in arguments)
            return builder.fptrunc(builder.fsub(builder.fmul(a, b), p), ir.FloatType())

        return types.float32(types.float32, types.float32, types.float32), generate

    @intrinsic
    def widest(typing_context):
        def generate(context, builder, signature, arguments):
            with suppress(TypeError):  # other versions of llvmlite: vectors are half as long
                set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return types.none(), generate

    return {
        "widest": widest,
        "left_of": left_of,
        "two_to": made(None, None, power_of),
        "two_at": made(None, None, power),
        "bits": made(types.float64, types.int64, lambda b, x: b.bitcast(x, i64)),
        "from_bits": made(types.int64, types.float64, lambda b, n: b.bitcast(n, ir.DoubleType())),
        "rank": made(types.float32, types.int32, lambda b, x: folded(b, b.bitcast(x, i32))),
        "from_rank": made(types.int32, types.float32, lambda b, n: b.bitcast(folded(b, n), ir.FloatType())),
        **tiles.intrinsics(),
    }


MODULES = (__name__, tiles.__name__)  # whose functions numba knows by their names


# --- the text -------------------------------------------------------------------------------------------------------


class Text(ast.NodeTransformer):
    """The text of a module with an entry and all that it calls. ``real``: the dtype of its float constants.

    Without that dtype numba would compute in float64.
    """

    def __init__(self, real: str):
        self.real = real
        self.parts: dict[str, str] = {}  # by name; a function comes after those that it calls
        self.names: dict = {}  # meanings of the names in the function that is being written

    def add(self, function) -> str:
        """Write a function, after all functions that it calls. Returns its name in the text."""
        name = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"
        if isinstance(function, BuiltinFunctionType):
            self.parts[name] = f"from {function.__module__} import {function.__name__} as {name}"
        elif name not in self.parts:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
            assert isinstance(tree, ast.FunctionDef)
            tree.name, tree.decorator_list, tree.returns = name, [], None
            tree.args.args[:0], tree.args.posonlyargs = tree.args.posonlyargs, []
            for argument in tree.args.args:
                argument.annotation = None
            if ast.get_docstring(tree):
                del tree.body[0]
            outer, self.names = self.names, function.__globals__
            mark = "scalar"
            if any(isinstance(node, ast.For) for node in ast.walk(tree)):
                mark = "looping"
                tree.body[:0] = ast.parse("widest()").body
            self.parts[name] = f"@{mark}\n{ast.unparse(ast.fix_missing_locations(self.visit(tree)))}"
            self.names = outer
        return name

    def visit_Constant(self, node):
        if not isinstance(node.value, float):
            return node
        text = repr(node.value) if math.isfinite(node.value) else f"float('{node.value}')"
        return ast.parse(text if self.real == "float64" else f"{self.real}({text})", mode="eval").body

    def visit_Name(self, node):
        return self.named(node, self.names.get(node.id))

    def visit_Attribute(self, node):
        module = self.names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        return self.named(self.generic_visit(node), getattr(module, node.attr, None))

    def named(self, node, value):
        """The text for a name that means a function or a number of a module."""
        if isinstance(value, (FunctionType, BuiltinFunctionType)) and value.__module__ not in MODULES:
            return ast.Name(self.add(value), ast.Load())
        return self.visit_Constant(ast.Constant(value)) if type(value) in (int, float) else node

    def whole(self, entry: str, loop: str = "") -> str:
        """The module; ``entry``: the name of the function that is called from outside; ``loop``: its text if new."""
        if loop:
            self.parts[entry] = loop
        self.parts[entry] = "@entry\n" + self.parts[entry].removeprefix("@looping\n")
        return "\n\n".join(self.parts.values())


# --- the machine code -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The folder of texts and machine code: $TINYGRAD_MS_CACHE, or a folder in the user's cache."""
    given = os.environ.get("TINYGRAD_MS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "tinygrad_ms"


def compiled(name: str, text: str, flags: set[str]):
    """The function ``name`` of the text, compiled when it is first called, or found on disk.

    flags: what LLVM may do with float arithmetic: "contract" a product and a sum to one instruction with one rounding,
    "reassoc" add up in any sequence, as vectors have to; this only in functions with a loop. NaN and infinity stay.
    """
    import numba
    from numpy import float32, float64

    facts = f"# numba {numba.__version__}, {sorted(flags)}\n{inspect.getsource(intrinsics)}{inspect.getsource(tiles)}"
    key = hashlib.sha256((facts + text).encode()).hexdigest()[:20]
    module = ModuleType(f"tinygrad_ms_{name}_{key}")
    path = stored(cache_folder() / f"{name}_{key}.py", text)
    common = {"nogil": True, "error_model": "numpy"}
    vars(module).update(
        intrinsics(), float32=float32, float64=float64, __file__=str(path),
        scalar=numba.njit(fastmath=flags - {"reassoc"}, forceinline=True, **common),
        as_written=numba.njit(fastmath=False, forceinline=True, **common),
        looping=numba.njit(fastmath=flags, forceinline=True, **common),
        entry=numba.njit(fastmath=flags, cache=path is not None, **common),
    )  # fmt: skip
    sys.modules[module.__name__] = module  # numba looks for its cached code under this name
    exec(compile(text, str(path), "exec"), vars(module))
    return vars(module)[name]


def stored(path: Path, text: str) -> Path | None:
    """Write the text to the path and return it; None if nothing can be written."""
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_text(text, encoding="utf-8")
            part.replace(path)
    except OSError:
        return None
    return path
