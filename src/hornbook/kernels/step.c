/* One pass of a Transformer over a few tokens, in one call: a program of operations on float32 numbers that threads go
   through together. And a product alone. See __init__.py for who builds programs. */

#include "products.h"

#include <omp.h>

#define DEEP 16 /* vectors of 16 numbers in the widest head */

INLINE numbers load_kind(const void *from, int64_t at, int64_t kind) {
    return kind == BFLOAT16 ? load_bfloat16((const uint16_t *)from + at) : load((const float *)from + at);
}

INLINE void store_kind(void *to, int64_t at, int64_t kind, numbers v) {
    kind == BFLOAT16 ? store_bfloat16((uint16_t *)to + at, v) : store((float *)to + at, v);
}

/* x (batch, width) and y (batch, rows), FLOAT32 or BFLOAT16. Returns 0, or 1 where there is no memory. */
int32_t hornbook_product(const Matrix *m, const void *x, int64_t kind, void *y, int64_t made, int64_t batch) {
    const int64_t taken = batch * m->width, found = batch * (m->rows + 15), room = room_of(m, batch);
    float *all;
    if (posix_memalign((void **)&all, 64, (taken + found + room) * sizeof(float))) return 1;
    float *rest = all + taken, *sums = rest + room;
    for (int64_t i = 0; i < taken; i += 16) store(all + i, load_kind(x, i, kind));
    tiles_allowed();
    const Input in = prepare(m, all, kind, batch, rest);
    float *to = made == FLOAT32 ? y : sums;
#pragma omp parallel
    multiply(m, &in, to, 0, omp_get_thread_num(), omp_get_num_threads());
    if (made == BFLOAT16)
        for (int64_t i = 0; i < batch * m->rows; i++) ((uint16_t *)y)[i] = narrowed(sums[i]);
    free(all);
    return 0;
}

enum { NORM, PRODUCT, KEEP, ATTEND, ACTIVATE };
enum { LAYER, RMS };
enum { RELU, SQUARED_RELU, GELU, GELU_TANH, SILU };

/* Places `from`, `to`, `by` are offsets of (batch, ...) float32, counted for a batch of 1. */
typedef struct {
    int64_t kind, way, from, to, by;
    int64_t flows; /* the next operation does not need what this one makes */
    int64_t same;  /* a product of the same numbers as the one before */
    int64_t add;   /* to what is there */
    int64_t layer, width, heads, groups, turned;
    float *weight, *bias; /* of norms, (width,); of KEEP and ATTEND the norm of keys, of queries, or none */
    double eps;
    Matrix matrix;
} Operation;

/* What a pass is about: `batch` tokens, `each` of them in a row of the cache, keys and values (layers, rows, groups,
   slots, width). */
typedef struct {
    void *keys, *values;
    const int64_t *slots;      /* (batch,); one that is the last slot holds padding */
    const float *cosines, *sines; /* (batch, turned) */
    int64_t batch, each, rows, length, kind, window;
} Pass;

static void norm(const Operation *o, const float *from, float *to, int64_t row) {
    const int64_t width = o->width;
    from += row * width, to += row * width;
    numbers sum = {0}, square = {0};
    if (o->way == LAYER)
        for (int64_t i = 0; i < width; i += 16) sum += load(from + i);
    const float mean = total(sum) / width;
    for (int64_t i = 0; i < width; i += 16) {
        const numbers v = load(from + i) - mean;
        square += v * v;
    }
    const float scale = 1 / sqrtf(total(square) / width + (float)o->eps);
    for (int64_t i = 0; i < width; i += 16) {
        numbers v = (load(from + i) - mean) * scale * load(o->weight + i);
        if (o->bias) v += load(o->bias + i);
        store(to + i, v);
    }
}

INLINE numbers sigmoid(numbers x) { return 1 / (1 + exponential(-x)); }

INLINE numbers activated(numbers x, int64_t way) {
    const numbers zero = x - x, positive = chosen(x < 0, zero, x);
    switch (way) {
        case RELU: return positive;
        case SQUARED_RELU: return positive * positive;
        case SILU: return x * sigmoid(x);
        case GELU_TANH: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
    }
    numbers error;
    for (int i = 0; i < 16; i++) error[i] = erff(x[i] * 0.70710678f);
    return 0.5f * x * (1 + error);
}

/* A head (width,) after its norm, if any (Henry et al. 2020), and turned (Su et al. 2021, RoFormer, section 3.2). */
INLINE void turn(const Operation *o, const Pass *p, const float *from, float *to, int64_t token) {
    if (o->weight)
        norm(&(Operation){.way = RMS, .width = o->width, .weight = o->weight, .eps = o->eps}, from, to, 0);
    else
        memcpy(to, from, o->width * sizeof(float));
    const float *cos = p->cosines + token * o->turned, *sin = p->sines + token * o->turned;
    const int64_t half = o->turned / 2;
    for (int64_t i = 0; i < half; i++) {
        const float left = to[i], right = to[i + half];
        to[i] = left * cos[i] - right * sin[i], to[i + half] = right * cos[i + half] + left * sin[i + half];
    }
}

/* Where head `group` of the row that a token belongs to begins in the cache. */
INLINE int64_t place(const Operation *o, const Pass *p, int64_t token, int64_t group) {
    return (((o->layer * p->rows + token / p->each) * o->groups + group) * p->length) * o->width;
}

/* The key at `from` and the value at `by` of one token and group, into their slot. */
static void keep(const Operation *o, const Pass *p, const float *keys, const float *values, int64_t item) {
    const int64_t token = item / o->groups, at = place(o, p, token, item % o->groups) + p->slots[token] * o->width;
    float key[DEEP * 16];
    turn(o, p, keys + item * o->width, key, token);
    for (int64_t i = 0; i < o->width; i += 16) {
        store_kind(p->keys, at + i, p->kind, load(key + i));
        store_kind(p->values, at + i, p->kind, load(values + item * o->width + i));
    }
}

/* Where the first slot lies that a token sees of a head's group, and how many it sees. */
INLINE int64_t seen_from(const Operation *o, const Pass *p, int64_t item, int64_t *count) {
    const int64_t token = item / o->heads, group = item % o->heads / (o->heads / o->groups), seen = p->slots[token] + 1;
    *count = p->window ? least(p->window, seen) : seen;
    return place(o, p, token, group) + (seen - *count) * o->width;
}

/* softmax(q K^T / sqrt(width)) V of one head over all slots up to the token's, or the last `window` of these
   (Vaswani et al. 2017). While keys are read values are asked for, and then the keys of the `following` head. */
INLINE void attend(
    const Operation *o, const Pass *p, const int kind, const float *queries, float *out, int64_t item,
    int64_t following, float *scores) {
    const int64_t parts = o->width / 16, bytes = kind == BFLOAT16 ? 2 : 4;
    int64_t count, others;
    const int64_t start = seen_from(o, p, item, &count), next = seen_from(o, p, following, &others);
    float query[DEEP * 16];
    numbers q[DEEP], found[DEEP] = {{0}}, sum = {0}, most = sum - INFINITY;
    turn(o, p, queries + item * o->width, query, item / o->heads);
    for (int64_t i = 0; i < parts; i++) q[i] = load(query + i * 16) * (1 / sqrtf(o->width));
    for (int64_t s = 0; s < count; s++) {
        numbers score = {0};
        for (int64_t i = 0; i < parts; i++) {
            const int64_t at = start + s * o->width + i * 16;
            if (!(i & 1)) __builtin_prefetch((const char *)p->values + at * bytes);
            score += q[i] * load_kind(p->keys, at, kind);
        }
        scores[s] = total(score);
    }
    for (int64_t s = count; s % 16; s++) scores[s] = -INFINITY;
    for (int64_t s = 0; s < count; s += 16) most = chosen(load(scores + s) > most, load(scores + s), most);
    float top = most[0];
    for (int i = 1; i < 16; i++) top = most[i] > top ? most[i] : top;
    for (int64_t s = 0; s < count; s += 16) {
        const numbers weights = exponential(load(scores + s) - top);
        store(scores + s, weights);
    }
    for (int64_t s = count; s % 16; s++) scores[s] = 0;
    for (int64_t s = 0; s < count; s += 16) sum += load(scores + s);
    for (int64_t s = 0; s < count; s++)
        for (int64_t i = 0; i < parts; i++) {
            if (!(i & 1)) __builtin_prefetch((const char *)p->keys + (next + s * o->width + i * 16) * bytes);
            found[i] += scores[s] * load_kind(p->values, start + s * o->width + i * 16, kind);
        }
    for (int64_t i = 0; i < parts; i++) store(out + item * o->width + i * 16, found[i] / total(sum));
}

static void run(const Operation *o, const Pass *p, float *room, Input *in, float *own, float *scores, int part, int parts) {
    const int64_t batch = p->batch;
    float *from = room + o->from * batch, *to = room + o->to * batch, *by = room + o->by * batch;
    const int64_t units[] = {batch, 0, batch * o->groups, batch * o->heads, batch * o->width / 16};
    const int64_t first = units[o->kind] * part / parts, last = units[o->kind] * (part + 1) / parts;
    if (o->kind == PRODUCT) {
        if (!o->same) *in = prepare(&o->matrix, from, p->kind, batch, own);
        multiply(&o->matrix, in, to, o->add, part, parts);
    }
    for (int64_t i = first; i < last; i++) switch (o->kind) {
            case NORM: norm(o, from, to, i); break;
            case KEEP: keep(o, p, from, by, i); break;
            case ATTEND:
                if (p->slots[i / o->heads] == p->length - 1)
                    memset(to + i * o->width, 0, o->width * sizeof(float));
                else if (p->kind == BFLOAT16)
                    attend(o, p, BFLOAT16, from, to, i, least(i + 1, last - 1), scores);
                else
                    attend(o, p, FLOAT32, from, to, i, least(i + 1, last - 1), scores);
                break;
            case ACTIVATE: {
                const numbers made = activated(load(from + i * 16), o->way);
                store(to + i * 16, o->by == o->from ? made : made * load(by + i * 16));
            }
        }
}

int32_t hornbook_tiles(void) { return tiles_allowed(); }

/* Run a program on x (batch, width) at place 0, FLOAT32 or BFLOAT16 as the cache is; y, likewise, is what lies at place
   `result` at the end. `room` is the sum of all places' widths. Returns 0, or 1 where there is no memory. */
int32_t hornbook_step(
    const Operation *program, int64_t count, const Pass *p, const void *x, void *y, int64_t width, int64_t result,
    int64_t room) {
    int64_t own = 0, longest = 0;
    for (int64_t i = 0; i < count; i++)
        if (program[i].kind == PRODUCT && room_of(&program[i].matrix, p->batch) > own)
            own = room_of(&program[i].matrix, p->batch);
    for (int64_t i = 0; i < p->batch; i++) longest = p->slots[i] + 1 > longest ? p->slots[i] + 1 : longest;
    own = (own + 15) / 16 * 16, longest = (longest + 15) / 16 * 16;
    const int64_t shared = (room * p->batch + 15) / 16 * 16, threads = omp_get_max_threads();
    float *all;
    if (posix_memalign((void **)&all, 64, (shared + threads * (own + longest)) * sizeof(float))) return 1;
    for (int64_t i = 0; i < p->batch * width; i += 16) store(all + i, load_kind(x, i, p->kind));
    tiles_allowed();
#pragma omp parallel num_threads(threads)
    {
        const int part = omp_get_thread_num(), parts = omp_get_num_threads();
        float *mine = all + shared + part * (own + longest);
        Input in = {0};
        for (int64_t i = 0; i < count; i++) {
            run(program + i, p, all, &in, mine, mine + own, part, parts);
            if (!program[i].flows) {
#pragma omp barrier
            }
        }
    }
    for (int64_t i = 0; i < p->batch * width; i += 16) store_kind(y, i, p->kind, load(all + result * p->batch + i));
    free(all);
    return 0;
}
