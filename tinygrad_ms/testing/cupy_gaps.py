"""Tables for the strict device: the parts of NumPy 2.4 that CuPy 14.2 lacks, measured by dir() and signature()."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MISSING = _words("""
    False_ ScalarType True_ asmatrix block bmat busday_count busday_offset busdaycalendar bytes_
    character clongdouble complex256 datetime64 datetime_as_string datetime_data einsum_path errstate
    flexible float128 frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall
    histogram_bin_edges info insert is_busday isnat little_endian longdouble matrix matvec memmap
    nanpercentile nanquantile ndenumerate nditer nested_iters object_ polyder polydiv polyint recarray
    record sctypeDict setbufsize seterr seterrcall show_runtime spacing str_ test timedelta64 typecodes
    unstack vecdot vecmat void""")

MISSING_LINALG = _words("""
    diagonal matrix_norm multi_dot outer svdvals tensordot test trace vecdot vector_norm""")

# CuPy has these, but the strict device does not: they are rare, or pass arrays to a function of the caller.
NOT_MODELLED = _words("""
    apply_along_axis apply_over_axes broadcast fromfunction piecewise poly1d put put_along_axis vectorize""")

# Reductions, whose axis must exist: NumPy takes axis 0 and -1 of a 0-d array.
REDUCTIONS = _words("all amax amin any argmax argmin max mean min nanmax nanmin nanprod nansum prod std sum var")

PRODUCTS = _words("dot einsum inner matmul outer tensordot")

_FRESH = _words("arange empty eye full identity indices linspace logspace ones tri zeros")
LIKES = _words("empty_like full_like ones_like zeros_like")
_EXTREMA = _words("amax amin max min nanmax nanmin")
_SUMS = _words("nanprod nansum prod sum")
_SPREADS = _words("nanstd nanvar std var")

# keyword -> functions and methods that do not take it
MISSING_KEYWORDS = {
    "where": _EXTREMA | _SUMS | _SPREADS | _words("all any mean nanmean"),
    "initial": _EXTREMA | _SUMS,
    "mean": _SPREADS,
    "correction": _SPREADS,
    "device": _FRESH | LIKES | _words("fftfreq rfftfreq"),
    "like": _FRESH | _words("ascontiguousarray require"),
    "order": _words("argpartition argsort partition sort"),
    "stable": _words("argsort sort"),
    "kind": _words("argpartition isin partition"),
    "subok": _words("broadcast_arrays broadcast_to copy matmul"),
    "min": _words("clip"),
    "max": _words("clip"),
    "out": _words("einsum"),
    "shape": _words("reshape"),
    "arrays": _words("concat concatenate stack"),
    "weights": _words("percentile quantile"),
    "keepdims": _words("count_nonzero"),
    "sorted": _words("unique"),
    "upper": _words("cholesky"),
    "hermitian": _words("matrix_rank pinv svd"),
    "rtol": _words("matrix_rank pinv"),
}

# How many leading arguments are arrays, if it is not one. The others are passed unchanged. So a device array as an axis
# or a shape fails, because it has no __index__; so it does on CuPy.
ARRAY_ARGUMENTS = {
    **dict.fromkeys(_FRESH, 0),
    **dict.fromkeys(
        _words("""
    allclose append array_equal array_equiv bincount compress convolve copyto correlate cross digitize
    dot extract fill_diagonal full_like inner intersect1d isclose isin kron lstsq matmul outer polyval
    searchsorted select setdiff1d solve tensordot tensorsolve trapezoid union1d vdot"""),
        2,
    ),
    **dict.fromkeys(_words("choose clip interp place putmask where"), 3),
    **dict.fromkeys(_words("atleast_1d atleast_2d atleast_3d broadcast_arrays einsum meshgrid"), 99),
}

# These need only shapes and dtypes, so the host answers at once.
HOST_FUNCTIONS = _words("""
    base_repr binary_repr broadcast_shapes can_cast common_type iscomplexobj isrealobj isscalar
    issubdtype iterable may_share_memory min_scalar_type ndim promote_types result_type shape
    shares_memory size""")

# The host waits for the device in these, mostly for the shape of the result (and in `where` with one argument).
SYNCHRONIZING = _words("""
    argwhere array2string array_repr array_str average bincount compress delete digitize ediff1d extract
    flatnonzero histogram histogram2d histogramdd intersect1d lstsq nanmedian nonzero place setdiff1d
    setxor1d trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values""")

RANDOM = _words("""
    beta binomial chisquare choice dirichlet exponential f gamma geometric gumbel hypergeometric laplace
    logistic lognormal logseries multinomial multivariate_normal negative_binomial noncentral_chisquare
    noncentral_f normal pareto permutation poisson power rand randint randn random random_sample rayleigh
    shuffle standard_cauchy standard_exponential standard_gamma standard_normal standard_t
    triangular uniform vonmises wald weibull zipf""")

RANDOM_GENERATOR = _words("""
    beta binomial chisquare dirichlet exponential f gamma geometric hypergeometric integers logseries
    poisson power random standard_exponential standard_gamma standard_normal uniform""")

# The dtypes with the atomic instruction that `ufunc.at` needs. Other ufuncs have no `at`.
_BITS = _words("int32 int64 uint32 uint64")
_ORDERED = _words("float32 float64 int32 uint32 uint64")
UFUNC_AT = {
    "add": _BITS | _words("float16 float32 float64"),
    "subtract": _words("int32 uint32"),
    "maximum": _ORDERED,
    "minimum": _ORDERED,
    "bitwise_and": _BITS,
    "bitwise_or": _BITS,
    "bitwise_xor": _BITS,
}
