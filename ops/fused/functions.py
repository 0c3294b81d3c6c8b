"""Elementary functions of large arrays, and the error function: those of ``mathematics``, in loops."""

from tinygrad_ms.ops.fused import mathematics as m
from tinygrad_ms.ops.fused import single
from tinygrad_ms.ops.fused.kernels import each

__all__: list[str] = []

each(wide=False)(single.exp)
for _function in (m.expm1, m.log, m.log1p, m.erf):
    each()(_function)
each(far=(m.FAR, "math.sin"))(m.sin)
each(far=(m.FAR, "math.cos"))(m.cos)
