"""The kernels of gelu for large arrays of ordinary numbers on a CPU. They make few passes, in the cache."""

from tinygrad_ms.ops.normal import DENSITY, MILLS_IN_FLOAT32

__all__: list[str] = []


def quick_gelu(xp, x, out, itemsize=4):
    """y and its slope in float32, by float64. The two polynomials of Mills' ratio are one product of matrices."""
    y, slope, above = out
    flat = x.reshape(-1)
    powers = xp.empty((6, x.size))  # of a = |x|
    powers[0] = 1
    a, square, cube = powers[1:4]
    a[...] = flat
    xp.abs(a, out=a)
    xp.multiply(a, a, out=square)
    xp.multiply(square, a, out=cube)
    xp.multiply(square, square, out=powers[4])
    xp.multiply(square, cube, out=powers[5])
    tail, work = MILLS_IN_FLOAT32 @ powers
    tail /= work
    square *= -0.5
    q = xp.exp(square, out=square)
    n = xp.subtract(tail, xp.multiply(a, DENSITY, out=work), out=work)
    n *= q
    tail *= q
    tail *= a
    xp.maximum(x, 0, out=y)
    above[...] = tail.reshape(x.shape)
    y -= above
    above[...] = x >= 0
    slope[...] = n.reshape(x.shape)
    n = slope * above  # the value at a is 1 minus the value at -a
    slope -= n
    slope -= n
    slope += above
    return y, slope


TANH_C, TANH_E_C, TANH_N_C = -0.7524642944335938, 0.2919537720630858, -7.067899231101432e-06  # see ops/gelu.py
_LINE, _CUBE = 1.5957691216057308, 0.07135481627260025  # v = _LINE x + _CUBE x^3
_LINE_PARTS = 1.595769121605727, 3.675065195634423e-15  # the first a multiple of 2^-46
_CUBE_PARTS = 0.07135486602783203, -4.975523178247366e-08  # the first a multiple of 2^-22
_TO_12_BITS, _TO_28_BITS = 1.5 * 2.0**40, 1.5 * 2.0**24  # x + this - this is x with so many bits behind the point
_EXP = 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0


def quick_gelu_tanh(xp, x, out):
    """y and its slope in float64, |x| < 32. e^v is right to its last digits, though v is large.

    h is x rounded to 12 bits behind the point, so the leading parts of k(h) = _LINE + _CUBE h^2 are exact. Rounded to
    28 bits, k(h) times h is exact, too. This product is most of v, and the rest is small.
    """
    y, slope, h, p, k, rest = out
    xp.add(x, _TO_12_BITS, out=h)
    h -= _TO_12_BITS
    xp.multiply(h, h, out=p)
    xp.multiply(p, _CUBE_PARTS[0], out=k)
    k += _LINE_PARTS[0]
    xp.add(x, h, out=rest)  # v(x) - v(h) = (x - h) (_LINE + _CUBE (x^2 + x h + h^2))
    rest *= x
    rest += p
    rest *= _CUBE
    rest += _LINE
    rest *= xp.subtract(x, h, out=y)
    p *= _CUBE_PARTS[1]
    p += _LINE_PARTS[1]
    most = xp.add(k, _TO_28_BITS, out=y)
    most -= _TO_28_BITS
    k -= most
    p += k
    p *= h
    rest += p
    most *= h
    most = xp.exp(most, out=most)
    xp.multiply(rest, _EXP[0], out=k)  # e^rest - 1
    for c in _EXP[1:-1]:
        k += c
        k *= rest
    k += _EXP[-1]
    e = rest
    e *= k
    e *= most
    e += most
    xp.add(x, TANH_C, out=h)  # the numerator of the slope as in ops/gelu.py
    h *= x
    h += TANH_C**2
    d = xp.subtract(x, TANH_C, out=p)
    xp.multiply(h, 0.5 * _CUBE, out=k)
    k += 0.5 * _LINE
    k *= d
    xp.tanh(k, out=k)
    k *= xp.add(e, TANH_E_C, out=y)
    k += TANH_N_C
    h *= 3 * _CUBE
    h += _LINE
    h *= d
    k += h
    q = xp.divide(1, e, out=p)
    xp.divide(x, xp.add(q, 1, out=y), out=y)
    q += e
    q += 2
    return y, xp.divide(k, q, out=slope)
