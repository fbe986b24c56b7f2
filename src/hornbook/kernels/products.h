/* y = x W^T + bias for few rows of x. Every weight is read from memory once, and that is what takes the time. Sums are
   float32. The width of a matrix and of its groups are multiples of 32. Threads share the rows of W: each calls
   `multiply` with its number. */

#include "vectors.h"

#define WIDE 4    /* rows of x that are multiplied in one go, so that sums stay in registers */
#define STREAMS 4 /* rows of W that are read at the same time, far apart: memory answers to several questions at once */
#define TALL 2    /* blocks of 16 rows, likewise */
#define AHEAD 8192 /* bytes by which memory is asked for before a weight is needed */

enum { INT4 = 4, INT8 = 8, BFLOAT16 = 16, FLOAT32 = 32 };

typedef struct {
    /* (rows, width), one row after the other; INT8 codes (blocks, width, 16), signed, of 16 rows beside each other, the
       last block filled up; INT4 (blocks, width / 8, 16) words of 8 codes from 0 to 15, of which code 2 t + j lies in the
       bits from 4 t + 16 j on */
    const void *weights;
    const uint16_t *scales, *minimums; /* of codes: (blocks, groups, 16) float16; without minimums INT4 means -8 */
    const float *bias;                 /* (rows,), or none */
    int64_t rows, width, group, form;
} Matrix;

/* x (batch, width), in all the ways in which products may want it. */
typedef struct {
    const float *x;
    uint16_t *narrow, *tiles; /* as bfloat16: as it is, and for tiles of the processor */
    float *sums;              /* of the groups, (batch, groups) */
    int64_t batch, width;
    int tiled, paired; /* how it is multiplied */
} Input;

#define COUNTS(call) \
    switch (count) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 3: call(3); break; \
        default: call(4); \
    }

INLINE void put(float *to, float value, int add) { *to = add ? *to + value : value; }

/* ---- rows one after the other ---- */

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

/* `height` rows, `row`, `row` + `apart`, ..., with `count` rows of x from `b` on; `way`, `height` and `count` are
   constants wherever this is drawn in. */
INLINE void plain_rows(
    const Matrix *m, const int way, int64_t row, int64_t apart, const int height, const Input *in, int64_t b,
    const int count, float *y, int add) {
    const float *x = in->x + b * m->width;
    const uint16_t *pairs = in->narrow + b * m->width;
    numbers found[STREAMS][WIDE] = {{{0}}};
    for (int64_t k = 0; k < m->width; k += 32)
        EACH for (int h = 0; h < height; h++) {
            const int64_t at = (row + h * apart) * m->width + k;
            const float *full = (const float *)m->weights + at;
            const uint16_t *narrow = (const uint16_t *)m->weights + at;
            __builtin_prefetch((way == FULL ? (const char *)full : (const char *)narrow) + AHEAD);
            if (way == FULL) __builtin_prefetch((const char *)full + AHEAD + 64);
            if (way == PAIRED) {
                EACH for (int i = 0; i < count; i++)
                    found[h][i] = add_pairs(found[h][i], narrow, pairs + i * m->width + k);
                continue;
            }
            const numbers first = way == FULL ? load(full) : load_bfloat16(narrow);
            const numbers second = way == FULL ? load(full + 16) : load_bfloat16(narrow + 16);
            EACH for (int i = 0; i < count; i++) {
                found[h][i] += first * load(x + i * m->width + k);
                found[h][i] += second * load(x + i * m->width + k + 16);
            }
        }
    EACH for (int h = 0; h < height; h++)
        EACH for (int i = 0; i < count; i++) {
            const int64_t at = row + h * apart;
            put(y + (b + i) * m->rows + at, total(found[h][i]) + (m->bias ? m->bias[at] : 0), add);
        }
}

/* Rows `first` to `last`, with all rows of x, WIDE at a time. */
INLINE void plain(
    const Matrix *m, const int way, const Input *in, float *y, int add, int64_t first, int64_t last) {
    const int64_t apart = (last - first) / STREAMS;
    for (int64_t row = first; row < last; row++) {
        const int height = row < first + apart ? STREAMS : 1;
        if (height == 1 && row < first + apart * STREAMS) row = first + apart * STREAMS;
        if (row >= last) break;
        for (int64_t b = 0; b < in->batch; b += WIDE) {
            const int64_t count = in->batch - b;
#define CALL(n) \
    height == 1 ? plain_rows(m, way, row, 0, 1, in, b, n, y, add) \
                : plain_rows(m, way, row, apart, STREAMS, in, b, n, y, add)
            COUNTS(CALL)
#undef CALL
        }
    }
}

/* ---- codes: a vector holds one column of a block of 16 rows ---- */

/* What the sums of a group mean: scaled, and for 4 bits moved. */
INLINE numbers meant(const Matrix *m, int64_t place, numbers sum, float x) {
    const numbers scale = load_float16(m->scales + place);
    if (m->form == INT8) return sum * scale;
    return sum * scale + (m->minimums ? load_float16(m->minimums + place) : -8 * scale) * x;
}

/* 16 numbers of row b of y, or as many as there are. */
static __attribute__((noinline)) void put_block(const Matrix *m, float *y, int64_t b, int64_t block, numbers sum, int add) {
    const int64_t row = block * 16, some = least(16, m->rows - row);
    float *to = y + b * m->rows + row;
    if (some == 16) {
        if (m->bias) sum += load(m->bias + row);
        store(to, add ? load(to) + sum : sum);
    } else
        for (int64_t i = 0; i < some; i++) put(to + i, sum[i] + (m->bias ? m->bias[row + i] : 0), add);
}

enum { INT4_PAIRED = 1 }; /* 4 bits times bfloat16; the others are named as their forms */

#ifdef __AVX512BF16__
/* Columns 2 t and 2 t + 1 of 16 words of 4-bit codes, as pairs of bfloat16. Of each 16 bits of an index the last five
   count, of which the first is another code's: hence two tables of 16. */
INLINE numbers pairs_of(words some, int t) {
    static const uint16_t whole_numbers[32] = {
        0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
        0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
        0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
    const words index = some >> (4 * t);
    return (numbers)_mm512_permutexvar_epi16((__m512i)index, _mm512_loadu_si512(whole_numbers));
}

INLINE numbers add_pair(numbers sum, numbers pairs, const uint16_t *x) {
    int32_t pair;
    memcpy(&pair, x, 4);
    return (numbers)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(pair));
}
#else
INLINE numbers pairs_of(words some, int t) { return (numbers){0}; }
INLINE numbers add_pair(numbers sum, numbers pairs, const uint16_t *x) { return sum; }
#endif

INLINE void coded_blocks(
    const Matrix *m, const int way, int64_t block, int64_t apart, const int height, const Input *in, int64_t b,
    const int count, float *y, int add) {
    const int64_t groups = m->width / m->group, step = way == INT8 ? 16 : 8; /* bytes of a column of a block */
    const float *x = in->x + b * m->width, *sums = in->sums + b * groups;
    numbers found[TALL][WIDE] = {{{0}}};
    for (int64_t g = 0; g < groups; g++) {
        numbers one[TALL][WIDE] = {{{0}}}, other[TALL][WIDE] = {{{0}}};
        for (int64_t k = g * m->group; k < (g + 1) * m->group; k += 8)
            EACH for (int h = 0; h < height; h++) {
                const uint8_t *from = (const uint8_t *)m->weights + ((block + h * apart) * m->width + k) * step;
                words some;
                memcpy(&some, from, sizeof some);
                __builtin_prefetch(from + AHEAD);
                if (way == INT8) __builtin_prefetch(from + AHEAD + 64);
                EACH for (int t = 0; t < 4; t++) {
                    const int64_t at = k + 2 * t;
                    if (way == INT4_PAIRED) {
                        const numbers pairs = pairs_of(some, t);
                        EACH for (int i = 0; i < count; i++) {
                            numbers *sum = t & 1 ? &other[h][i] : &one[h][i];
                            *sum = add_pair(*sum, pairs, in->narrow + (b + i) * m->width + at);
                        }
                        continue;
                    }
                    numbers first, second;
                    if (way == INT8) {
                        codes low, high;
                        memcpy(&low, from + 32 * t, 16), memcpy(&high, from + 32 * t + 16, 16);
                        first = whole(low ^ 128) - 128, second = whole(high ^ 128) - 128;
                    } else {
                        first = __builtin_convertvector((ints)(some >> (4 * t) & 15), numbers);
                        second = __builtin_convertvector((ints)(some >> (4 * t + 16) & 15), numbers);
                    }
                    EACH for (int i = 0; i < count; i++) {
                        one[h][i] += first * x[i * m->width + at];
                        other[h][i] += second * x[i * m->width + at + 1];
                    }
                }
            }
        EACH for (int h = 0; h < height; h++)
            EACH for (int i = 0; i < count; i++)
                found[h][i] += meant(
                    m, ((block + h * apart) * groups + g) * 16, one[h][i] + other[h][i], sums[i * groups + g]);
    }
    EACH for (int h = 0; h < height; h++)
        EACH for (int i = 0; i < count; i++) put_block(m, y, b + i, block + h * apart, found[h][i], add);
}

INLINE void coded(const Matrix *m, const int way, const Input *in, float *y, int add, int64_t first, int64_t last) {
    const int64_t apart = (last - first) / TALL;
    for (int64_t block = first; block < last; block++) {
        const int height = block < first + apart ? TALL : 1;
        if (height == 1 && block < first + apart * TALL) block = first + apart * TALL;
        if (block >= last) break;
        for (int64_t b = 0; b < in->batch; b += WIDE) {
            const int64_t count = in->batch - b;
#define CALL(n) \
    height == 1 ? coded_blocks(m, way, block, 0, 1, in, b, n, y, add) \
                : coded_blocks(m, way, block, apart, TALL, in, b, n, y, add)
            COUNTS(CALL)
#undef CALL
        }
    }
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) /* tiles of codes are made with both */
#include "tiles.h"
#else
static int tiles_pay(const Matrix *m, int64_t batch) { return 0; }
static void tiled(const Matrix *m, const Input *in, float *y, int add, int64_t first, int64_t last) {}
static void tiled_codes(const Matrix *m, const Input *in, float *y, int add, int64_t first, int64_t last) {}
static void make_tiles(const Matrix *m, Input *in) {}
static int tiles_allowed(void) { return 0; }
#endif

/* ---- any matrix ---- */

/* float32s of memory that `prepare` needs. */
INLINE int64_t room_of(const Matrix *m, int64_t batch) {
    const int64_t full = (batch + 15) / 16 * 16 * m->width;
    return full + (m->form < BFLOAT16 ? batch * m->width / m->group + 16 : 0);
}

/* x (batch, width) for products with m and with others of its form. Where x is no more than bfloat16 it may be rounded
   to that. */
static Input prepare(const Matrix *m, const float *x, int64_t kind, int64_t batch, float *room) {
    const int tiled = kind == BFLOAT16 && tiles_pay(m, batch), paired = kind == BFLOAT16 && CAN_PAIR;
    Input in = {x, (uint16_t *)room, NULL, NULL, batch, m->width, tiled, paired};
    const int64_t padded = (batch + 15) / 16 * 16, size = batch * m->width;
    in.tiles = in.narrow + padded * m->width, in.sums = room + padded * m->width;
    const int narrow = tiled || (paired && (m->form == BFLOAT16 || m->form == INT4));
    if (narrow)
        for (int64_t i = 0; i < size; i += 16) store_bfloat16(in.narrow + i, load(x + i));
    if (tiled) make_tiles(m, &in);
    if (m->form == INT4)
        for (int64_t i = 0; i < size / m->group; i++) {
            numbers sum = {0};
            for (int64_t k = i * m->group; k < (i + 1) * m->group; k += 16)
                sum += narrow ? load_bfloat16(in.narrow + k) : load(x + k); /* as it is multiplied: errors cancel */
            in.sums[i] = total(sum);
        }
    return in;
}

/* Thread number `part` of `parts` makes (or adds) its share of y (batch, rows). */
static __attribute__((noinline)) void multiply(const Matrix *m, const Input *in, float *y, int add, int part, int parts) {
    const int64_t size = m->form < BFLOAT16 || in->tiled ? 16 : 1, blocks = (m->rows + size - 1) / size;
    const int64_t first = blocks * part / parts, last = blocks * (part + 1) / parts;
    if (in->tiled)
        m->form == BFLOAT16 ? tiled(m, in, y, add, first, last) : tiled_codes(m, in, y, add, first, last);
    else if (m->form == INT4 && in->paired)
        coded(m, INT4_PAIRED, in, y, add, first, last);
    else if (m->form == INT4)
        coded(m, INT4, in, y, add, first, last);
    else if (m->form == INT8)
        coded(m, INT8, in, y, add, first, last);
    else if (m->form == FLOAT32)
        plain(m, FULL, in, y, add, first, last);
    else if (in->paired)
        plain(m, PAIRED, in, y, add, first, last);
    else
        plain(m, NARROW, in, y, add, first, last);
}
