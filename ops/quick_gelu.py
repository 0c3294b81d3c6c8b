"""The tanh approximation of gelu for float64 arrays of ordinary numbers on a CPU. It makes few passes, in the cache."""

__all__: list[str] = []


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
