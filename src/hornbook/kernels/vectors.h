/* Sixteen numbers at a time, in the vector types of GCC and Clang, which become AVX-512, AVX2 or NEON. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AMX_TILE__)
#include <immintrin.h>
#endif

typedef float numbers __attribute__((vector_size(64)));
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef _Float16 shorts __attribute__((vector_size(32)));
typedef uint8_t codes __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))
#define EACH _Pragma("GCC unroll 8")

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE numbers load(const float *from) {
    numbers v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float *to, numbers v) { memcpy(to, &v, sizeof v); }

#ifdef __AVX512F__ /* one instruction each, which GCC 12 does not find by itself */
INLINE numbers load_bfloat16(const uint16_t *from) {
    return (numbers)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
}

INLINE numbers load_float16(const uint16_t *from) {
    return (numbers)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
#else
INLINE numbers load_bfloat16(const uint16_t *from) {
    halves bits;
    memcpy(&bits, from, sizeof bits);
    return (numbers)(__builtin_convertvector(bits, words) << 16);
}

INLINE numbers load_float16(const uint16_t *from) {
    shorts v;
    memcpy(&v, from, sizeof v);
    return __builtin_convertvector(v, numbers);
}
#endif

INLINE numbers whole(codes c) { /* GCC widens only unsigned bytes without detours */
    return __builtin_convertvector(__builtin_convertvector(c, ints), numbers);
}

INLINE float widened(uint16_t bits) { /* bfloat16 */
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

INLINE uint16_t narrowed(float value) { /* to the nearest bfloat16, ties to even */
    uint32_t word;
    memcpy(&word, &value, 4);
    if ((word & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (word + 0x7fff + ((word >> 16) & 1)) >> 16;
}

INLINE void store_bfloat16(uint16_t *to, numbers v) { /* likewise */
    const words bits = (words)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const words nan = (words)((bits & 0x7fffffff) > 0x7f800000);
    const halves narrow = __builtin_convertvector((rounded & ~nan) | (0x7fc0 & nan), halves);
    memcpy(to, &narrow, sizeof narrow);
}

INLINE float total(numbers v) { /* by halves: sixteen sums one after the other would wait for each other */
    eight low, high;
    memcpy(&low, &v, 32), memcpy(&high, (const char *)&v + 32, 32);
    low += high;
    four left, right;
    memcpy(&left, &low, 16), memcpy(&right, (const char *)&low + 16, 16);
    left += right;
    return (left[0] + left[1]) + (left[2] + left[3]);
}

INLINE numbers chosen(ints where, numbers yes, numbers no) {
    return (numbers)(((words)where & (words)yes) | (~(words)where & (words)no));
}

INLINE numbers exponential(numbers x) { /* 2^n e^r, |r| <= ln(2)/2, e^r by its series: 2 units in the last place */
    x = chosen(x < -87.3f, x - x - 87.3f, x), x = chosen(x > 88.7f, x - x + 88.7f, x);
    const ints n = __builtin_convertvector(x * 1.44269504f + chosen(x < 0, x - x - 0.5f, x - x + 0.5f), ints);
    const numbers whole = __builtin_convertvector(n, numbers);
    const numbers r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    numbers sum = r * (1 / 5040.0f) + 1 / 720.0f;
    sum = sum * r + 1 / 120.0f, sum = sum * r + 1 / 24.0f, sum = sum * r + 1 / 6.0f, sum = sum * r + 0.5f;
    sum = (sum * r + 1) * r + 1;
    const ints half = n >> 1, rest = n - half; /* in two steps: 2^128 is no float32 */
    return sum * (numbers)((half + 127) << 23) * (numbers)((rest + 127) << 23);
}
