"""What stands before the text of each kernel: half precision, and sums over the threads of a block."""

from tinygrad_ms.ops.fused.symbols import SIGNS

__all__: list[str] = []

TYPES = {
    "e": "half", "E": "brain", "f": "float", "d": "double", "b": "signed char", "h": "short", "i": "int",
    "l": "long long", "q": "long long", "B": "unsigned char", "H": "unsigned short", "I": "unsigned",
    "L": "unsigned long long", "Q": "unsigned long long",
}  # fmt: skip

PRELUDE = """
#ifndef TINYGRAD_MS_PRELUDE
#define TINYGRAD_MS_PRELUDE
struct half {  // float16 as its bits: needs no header of CUDA
    unsigned short bits;
    __device__ operator float() const {
        unsigned sign = (unsigned)(bits & 0x8000) << 16, rest = bits & 0x7fff;
        if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
        if (rest < 0x400) return (sign ? -1.0f : 1.0f) * (float)rest * 5.9604644775390625e-8f;
        return __uint_as_float(sign | ((rest << 13) + 0x38000000));
    }
    __device__ void operator=(float x) {  // to the nearest, halves to the even one
        unsigned n = __float_as_uint(x), sign = n >> 16 & 0x8000, rest = n & 0x7fffffff;
        if (rest > 0x7f800000) bits = (unsigned short)(sign | 0x7e00);
        else if (rest >= 0x477ff000) bits = (unsigned short)(sign | 0x7c00);
        else if (rest < 0x38800000)  // adding 1/2 rounds to multiples of 2^-24
            bits = (unsigned short)(sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000));
        else bits = (unsigned short)(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
    }
};
struct brain {  // bfloat16
    unsigned short bits;
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    __device__ void operator=(float x) {
        unsigned n = __float_as_uint(x);
        bits = (unsigned short)((n & 0x7fffffff) > 0x7f800000 ? n >> 16 | 0x40 : (n + 0x7fff + (n >> 16 & 1)) >> 16);
    }
};
__device__ inline float infinity() { return __uint_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __uint_as_float(0x7fc00000); }
template <class R> __device__ inline R maximum(R a, R b) { return LARGER; }
#define ROWS for (long long i = blockIdx.x; i < rows; i += gridDim.x)
#define ALONG for (long long j = threadIdx.x; j < n; j += blockDim.x)
template <class R> __device__ inline R across(R (*join)(R, R), R v, R none) {  // of all threads of a block, for all
    __shared__ R part[32];
    for (int o = 16; o; o >>= 1) v = join(v, __shfl_xor_sync(0xffffffff, v, o));
    if (blockDim.x > 32) {
        __syncthreads();
        if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
        __syncthreads();
        v = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : none;
        for (int o = 16; o; o >>= 1) v = join(v, __shfl_xor_sync(0xffffffff, v, o));
    }
    return v;
}
template <class R> __device__ inline R add(R a, R b) { return a + b; }
template <class R> __device__ inline R total_of(R v) { return across(add<R>, v, (R)0); }
template <class R> __device__ inline R largest_of(R v) { return across(maximum<R>, v, (R)-infinity()); }
#endif
""".replace("LARGER", SIGNS["maximum"].format("a", "b"))
