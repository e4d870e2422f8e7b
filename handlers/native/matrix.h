// A few rows of activations times two tiles of weights: with AMX (Intel's Software Developer's Manual, volume 1, chapter 18), or without.

#pragma once

#include "tiles.h"
#include "unpack.h"

typedef float Panel[32][32];  // 32 rows by two tiles of columns

// Two tiles of columns that are read side by side, with groups of one size, and where a thread unpacks them. Rows are multiplied 32 at a time:
// the first of them read `fresh` tiles; if more are to follow, all that was unpacked is `kept` for them (depth * 32 numbers), else the last
// two slices.
typedef struct {
    Source sources[2];
    bf16 *scratch;
    int fresh, kept;
    const bf16 *slices[2];  // what was read last
} Pair;

#define CODES_AHEAD 4096  // bytes
#define FACTORS_AHEAD 512

static inline void prefetch(const Source *source, int64_t k) {
    const char *codes = (const char *)codes_at(source, k);
    for (int64_t line = 0; line < slice_bytes[source->matrix->kind]; line += 64) _mm_prefetch(codes + CODES_AHEAD + line, _MM_HINT_T0);
    int64_t group = k / SLICE * BLOCK;  // near enough
    _mm_prefetch((const char *)(source->scales + group) + FACTORS_AHEAD, _MM_HINT_T0);
    _mm_prefetch((const char *)(source->minima + group) + FACTORS_AHEAD, _MM_HINT_T0);
}

// Have the slice of both tiles from input `k` on as bfloat16: in place, or unpacked.
static inline void read_slices(Pair *pair, int64_t k, int fresh) {
    for (int side = 0; side < 2; side++) {
        const Source *source = pair->sources + side;
        if (fresh) prefetch(source, k);
        if (source->matrix->kind == PLAIN) {
            pair->slices[side] = (const bf16 *)codes_at(source, k);
            continue;
        }
        bf16 *unpacked = pair->scratch + (2 * (pair->kept ? k : k % (2 * SLICE)) + SLICE * side) * BLOCK;
        if (fresh) unpack_slice(source, k, unpacked);
        pair->slices[side] = unpacked;
    }
}

#ifdef __AMX_BF16__

// Multiply `rows` of inputs by the values of one group, which begins at input `start`. The tiles must be shaped for the rows and the group.
static inline void multiply_group(const bf16 *inputs, int64_t rows, Pair *pair, int64_t depth, int64_t start, int64_t group, Panel panel) {
    int64_t step = group < SLICE ? group : SLICE;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t k = start; k < start + group; k += step) {
        if (k % SLICE == 0) read_slices(pair, k, pair->fresh);
        int64_t offset = k % SLICE * BLOCK;
        _tile_loadd(6, pair->slices[0] + offset, 64);
        _tile_loadd(7, pair->slices[1] + offset, 64);
        _tile_loadd(4, inputs + k, depth * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (rows <= 16) continue;
        _tile_loadd(5, inputs + 16 * depth + k, depth * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &panel[0][0], 128);
    _tile_stored(1, &panel[0][16], 128);
    if (rows <= 16) return;
    _tile_stored(2, &panel[16][0], 128);
    _tile_stored(3, &panel[16][16], 128);
}

#else

static inline __attribute__((always_inline)) void multiply_rows(
    const bf16 *inputs, const int rows, Pair *pair, int fresh, int64_t depth, int64_t start, int64_t group, float (*panel)[32]) {
    __m512 left[8], right[8];
    for (int row = 0; row < rows; row++) left[row] = right[row] = _mm512_setzero_ps();
    for (int64_t k = start; k < start + group; k += 2) {
        if (k % SLICE == 0 || k == start) read_slices(pair, k / SLICE * SLICE, fresh && k % SLICE == 0);
        __m512bh first_pairs = (__m512bh)_mm512_loadu_si512(pair->slices[0] + k % SLICE * BLOCK);
        __m512bh second_pairs = (__m512bh)_mm512_loadu_si512(pair->slices[1] + k % SLICE * BLOCK);
        for (int row = 0; row < rows; row++) {
            __m512bh inputs_here = broadcast_pair(inputs + row * depth + k);
            left[row] = _mm512_dpbf16_ps(left[row], first_pairs, inputs_here);
            right[row] = _mm512_dpbf16_ps(right[row], second_pairs, inputs_here);
        }
    }
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(&panel[row][0], left[row]);
        _mm512_storeu_ps(&panel[row][16], right[row]);
    }
}

static void multiply_group(const bf16 *inputs, int64_t rows, Pair *pair, int64_t depth, int64_t start, int64_t group, Panel panel) {
    int64_t row = 0;
    int fresh = pair->fresh;
    pair->kept = 1;  // rows come in several parts
    for (; row + 8 <= rows; row += 8, fresh = 0) multiply_rows(inputs + row * depth, 8, pair, fresh, depth, start, group, panel + row);
    for (; row + 4 <= rows; row += 4, fresh = 0) multiply_rows(inputs + row * depth, 4, pair, fresh, depth, start, group, panel + row);
    for (; row + 2 <= rows; row += 2, fresh = 0) multiply_rows(inputs + row * depth, 2, pair, fresh, depth, start, group, panel + row);
    if (row < rows) multiply_rows(inputs + row * depth, 1, pair, fresh, depth, start, group, panel + row);
}

#endif

static inline void add_scaled(float *target, const float *part, __m512 scale) {
    _mm512_storeu_ps(target, _mm512_fmadd_ps(_mm512_loadu_ps(part), scale, _mm512_loadu_ps(target)));
}

static inline void add_scaled_from(float *target, const float *part, __m512 scale, float sum, __m512 minimum) {
    __m512 total = _mm512_fmadd_ps(_mm512_set1_ps(sum), minimum, _mm512_loadu_ps(target));
    _mm512_storeu_ps(target, _mm512_fmadd_ps(_mm512_loadu_ps(part), scale, total));
}

// Add to `panel` what a group's values came to, times its scales, and the sums of its inputs, `sums`, times its minima.
static inline void add_group(const Pair *pair, int64_t rows, int64_t group, int64_t groups, const float *sums, Panel part, Panel panel) {
    for (int side = 0; side < 2; side++) {
        const Source *source = pair->sources + side;
        const Matrix *matrix = source->matrix;
        int column = side * BLOCK;
        __m512 scale = factors_of(source->scales, group, matrix->scale_unit);
        if (!source->minima) {
            for (int64_t row = 0; row < rows; row++) add_scaled(&panel[row][column], &part[row][column], scale);
            continue;
        }
        __m512 minimum = factors_of(source->minima, group, matrix->minimum_unit);
        for (int64_t row = 0; row < rows; row++)
            add_scaled_from(&panel[row][column], &part[row][column], scale, sums[row * groups + group], minimum);
    }
}

// `rows` (at most 32) of `inputs`, (rows, depth), times a pair of tiles. `sums`: (rows, groups), if there are minima.
static void multiply(const bf16 *inputs, int64_t rows, Pair *pair, const float *sums, Panel panel) {
    const Matrix *matrix = pair->sources[0].matrix;
    int64_t depth = matrix->depth, groups = depth / matrix->group;
    if (matrix->kind == PLAIN) {
        multiply_group(inputs, rows, pair, depth, 0, depth, panel);
        return;
    }
    memset(panel, 0, rows * sizeof panel[0]);
    for (int64_t group = 0; group < groups; group++) {
        Panel part;
        multiply_group(inputs, rows, pair, depth, group * matrix->group, matrix->group, part);
        add_group(pair, rows, group, groups, sums, part, panel);
    }
}
