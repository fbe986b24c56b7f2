/* y = x W^T + bias for few rows of x. Every weight is read from memory once, and that is what takes the time.

   Plain C with the vector types of GCC and Clang, 16 numbers at a time, which become AVX-512, AVX2 or NEON. Sums are
   float32. x and y are float32 (kind 0) or bfloat16 (kind 1); the width of a matrix and of its groups are multiples
   of 32. There are two functions: for matrices as torch has them, and for codes of 4 or 8 bits, 16 rows interleaved. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
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
#define TALL 2 /* rows of W (or blocks of 16), and rows of x, that are multiplied in one go: sums stay in registers */
#define WIDE 4
#define STRETCH 32 /* rows of W that a thread takes at a time; they stay in its cache while all rows of x pass */
#ifndef AHEAD
#define AHEAD 8192 /* bytes by which memory is asked for before a weight is needed */
#endif

INLINE numbers load(const float *from) {
    numbers v;
    memcpy(&v, from, sizeof v);
    return v;
}

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

INLINE numbers whole(codes c) {
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

INLINE float total(numbers v) { /* by halves: sixteen sums one after the other would wait for each other */
    eight low, high;
    memcpy(&low, &v, 32), memcpy(&high, (const char *)&v + 32, 32);
    low += high;
    four left, right;
    memcpy(&left, &low, 16), memcpy(&right, (const char *)&low + 16, 16);
    left += right;
    return (left[0] + left[1]) + (left[2] + left[3]);
}

/* x as float32 at the beginning of a line of the cache, and room for y; 0 where there is no memory. */
typedef struct {
    float *room, *x, *y, *sums;
} Work;

static int begin(Work *w, const void *x, void *y, int32_t kind, int64_t batch, int64_t width, int64_t rows, int64_t group) {
    const int64_t copied = batch * width, made = kind ? batch * rows : 0, summed = group ? batch * width / group : 0;
    if (posix_memalign((void **)&w->room, 64, (copied + made + summed) * sizeof(float))) return 0;
    w->x = w->room, w->y = kind ? w->room + copied : (float *)y, w->sums = w->room + copied + made;
    if (kind)
        for (int64_t i = 0; i < copied; i++) w->x[i] = widened(((const uint16_t *)x)[i]);
    else
        memcpy(w->x, x, copied * sizeof(float));
    for (int64_t i = 0; i < summed; i++) {
        numbers sum = {0};
        for (int64_t k = 0; k < group; k += 16) sum += load(w->x + i * group + k);
        w->sums[i] = total(sum);
    }
    return 1;
}

static void end(Work *w, void *y, int32_t kind, int64_t count) {
    if (kind)
        for (int64_t i = 0; i < count; i++) ((uint16_t *)y)[i] = narrowed(w->y[i]);
    free(w->room);
}

#define COUNTS(call) \
    switch (count) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 3: call(3); break; \
        default: call(4); \
    }

/* ---- rows one after the other, in float32 or bfloat16 ---- */

INLINE void plain_rows(
    const void *w, int32_t wide, int64_t width, int64_t rows, int64_t row, const int height, const float *x, const float *bias,
    float *y, const int count) {
    numbers one[TALL][WIDE] = {{{0}}}, other[TALL][WIDE] = {{{0}}};
    for (int64_t k = 0; k < width; k += 32)
        EACH for (int h = 0; h < height; h++) {
            const int64_t at = (row + h) * width + k;
            numbers first, second;
            if (wide) {
                const float *from = (const float *)w + at;
                __builtin_prefetch((const char *)from + AHEAD), __builtin_prefetch((const char *)from + AHEAD + 64);
                first = load(from), second = load(from + 16);
            } else {
                const uint16_t *from = (const uint16_t *)w + at;
                __builtin_prefetch((const char *)from + AHEAD);
                first = load_bfloat16(from), second = load_bfloat16(from + 16);
            }
            EACH for (int b = 0; b < count; b++) {
                one[h][b] += first * load(x + b * width + k);
                other[h][b] += second * load(x + b * width + k + 16);
            }
        }
    EACH for (int h = 0; h < height; h++)
        EACH for (int b = 0; b < count; b++)
            y[b * rows + row + h] = total(one[h][b] + other[h][b]) + (bias ? bias[row + h] : 0);
}

static void plain_stretch(
    const void *w, int32_t wide, int64_t width, int64_t rows, int64_t from, int64_t to, const float *x, const float *bias,
    float *y, int64_t batch) {
    for (int64_t b = 0; b < batch; b += WIDE) {
        const int count = batch - b < WIDE ? batch - b : WIDE;
        int64_t row = from;
#define CALL(n) \
    do { \
        if (wide) { \
            for (; row + TALL <= to; row += TALL) plain_rows(w, 1, width, rows, row, TALL, x + b * width, bias, y + b * rows, n); \
            for (; row < to; row++) plain_rows(w, 1, width, rows, row, 1, x + b * width, bias, y + b * rows, n); \
        } else { \
            for (; row + TALL <= to; row += TALL) plain_rows(w, 0, width, rows, row, TALL, x + b * width, bias, y + b * rows, n); \
            for (; row < to; row++) plain_rows(w, 0, width, rows, row, 1, x + b * width, bias, y + b * rows, n); \
        } \
    } while (0)
        COUNTS(CALL)
#undef CALL
    }
}

/* weights (rows, width): float32 where `wide`, else bfloat16; bias (rows,) float32 or none; x (batch, width),
   y (batch, rows). Returns 0, or 1 where there is no memory. */
int32_t hornbook_plain(
    const void *weights, const float *bias, int32_t wide, int64_t rows, int64_t width, const void *x, void *y, int32_t kind,
    int64_t batch) {
    Work work;
    if (!begin(&work, x, y, kind, batch, width, rows, 0)) return 1;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row += STRETCH)
        plain_stretch(weights, wide, width, rows, row, row + STRETCH < rows ? row + STRETCH : rows, work.x, bias, work.y, batch);
    end(&work, y, kind, batch * rows);
    return 0;
}

/* ---- codes, 16 rows interleaved: a vector holds one column of a block of 16 rows ---- */

typedef struct {
    const uint8_t *codes;             /* (blocks, width, 16), or for 4 bits (blocks, width / 2, 16): low half first */
    const uint16_t *scales, *minimums; /* (blocks, groups, 16) float16 */
    int64_t rows, width, group;
} Coded;

INLINE void coded_blocks(
    const Coded *m, const int bits, int64_t block, const int height, const float *x, const float *sums, float *y, const int count) {
    const int64_t groups = m->width / m->group, step = bits == 8 ? 16 : 8; /* bytes of a column of a block */
    numbers found[TALL][WIDE] = {{{0}}};
    for (int64_t g = 0; g < groups; g++) {
        numbers one[TALL][WIDE] = {{{0}}}, other[TALL][WIDE] = {{{0}}};
        for (int64_t k = g * m->group; k < (g + 1) * m->group; k += 2)
            EACH for (int h = 0; h < height; h++) {
                const uint8_t *from = m->codes + ((block + h) * m->width + k) * step;
                numbers first, second;
                codes low, high;
                memcpy(&low, from, 16);
                __builtin_prefetch(from + AHEAD);
                if (bits == 8) { /* signed as unsigned: GCC widens only those without detours */
                    memcpy(&high, from + 16, 16);
                    first = whole(low ^ 128) - 128, second = whole(high ^ 128) - 128;
                } else {
                    first = whole(low & 15), second = whole(low >> 4);
                }
                EACH for (int b = 0; b < count; b++) {
                    one[h][b] += first * x[b * m->width + k];
                    other[h][b] += second * x[b * m->width + k + 1];
                }
            }
        EACH for (int h = 0; h < height; h++) {
            const int64_t place = ((block + h) * groups + g) * 16;
            const numbers scale = load_float16(m->scales + place);
            const numbers shift = m->minimums ? load_float16(m->minimums + place) : -8 * scale;
            EACH for (int b = 0; b < count; b++) {
                found[h][b] += (one[h][b] + other[h][b]) * scale;
                if (bits == 4) found[h][b] += shift * sums[b * groups + g];
            }
        }
    }
    EACH for (int h = 0; h < height; h++) {
        const int64_t row = (block + h) * 16, some = m->rows - row < 16 ? m->rows - row : 16;
        EACH for (int b = 0; b < count; b++) {
            const numbers sum = found[h][b];
            memcpy(y + b * m->rows + row, &sum, some * sizeof(float));
        }
    }
}

static void coded_stretch(
    const Coded *m, int32_t bits, int64_t from, int64_t to, const float *x, const float *sums, float *y, int64_t batch) {
    const int64_t groups = m->width / m->group;
    for (int64_t b = 0; b < batch; b += WIDE) {
        const int count = batch - b < WIDE ? batch - b : WIDE;
        int64_t block = from;
#define BLOCKS(bits, n) \
    for (; block + TALL <= to; block += TALL) \
        coded_blocks(m, bits, block, TALL, x + b * m->width, sums + b * groups, y + b * m->rows, n); \
    for (; block < to; block++) coded_blocks(m, bits, block, 1, x + b * m->width, sums + b * groups, y + b * m->rows, n);
#define CALL(n) \
    do { \
        if (bits == 8) { BLOCKS(8, n) } else { BLOCKS(4, n) } \
    } while (0)
        COUNTS(CALL)
    }
}

/* As above, with codes of 8 bits (signed, number = scale * code) or 4 (number = minimum + scale * code, or without
   minimums scale * (code - 8)); rows are filled up to a multiple of 16. */
int32_t hornbook_coded(
    const void *codes, const void *scales, const void *minimums, int32_t bits, int64_t rows, int64_t width, int64_t group,
    const void *x, void *y, int32_t kind, int64_t batch) {
    const Coded m = {codes, scales, minimums, rows, width, group};
    const int64_t blocks = (rows + 15) / 16, piece = STRETCH / 16;
    Work work;
    if (!begin(&work, x, y, kind, batch, width, rows, group)) return 1;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block += piece)
        coded_stretch(&m, bits, block, block + piece < blocks ? block + piece : blocks, work.x, work.sums, work.y, batch);
    end(&work, y, kind, batch * rows);
    return 0;
}
