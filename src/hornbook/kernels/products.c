/* y = x W^T + bias for few rows of x. Every weight is read from memory once, and that is what takes the time.

   Plain C with the vector types of GCC and Clang, 16 numbers at a time, which become AVX-512, AVX2 or NEON. Sums are
   float32. x and y are float32 (kind 0) or bfloat16 (kind 1); the width of a matrix and of its groups are multiples
   of 32. There are two functions: for matrices as torch has them, and for codes of 4 or 8 bits, 16 rows interleaved. */

#include <math.h>
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
#define WIDE 4 /* rows of x that are multiplied in one go, so that sums stay in registers */
#ifndef STREAMS
#define STREAMS 4 /* rows of W that are read at the same time, far apart: memory answers to several questions at once */
#endif
#ifndef TALL
#define TALL 2 /* blocks of 16 rows, likewise */
#endif
#define DEEP 16 /* vectors of 16 in the widest head */
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

/* x at the beginning of a line of the cache, as float32 or, `paired`, as bfloat16; and room for y. */
typedef struct {
    float *room, *x, *y, *sums;
    uint16_t *pairs;
} Work;

static int begin( /* 0 where there is no memory */
    Work *w, const void *x, void *y, int32_t kind, int paired, int64_t batch, int64_t width, int64_t rows,
    int64_t group) {
    const int64_t copied = batch * width, made = kind ? batch * rows : 0, summed = group ? batch * width / group : 0;
    if (posix_memalign((void **)&w->room, 64, (copied + made + summed) * sizeof(float))) return 0;
    w->x = w->room, w->y = kind ? w->room + copied : (float *)y, w->sums = w->room + copied + made;
    w->pairs = (uint16_t *)w->room;
    if (paired)
        memcpy(w->pairs, x, copied * sizeof(uint16_t));
    else if (kind)
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

typedef struct {
    const void *weights;
    const float *bias;
    int64_t rows, width;
} Plain;

enum { NARROW, FULL, PAIRED }; /* bfloat16 times float32, float32 times float32, bfloat16 times bfloat16 */

#ifdef __AVX512BF16__ /* pairs of bfloat16 are multiplied and summed in float32 by one instruction */
#define CAN_PAIR 1
INLINE numbers add_pairs(numbers sum, const uint16_t *w, const uint16_t *x) {
    return (numbers)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
}
#else
#define CAN_PAIR 0
INLINE numbers add_pairs(numbers sum, const uint16_t *w, const uint16_t *x) {
    sum += load_bfloat16(w) * load_bfloat16(x);
    return sum + load_bfloat16(w + 16) * load_bfloat16(x + 16);
}
#endif

/* `height` rows, `row`, `row` + `apart`, ..., with `count` rows of x from `b` on; `form`, `height` and `count` are
   constants wherever this is drawn in. */
INLINE void plain_rows(
    const Plain *m, const int form, int64_t row, int64_t apart, const int height, const Work *work, int64_t b,
    const int count) {
    const float *x = work->x + b * m->width;
    const uint16_t *pairs = work->pairs + b * m->width;
    float *y = work->y + b * m->rows;
    numbers found[STREAMS][WIDE] = {{{0}}};
    for (int64_t k = 0; k < m->width; k += 32)
        EACH for (int h = 0; h < height; h++) {
            const int64_t at = (row + h * apart) * m->width + k;
            const float *full = (const float *)m->weights + at;
            const uint16_t *narrow = (const uint16_t *)m->weights + at;
            __builtin_prefetch((form == FULL ? (const char *)full : (const char *)narrow) + AHEAD);
            if (form == FULL) __builtin_prefetch((const char *)full + AHEAD + 64);
            if (form == PAIRED) {
                EACH for (int i = 0; i < count; i++)
                    found[h][i] = add_pairs(found[h][i], narrow, pairs + i * m->width + k);
                continue;
            }
            const numbers first = form == FULL ? load(full) : load_bfloat16(narrow);
            const numbers second = form == FULL ? load(full + 16) : load_bfloat16(narrow + 16);
            EACH for (int i = 0; i < count; i++) {
                found[h][i] += first * load(x + i * m->width + k);
                found[h][i] += second * load(x + i * m->width + k + 16);
            }
        }
    EACH for (int h = 0; h < height; h++)
        EACH for (int i = 0; i < count; i++) {
            const int64_t at = row + h * apart;
            y[i * m->rows + at] = total(found[h][i]) + (m->bias ? m->bias[at] : 0);
        }
}

/* The same rows with all rows of x, WIDE at a time. */
INLINE void plain_batch(
    const Plain *m, const int form, int64_t row, int64_t apart, const int height, const Work *work, int64_t batch) {
    for (int64_t b = 0; b < batch; b += WIDE) {
        const int64_t count = batch - b;
#define CALL(n) plain_rows(m, form, row, apart, height, work, b, n)
        COUNTS(CALL)
#undef CALL
    }
}

#define IN_FORM(row, apart, height) \
    switch (form) { \
        case NARROW: plain_batch(&m, NARROW, row, apart, height, &work, batch); break; \
        case FULL: plain_batch(&m, FULL, row, apart, height, &work, batch); break; \
        case PAIRED: plain_batch(&m, PAIRED, row, apart, height, &work, batch); \
    }

/* weights (rows, width): float32 where `wide`, else bfloat16; bias (rows,) float32 or none; x (batch, width),
   y (batch, rows). Returns 0, or 1 where there is no memory. */
int32_t hornbook_plain(
    const void *weights, const float *bias, int32_t wide, int64_t rows, int64_t width, const void *x, void *y,
    int32_t kind, int64_t batch) {
    const Plain m = {weights, bias, rows, width};
    const int64_t apart = rows / STREAMS;
    const int form = wide ? FULL : kind && CAN_PAIR ? PAIRED : NARROW;
    Work work;
    if (!begin(&work, x, y, kind, form == PAIRED, batch, width, rows, 0)) return 1;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < apart; row++) IN_FORM(row, apart, STREAMS)
    for (int64_t row = apart * STREAMS; row < rows; row++) IN_FORM(row, 0, 1)
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
    const Coded *m, const int bits, int64_t block, int64_t apart, const int height, const float *x, const float *sums,
    float *y, const int count) {
    const int64_t groups = m->width / m->group, step = bits == 8 ? 16 : 8; /* bytes of a column of a block */
    numbers found[TALL][WIDE] = {{{0}}};
    for (int64_t g = 0; g < groups; g++) {
        numbers one[TALL][WIDE] = {{{0}}}, other[TALL][WIDE] = {{{0}}};
        for (int64_t k = g * m->group; k < (g + 1) * m->group; k += 2)
            EACH for (int h = 0; h < height; h++) {
                const uint8_t *from = m->codes + ((block + h * apart) * m->width + k) * step;
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
            const int64_t place = ((block + h * apart) * groups + g) * 16;
            const numbers scale = load_float16(m->scales + place);
            const numbers shift = m->minimums ? load_float16(m->minimums + place) : -8 * scale;
            EACH for (int b = 0; b < count; b++) {
                found[h][b] += (one[h][b] + other[h][b]) * scale;
                if (bits == 4) found[h][b] += shift * sums[b * groups + g];
            }
        }
    }
    EACH for (int h = 0; h < height; h++) {
        const int64_t row = (block + h * apart) * 16, some = m->rows - row < 16 ? m->rows - row : 16;
        EACH for (int b = 0; b < count; b++) {
            const numbers sum = found[h][b];
            memcpy(y + b * m->rows + row, &sum, some * sizeof(float));
        }
    }
}

INLINE void coded_batch(
    const Coded *m, const int bits, int64_t block, int64_t apart, const int height, const Work *work, int64_t batch) {
    for (int64_t b = 0; b < batch; b += WIDE) {
        const int64_t count = batch - b;
        const float *sums = work->sums + b * m->width / m->group;
#define CALL(n) coded_blocks(m, bits, block, apart, height, work->x + b * m->width, sums, work->y + b * m->rows, n)
        COUNTS(CALL)
#undef CALL
    }
}

/* As above, with codes of 8 bits (signed, number = scale * code) or 4 (number = minimum + scale * code, or without
   minimums scale * (code - 8)); rows are filled up to a multiple of 16. */
int32_t hornbook_coded(
    const void *codes, const void *scales, const void *minimums, int32_t bits, int64_t rows, int64_t width,
    int64_t group, const void *x, void *y, int32_t kind, int64_t batch) {
    const Coded m = {codes, scales, minimums, rows, width, group};
    const int64_t blocks = (rows + 15) / 16, apart = blocks / TALL;
    Work work;
    if (!begin(&work, x, y, kind, 0, batch, width, rows, group)) return 1;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < apart; block++)
        if (bits == 8)
            coded_batch(&m, 8, block, apart, TALL, &work, batch);
        else
            coded_batch(&m, 4, block, apart, TALL, &work, batch);
    for (int64_t block = apart * TALL; block < blocks; block++)
        if (bits == 8)
            coded_batch(&m, 8, block, 0, 1, &work, batch);
        else
            coded_batch(&m, 4, block, 0, 1, &work, batch);
    end(&work, y, kind, batch * rows);
    return 0;
}

/* ---- attention of one new token in each row to what its row of the cache holds ---- */

INLINE numbers load_kind(const void *from, const int wide) {
    return wide ? load((const float *)from) : load_bfloat16((const uint16_t *)from);
}

typedef struct {
    const char *query;
    char *keys, *values, *out;
    int64_t heads, groups, width, slots;
} Heads;

/* One head of one row: softmax(q K^T / sqrt(width)) V over `count` slots from `first` on (Vaswani et al. 2017) */
INLINE void attend(
    const Heads *m, const int wide, int64_t row, int64_t head, int64_t first, int64_t count, float *scores) {
    const int64_t size = wide ? 4 : 2, bytes = m->width * size;
    const int64_t block = (row * m->groups + head / (m->heads / m->groups)) * m->slots + first;
    const char *query = m->query + (row * m->heads + head) * bytes;
    const char *keys = m->keys + block * bytes, *values = m->values + block * bytes;
    numbers q[DEEP], found[DEEP] = {{0}};
    const int64_t parts = m->width / 16;
    const float scale = 1 / sqrtf(m->width);
    float most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < parts; i++) q[i] = load_kind(query + i * 16 * size, wide) * scale;
    for (int64_t s = 0; s < count; s++) {
        numbers score = {0};
        for (int64_t i = 0; i < parts; i++) score += q[i] * load_kind(keys + s * bytes + i * 16 * size, wide);
        scores[s] = total(score);
        most = scores[s] > most ? scores[s] : most;
    }
    for (int64_t s = 0; s < count; s++) {
        const float weight = expf(scores[s] - most);
        sum += weight;
        for (int64_t i = 0; i < parts; i++) found[i] += weight * load_kind(values + s * bytes + i * 16 * size, wide);
    }
    for (int64_t i = 0; i < parts; i++) {
        const numbers mixed = found[i] / sum;
        char *to = m->out + (row * m->heads + head) * bytes + i * 16 * size;
        if (wide)
            memcpy(to, &mixed, 64);
        else
            for (int j = 0; j < 16; j++) ((uint16_t *)to)[j] = narrowed(mixed[j]);
    }
}

/* query (rows, heads, width), key and value (rows, groups, width) of the new token, which are first written to slot
   at[row] of keys and values (rows, groups, slots, width); out as query. All float32 (kind 0) or bfloat16 (1); width a
   multiple of 16, at most 256. A row sees its last `window` slots, or all where that is 0. */
int32_t hornbook_attend(
    const void *query, const void *key, const void *value, void *keys, void *values, void *out, const int64_t *at,
    int32_t kind, int64_t rows, int64_t heads, int64_t groups, int64_t width, int64_t slots, int64_t window) {
    const Heads m = {query, keys, values, out, heads, groups, width, slots};
    const int64_t bytes = width * (kind ? 2 : 4);
    int64_t longest = 0, failed = 0;
    for (int64_t row = 0; row < rows; row++) {
        longest = at[row] + 1 > longest ? at[row] + 1 : longest;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t to = ((row * groups + g) * slots + at[row]) * bytes, from = (row * groups + g) * bytes;
            memcpy((char *)keys + to, (const char *)key + from, bytes);
            memcpy((char *)values + to, (const char *)value + from, bytes);
        }
    }
#pragma omp parallel if (rows * heads * longest * width > 200000) reduction(| : failed)
    {
        float *scores = malloc(longest * sizeof(float));
        failed |= !scores;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows * heads; i++) {
            const int64_t row = i / heads, seen = at[row] + 1;
            const int64_t count = window && window < seen ? window : seen;
            if (!scores) continue;
            if (kind)
                attend(&m, 0, row, i % heads, seen - count, count, scores);
            else
                attend(&m, 1, row, i % heads, seen - count, count, scores);
        }
        free(scores);
    }
    return failed != 0;
}
