// Attention over a paged KV cache, a span of blocks at a time with a running maximum (Milakov and Gimelshein 2018; FlashAttention, Dao et al.
// 2022). A row's result depends on no other row: spans begin at fixed blocks, and what is masked adds exact zeros.

#pragma once

#include <math.h>

#include "model.h"
#include "tiles.h"

#define MAX_ROWS 16      // query rows that share the keys they read
#define SPAN_BLOCKS 4    // KV blocks that are read together
#define SPAN_TOKENS (SPAN_BLOCKS * BLOCK)
#define MAX_HEAD_DIM 256
#define TASK_TOKENS 16   // new tokens of a chunk that one thread takes at a time
#define LOWEST -1e30f    // a score below all others, of which differences can be taken

// Query rows, their place in the sequence, and what they have seen so far: the sum of values by weight, the highest score, the sum of weights.
typedef struct {
    bf16 queries[MAX_ROWS][MAX_HEAD_DIM];
    bf16 *targets[MAX_ROWS];
    int64_t positions[MAX_ROWS];
    float sums[MAX_ROWS][MAX_HEAD_DIM], peaks[MAX_ROWS], totals[MAX_ROWS];
    int count;
} Rows;

// Blocks of one sequence, for one key head; the first key stands at position `first`. Beyond `count` blocks are read but not seen.
typedef struct {
    const bf16 *keys[SPAN_BLOCKS], *values[SPAN_BLOCKS], *next_keys[SPAN_BLOCKS];
    int64_t count, first;
} Span;

typedef float Scores[MAX_ROWS][SPAN_TOKENS];
typedef bf16 Weights[MAX_ROWS][SPAN_TOKENS];

static inline void prefetch_blocks(const bf16 *const *blocks, int64_t dim) {
    for (int b = 0; b < SPAN_BLOCKS; b++)
        for (int64_t i = 0; i < dim; i += 2) _mm_prefetch((const char *)(blocks[b] + i * BLOCK), _MM_HINT_T0);
}

#if HAS_TILES

static void score_with_tiles(const Rows *rows, const Span *span, int64_t dim, Scores scores) {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t i = 0; i < dim; i += 32) {
        _tile_loadd(4, &rows->queries[0][i], sizeof rows->queries[0]);
        _tile_loadd(5, span->keys[0] + i * BLOCK, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(5, span->keys[1] + i * BLOCK, 64);
        _tile_dpbf16ps(1, 4, 5);
        _tile_loadd(5, span->keys[2] + i * BLOCK, 64);
        _tile_dpbf16ps(2, 4, 5);
        _tile_loadd(5, span->keys[3] + i * BLOCK, 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, &scores[0][0], sizeof scores[0]);
    _tile_stored(1, &scores[0][16], sizeof scores[0]);
    _tile_stored(2, &scores[0][32], sizeof scores[0]);
    _tile_stored(3, &scores[0][48], sizeof scores[0]);
}

static void add_values_with_tiles(Rows *rows, const Span *span, int64_t dim, Weights weights) {
    for (int64_t i = 0; i < dim; i += 16) {
        _tile_loadd(0, &rows->sums[0][i], sizeof rows->sums[0]);
        for (int64_t b = 0; b < span->count; b++) {
            _tile_loadd(6, &weights[0][b * BLOCK], sizeof weights[0]);
            _tile_loadd(7, span->values[b] + i * 2, dim * 4);
            _tile_dpbf16ps(0, 6, 7);
        }
        _tile_stored(0, &rows->sums[0][i], sizeof rows->sums[0]);
    }
}

#endif

// `count` is a constant where these two are called, so that the sums stay in registers.
static inline __attribute__((always_inline)) void score_rows(
    const Rows *rows, int first, const int count, const Span *span, int64_t dim, Scores scores) {
    __m512 sums[4][SPAN_BLOCKS];
    for (int r = 0; r < count; r++)
        for (int b = 0; b < SPAN_BLOCKS; b++) sums[r][b] = _mm512_setzero_ps();
    for (int64_t i = 0; i < dim; i += 2)
        for (int b = 0; b < SPAN_BLOCKS; b++) {
            __m512bh pairs = (__m512bh)_mm512_loadu_si512(span->keys[b] + i * BLOCK);
            for (int r = 0; r < count; r++)
                sums[r][b] = _mm512_dpbf16_ps(sums[r][b], pairs, broadcast_pair(&rows->queries[first + r][i]));
        }
    for (int r = 0; r < count; r++)
        for (int b = 0; b < SPAN_BLOCKS; b++) _mm512_storeu_ps(&scores[first + r][b * BLOCK], sums[r][b]);
}

static inline __attribute__((always_inline)) void add_values_to_rows(
    Rows *rows, int first, const int count, const Span *span, int64_t dim, Weights weights) {
    for (int64_t i = 0; i < dim; i += 16) {
        __m512 sums[4];
        for (int r = 0; r < count; r++) sums[r] = _mm512_loadu_ps(&rows->sums[first + r][i]);
        for (int64_t token = 0; token < span->count * BLOCK; token += 2) {
            __m512bh pairs = (__m512bh)_mm512_loadu_si512(span->values[token / BLOCK] + token % BLOCK * dim + i * 2);
            for (int r = 0; r < count; r++)
                sums[r] = _mm512_dpbf16_ps(sums[r], pairs, broadcast_pair(&weights[first + r][token]));
        }
        for (int r = 0; r < count; r++) _mm512_storeu_ps(&rows->sums[first + r][i], sums[r]);
    }
}

#define FOR_ROWS(call, ...)                                       \
    for (int first = 0; first < rows->count; first += 4)          \
        switch (rows->count - first) {                            \
            case 1: call(rows, first, 1, __VA_ARGS__); break;     \
            case 2: call(rows, first, 2, __VA_ARGS__); break;     \
            case 3: call(rows, first, 3, __VA_ARGS__); break;     \
            default: call(rows, first, 4, __VA_ARGS__);           \
        }

static void score(const Rows *rows, const Span *span, int64_t dim, Scores scores) {
#if HAS_TILES
    if (dim % 32 == 0) {
        score_with_tiles(rows, span, dim, scores);
        return;
    }
#endif
    FOR_ROWS(score_rows, span, dim, scores)
}

static void add_values(Rows *rows, const Span *span, int64_t dim, Weights weights) {
#if HAS_TILES
    if (dim % 32 == 0) {
        add_values_with_tiles(rows, span, dim, weights);
        return;
    }
#endif
    FOR_ROWS(add_values_to_rows, span, dim, weights)
}

static inline __mmask16 seen_keys(int64_t first, int64_t position, int64_t window) {
    int64_t last = position - first, oldest = window ? last - window + 1 : 0;
    if (last < 0 || oldest > 15) return 0;
    return (__mmask16)((last >= 15 ? 0xffff : (1u << (last + 1)) - 1) & (oldest > 0 ? 0xffffu << oldest : 0xffff));
}

// Turn one row's scores into weights relative to the highest so far, and what it has summed up into the same measure.
static void weigh(Rows *rows, int row, const Span *span, int64_t dim, float scale, int64_t window, const float *scores, bf16 *weights) {
    __mmask16 seen[SPAN_BLOCKS];
    __m512 scaled[SPAN_BLOCKS], highest = _mm512_set1_ps(rows->peaks[row]), total = _mm512_setzero_ps();
    for (int b = 0; b < SPAN_BLOCKS; b++) {
        seen[b] = b < span->count ? seen_keys(span->first + b * BLOCK, rows->positions[row], window) : 0;
        scaled[b] = _mm512_mask_mul_ps(_mm512_set1_ps(LOWEST), seen[b], _mm512_loadu_ps(scores + b * BLOCK), _mm512_set1_ps(scale));
        highest = _mm512_max_ps(highest, scaled[b]);
    }
    __m512 peak = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
    for (int b = 0; b < SPAN_BLOCKS; b++) {
        __m512 share = _mm512_maskz_mov_ps(seen[b], exp_of(_mm512_sub_ps(scaled[b], peak)));
        total = _mm512_add_ps(total, share);
        store_bf16(weights + b * BLOCK, share);
    }
    __m512 rescale = exp_of(_mm512_sub_ps(_mm512_set1_ps(rows->peaks[row]), peak));
    for (int64_t i = 0; i < dim; i += 16)
        _mm512_storeu_ps(&rows->sums[row][i], _mm512_mul_ps(_mm512_loadu_ps(&rows->sums[row][i]), rescale));
    rows->totals[row] = rows->totals[row] * _mm512_cvtss_f32(rescale) + _mm512_reduce_add_ps(total);
    rows->peaks[row] = _mm512_cvtss_f32(peak);
}

static void attend_rows(const Model *model, const Layer *layer, Rows *rows, const int64_t *blocks, int64_t head) {
    int64_t dim = model->head_dim, window = layer->window, size = dim * BLOCK, oldest = rows->positions[0] - window + 1;
    int64_t last = rows->positions[rows->count - 1] / BLOCK, block = window && oldest > 0 ? oldest / SPAN_TOKENS * SPAN_BLOCKS : 0;
    Scores scores;
    Weights weights;
    for (int r = 0; r < rows->count; r++) {
        rows->peaks[r] = LOWEST;
        rows->totals[r] = 0;
        memset(rows->sums[r], 0, dim * sizeof(float));
    }
    for (; block <= last; block += SPAN_BLOCKS) {
        Span span = {.count = last - block + 1 < SPAN_BLOCKS ? last - block + 1 : SPAN_BLOCKS, .first = block * BLOCK};
        for (int64_t b = 0; b < SPAN_BLOCKS; b++) {
            int64_t here = b < span.count ? block + b : block, next = here + SPAN_BLOCKS <= last ? here + SPAN_BLOCKS : last;
            int64_t offset = (blocks[here] * model->num_kv_heads + head) * size;
            span.keys[b] = layer->keys + offset;
            span.values[b] = layer->values + offset;
            span.next_keys[b] = layer->keys + (blocks[next] * model->num_kv_heads + head) * size;
        }
        prefetch_blocks(span.values, dim);
        score(rows, &span, dim, scores);
        prefetch_blocks(span.next_keys, dim);
        for (int r = 0; r < rows->count; r++) weigh(rows, r, &span, dim, model->attention_scale, window, scores[r], weights[r]);
        add_values(rows, &span, dim, weights);
    }
    for (int r = 0; r < rows->count; r++) {
        __m512 factor = _mm512_set1_ps(1.0f / rows->totals[r]);
        for (int64_t i = 0; i < dim; i += 16)
            store_bf16(rows->targets[r] + i, _mm512_mul_ps(_mm512_loadu_ps(&rows->sums[r][i]), factor));
    }
}

// Query heads of one key head and tokens of one chunk go together, as many as fit.
static void attend_chunk(const Model *model, const Layer *layer, const Step *step, const Chunk *chunk, int64_t head, int64_t from, int64_t to) {
    int64_t dim = model->head_dim, group = model->num_heads / model->num_kv_heads;
    Rows rows;
    rows.count = 0;
    for (int64_t token = from; token < to; token++)
        for (int64_t member = 0; member < group; member++) {
            int64_t offset = ((chunk->first_row + token) * model->num_heads + head * group + member) * dim;
            memcpy(rows.queries[rows.count], model->queries + offset, dim * sizeof(bf16));
            rows.targets[rows.count] = model->attended + offset;
            rows.positions[rows.count++] = chunk->start + token;
            if (rows.count < MAX_ROWS && (token + 1 < to || member + 1 < group)) continue;
            attend_rows(model, layer, &rows, step->block_table + chunk->table_offset, head);
            rows.count = 0;
        }
}

static void attend(const Model *model, const Layer *layer, const Step *step) {
    shape_tiles_for_attention();
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t row = 0; row < step->num_rows; row++)
        for (int64_t head = 0; head < model->num_kv_heads; head++) {
            const Chunk *chunk = step->chunks + step->row_chunks[row];
            int64_t from = row - chunk->first_row;
            if (from % TASK_TOKENS) continue;  // another row of the same task
            int64_t to = from + TASK_TOKENS < chunk->num_rows ? from + TASK_TOKENS : chunk->num_rows;
            attend_chunk(model, layer, step, chunk, head, from, to);
        }
}
