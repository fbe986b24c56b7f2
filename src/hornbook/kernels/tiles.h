/* Products of 16 rows of x and more by the processor's matrix unit (AMX): tiles of 16 rows of 32 bfloat16, multiplied
   into tiles of 16 x 16 float32 sums. */

#include <sys/syscall.h>
#include <unistd.h>

static int tiles_allowed(void) { /* the kernel gives a process this unit on demand (arch_prctl, XFEATURE_XTILEDATA) */
    static int allowed = -1;
    if (allowed < 0) allowed = !syscall(SYS_arch_prctl, 0x1023, 18);
    return allowed;
}

typedef struct {
    uint8_t palette, start, zero[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) Shapes;

/* Not _tile_loadconfig: GCC 12 believes that this reads 8 bytes, and leaves the others unwritten. */
INLINE void load_shapes(const Shapes *from) { __asm__ volatile("ldtilecfg %0" ::"m"(*from)); }

/* Others (oneDNN) may have shapes of their own in place: they are put back. */
INLINE void begin_tiles(Shapes *before) {
    Shapes all = {.palette = 1};
    for (int i = 0; i < 8; i++) all.bytes[i] = 64, all.rows[i] = 16;
    __asm__ volatile("sttilecfg %0" : "=m"(*before));
    load_shapes(&all);
}

INLINE void end_tiles(const Shapes *before) {
    if (before->palette)
        load_shapes(before);
    else
        _tile_release();
}

INLINE int tiles_pay(const Matrix *m, int64_t batch) { return batch >= 5 && m->form != FLOAT32 && tiles_allowed(); }

/* Of x in bfloat16 (batch, width), filled up with zeros to a multiple of 16 rows. For codes these rows are the tiles;
   for rows of weights, of which each is a row of a tile, x is turned: (parts, width / 2, 16 rows of x, 2). */
static void make_tiles(const Matrix *m, Input *in) {
    const int64_t padded = (in->batch + 15) / 16 * 16, pairs = in->width / 2;
    memset(in->narrow + in->batch * in->width, 0, (padded - in->batch) * in->width * sizeof(uint16_t));
    if (m->form != BFLOAT16) return;
    for (int64_t part = 0; part < padded; part += 16)
        for (int64_t row = 0; row < 16; row++) {
            const uint32_t *from = (const uint32_t *)in->narrow + (part + row) * pairs;
            uint32_t *to = (uint32_t *)in->tiles + part * pairs + row;
            for (int64_t i = 0; i < pairs; i++) to[i * 16] = from[i];
        }
}

/* Blocks of 16 rows of a bfloat16 matrix; a last block that is not whole goes the plain way. */
static void tiled(const Matrix *m, const Input *in, float *y, int add, int64_t first, int64_t last) {
    const int64_t whole_blocks = least(last, m->rows / 16), bytes = m->width * 2;
    const uint16_t *weights = m->weights;
    Shapes before;
    begin_tiles(&before);
    for (int64_t block = first; block < whole_blocks; block += 4) {
        const int64_t height = least(4, whole_blocks - block);
        const uint16_t *from = weights + block * 16 * m->width;
        for (int64_t b = 0; b < in->batch; b += 16) {
            const uint16_t *x = in->tiles + b * m->width;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
#define ROW_TILE(h) \
    if (h < height) { \
        if (!b) \
            for (int i = 0; i < 16; i++) __builtin_prefetch(from + ((h + 4) * 16 + i) * m->width + k, 0, 2); \
        _tile_loadd(4, from + h * 16 * m->width + k, bytes); \
        _tile_dpbf16ps(h, 4, 5); \
    }
            for (int64_t k = 0; k < m->width; k += 32) {
                _tile_loadd(5, x + k * 16, 64);
                ROW_TILE(0) ROW_TILE(1) ROW_TILE(2) ROW_TILE(3)
            }
#undef ROW_TILE
            float sums[4][16][16];
            _tile_stored(0, sums[0], 64);
            _tile_stored(1, sums[1], 64);
            _tile_stored(2, sums[2], 64);
            _tile_stored(3, sums[3], 64);
            for (int64_t i = 0; i < least(16, in->batch - b); i++)
                for (int64_t h = 0; h < height; h++)
                    for (int64_t n = 0; n < 16; n++) {
                        const int64_t row = (block + h) * 16 + n;
                        put(y + (b + i) * m->rows + row, sums[h][n][i] + (m->bias ? m->bias[row] : 0), add);
                    }
        }
    }
    end_tiles(&before);
    if (whole_blocks < last) plain(m, PAIRED, in, y, add, whole_blocks * 16, m->rows);
}

/* One tile of codes as bfloat16: 32 columns of a block of 16 rows, (16, 16 rows, 2). Codes are exact in 8 bits. */
INLINE void tile_of_codes(const Matrix *m, const uint8_t *from, uint16_t *to) {
    if (m->form == INT4) {
        for (int i = 0; i < 4; i++) {
            words some;
            memcpy(&some, from + i * 64, sizeof some);
            __builtin_prefetch(from + i * 64 + AHEAD);
            EACH for (int t = 0; t < 4; t++) store((float *)(to + (i * 4 + t) * 32), pairs_of(some, t));
        }
        return;
    }
    for (int i = 0; i < 16; i++) {
        const __m512i first = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + i * 32)));
        const __m512i second = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + i * 32 + 16)));
        if (!(i & 1)) __builtin_prefetch(from + i * 32 + AHEAD);
        const __m512i low = _mm512_srli_epi32((__m512i)_mm512_cvtepi32_ps(first), 16);
        _mm512_store_si512(to + i * 32, _mm512_or_si512((__m512i)_mm512_cvtepi32_ps(second), low));
    }
}

#define PARTS 4 /* of 16 rows of x that are multiplied with a tile of codes once it is made */

/* Blocks of 16 rows of codes. */
static void tiled_codes(const Matrix *m, const Input *in, float *y, int add, int64_t first, int64_t last) {
    const int64_t groups = m->width / m->group, step = m->form == INT8 ? 16 : 8, bytes = m->width * 2;
    uint16_t some[512] __attribute__((aligned(64)));
    float sums[16][16] __attribute__((aligned(64)));
    Shapes before;
    begin_tiles(&before);
    for (int64_t block = first; block < last; block++)
        for (int64_t start = 0; start < in->batch; start += 16 * PARTS) {
            const int64_t rows = least(16 * PARTS, in->batch - start);
            const uint16_t *x = in->narrow + start * m->width;
            numbers found[16 * PARTS] = {{0}};
            for (int64_t g = 0; g < groups; g++) {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
                for (int64_t k = g * m->group; k < (g + 1) * m->group; k += 32) {
                    tile_of_codes(m, (const uint8_t *)m->weights + (block * m->width + k) * step, some);
                    __asm__ volatile("" ::: "memory"); /* GCC 12 does not know that the next line reads `some` */
                    _tile_loadd(5, some, 64);
#define MULTIPLY(t) \
    if (t * 16 < rows) { \
        _tile_loadd(4, x + t * 16 * m->width + k, bytes); \
        _tile_dpbf16ps(t, 4, 5); \
    }
                    MULTIPLY(0) MULTIPLY(1) MULTIPLY(2) MULTIPLY(3)
#undef MULTIPLY
                }
                const int64_t at = (block * groups + g) * 16;
#define FOLD(t) \
    if (t * 16 < rows) { \
        _tile_stored(t, sums, 64); \
        for (int64_t i = t * 16; i < least(t * 16 + 16, rows); i++) \
            found[i] += meant(m, at, load(sums[i - t * 16]), in->sums[(start + i) * groups + g]); \
    }
                FOLD(0) FOLD(1) FOLD(2) FOLD(3)
#undef FOLD
            }
            for (int64_t i = 0; i < rows; i++) put_block(m, y, start + i, block, found[i], add);
        }
    end_tiles(&before);
}
