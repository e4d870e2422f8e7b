// One step of a Llama-like decoder in bfloat16 on a CPU with AVX512-BF16, faster with AMX: one parallel region a step, weights read once.
// A token's logits depend, bit for bit, on its own sequence alone: not on the rows beside it, on how its prompt was cut into chunks, or on
// the number of threads.
//
// Layouts (element types as in the structs; `pair` is two bfloat16 side by side, what one dot-product instruction takes):
//   weights  [columns / 16][inputs / 2][16 columns][pair of inputs], so that both instruction sets stream them from front to back
//   keys     [block][kv head][head_dim / 2][16 tokens][pair of dimensions]
//   values   [block][kv head][16 tokens / 2][head_dim][pair of tokens]
// Activations are rows of a step's tokens; the residual stream is float32. Buffers of rows have room for a multiple of 32 of them.
//
// Sources: attention with a running maximum (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022); AMX as in Intel's Software
// Developer's Manual, volume 1, chapter 18. Compiled at run time, called through ctypes: decoder.py mirrors the structs.

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 16       // tokens of a KV block, columns of a weight tile: the width of a register in float32
#define MAX_ROWS 4     // query rows that share the keys they read
#define SPAN_BLOCKS 4  // KV blocks that are read together
#define MAX_HEAD_DIM 256
#define LOWEST -1e30f  // a score below all others, of which differences can be taken
#define CHUNK_PANELS 2  // pairs of weight tiles that a thread takes at a time

typedef uint16_t bf16;

typedef struct {
    const bf16 *qkv, *output, *gate_up, *down;       // gate_up: tiles of both in turn
    const float *input_norm, *post_norm;             // (hidden)
    const float *qkv_bias, *query_norm, *key_norm;   // NULL, or (qkv columns), (head_dim), (head_dim)
    bf16 *keys, *values;
    int64_t window;                                  // keys at most so far back; 0: all
} Layer;

typedef struct {
    int64_t num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate, vocab_size, num_threads;
    float norm_eps, attention_scale;
    const bf16 *embedding;                           // (vocab_size, hidden), plain
    const bf16 *head;                                // tiles
    const float *final_norm;                         // (hidden)
    const float *cosines, *sines;                    // (max_model_len, head_dim / 2)
    const Layer *layers;
    // Workspace of one step.
    float *residual, *qkv;                           // (rows, hidden), (rows, qkv columns)
    bf16 *normed, *queries, *attended, *activated;   // (rows, hidden), (rows, heads, head_dim) twice, (rows, intermediate)
} Model;

typedef struct {
    int64_t first_row, num_rows, start, table_offset;  // rows of the step, position of the first one, where its blocks are in the table
} Chunk;

typedef struct {
    int64_t num_rows, num_chunks, num_samples;
    const int64_t *token_ids, *positions;            // (num_rows)
    const int64_t *row_chunks;                       // (num_rows), the chunk of each row
    const Chunk *chunks;
    const int64_t *block_table;                      // the chunks' blocks, one after the other
    const int64_t *samples;                          // (num_samples), rows
    float *logits;                                   // (num_samples, vocab_size)
} Step;

static inline float to_float(bf16 value) {
    union { uint32_t bits; float number; } u = {(uint32_t)value << 16};
    return u.number;
}

static inline bf16 to_bf16(float value) {
    return (bf16)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value)), 0);
}

static inline void store_bf16(bf16 *target, __m512 values) {
    _mm256_storeu_si256((__m256i *)target, (__m256i)_mm512_cvtneps_pbh(values));
}

static inline __m512bh broadcast_pair(const bf16 *pair) {
    int bits;
    memcpy(&bits, pair, 4);
    return (__m512bh)_mm512_set1_epi32(bits);
}

// e to the x for x <= 0: 2 to the integer part times a polynomial of the rest.
static inline __m512 exp_of(__m512 x) {
    x = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-100.0f)), _mm512_set1_ps(1.44269504f));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.3333558e-3f);
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.6181291e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.5504109e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.4022651e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.9314718e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

static inline __m512 silu(__m512 x) {
    __m512 magnitude = _mm512_abs_ps(x);
    __m512 decay = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), magnitude));           // e^-|x|, which never overflows
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    __m512 numerator = _mm512_mask_mul_ps(x, negative, x, decay);                   // x or x e^x
    return _mm512_div_ps(numerator, _mm512_add_ps(_mm512_set1_ps(1.0f), decay));
}

// ---- Matrices -------------------------------------------------------------------------------------------------------------------------

typedef float Panel[32][32];  // 32 rows by two tiles of columns

#ifdef __AMX_BF16__

#include <sys/syscall.h>
#include <unistd.h>

// Linux lets a process use the tiles once it has asked (arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
int marquee_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

// Palette 1: eight tiles of 16 rows of 64 bytes. A constant, because gcc 12 takes only the first bytes of it for read and may drop stores.
static const uint8_t tile_config[64] __attribute__((aligned(64))) = {
    1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, 16, 16, 16, 16, 16, 16, 16,
};

static void begin_tiles(void) { _tile_loadconfig(tile_config); }
static void end_tiles(void) { _tile_release(); }

#define PREFETCH_BYTES 4096

static inline void prefetch_tile(const bf16 *tile) {
    for (int line = 0; line < 16; line++) _mm_prefetch((const char *)tile + PREFETCH_BYTES + 64 * line, _MM_HINT_T0);
}

// `rows` (at most 32) of `inputs`, (rows, depth), times two tiles of columns.
static void multiply(const bf16 *inputs, int64_t rows, const bf16 *weights, int64_t depth, int fresh, Panel panel) {
    const bf16 *second = weights + depth * BLOCK;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t k = 0; k < depth; k += 32) {
        if (fresh) prefetch_tile(weights + k * BLOCK), prefetch_tile(second + k * BLOCK);
        _tile_loadd(6, weights + k * BLOCK, 64);
        _tile_loadd(7, second + k * BLOCK, 64);
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

int marquee_prepare(void) { return 0; }
static void begin_tiles(void) {}
static void end_tiles(void) {}

static inline __attribute__((always_inline)) void multiply_rows(
    const bf16 *inputs, const int rows, const bf16 *weights, int64_t depth, float (*panel)[32]) {
    const bf16 *second = weights + depth * BLOCK;
    __m512 left[8], right[8];
    for (int row = 0; row < rows; row++) left[row] = right[row] = _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += 2) {
        _mm_prefetch((const char *)(weights + k * BLOCK) + 2048, _MM_HINT_T0);
        _mm_prefetch((const char *)(second + k * BLOCK) + 2048, _MM_HINT_T0);
        __m512bh first_pairs = (__m512bh)_mm512_loadu_si512(weights + k * BLOCK);
        __m512bh second_pairs = (__m512bh)_mm512_loadu_si512(second + k * BLOCK);
        for (int row = 0; row < rows; row++) {
            __m512bh input = broadcast_pair(inputs + row * depth + k);
            left[row] = _mm512_dpbf16_ps(left[row], first_pairs, input);
            right[row] = _mm512_dpbf16_ps(right[row], second_pairs, input);
        }
    }
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(&panel[row][0], left[row]);
        _mm512_storeu_ps(&panel[row][16], right[row]);
    }
}

static void multiply(const bf16 *inputs, int64_t rows, const bf16 *weights, int64_t depth, int fresh, Panel panel) {
    (void)fresh;
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8) multiply_rows(inputs + row * depth, 8, weights, depth, panel + row);
    for (; row + 4 <= rows; row += 4) multiply_rows(inputs + row * depth, 4, weights, depth, panel + row);
    for (; row + 2 <= rows; row += 2) multiply_rows(inputs + row * depth, 2, weights, depth, panel + row);
    if (row < rows) multiply_rows(inputs + row * depth, 1, weights, depth, panel + row);
}

#endif

typedef struct {
    const Model *model;
    const float *bias;
    float *target;
    int64_t width;
} Output;

// Take what 16 columns of one row came to; `gate` and `up` are tiles that lie side by side.
typedef void Finish(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second);

// Multiply `rows` of `inputs` by all `columns`, a multiple of 32, and finish them two tiles at a time.
static inline __attribute__((always_inline)) void project(
    const bf16 *inputs, int64_t rows, const bf16 *weights, int64_t depth, int64_t columns, Finish *finish, const Output *output) {
#pragma omp for schedule(dynamic, CHUNK_PANELS)
    for (int64_t column = 0; column < columns; column += 32)
        for (int64_t row = 0; row < rows; row += 32) {
            int64_t rows_here = rows - row < 32 ? rows - row : 32;
            Panel panel;
            multiply(inputs + row * depth, rows_here, weights + column * depth, depth, row == 0, panel);
            for (int64_t r = 0; r < rows_here; r++)
                finish(output, row + r, column, _mm512_loadu_ps(&panel[r][0]), _mm512_loadu_ps(&panel[r][16]));
        }
}

static inline void store(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second) {
    float *target = output->target + row * output->width + column;
    if (output->bias) {
        first = _mm512_add_ps(first, _mm512_loadu_ps(output->bias + column));
        second = _mm512_add_ps(second, _mm512_loadu_ps(output->bias + column + 16));
    }
    _mm512_storeu_ps(target, first);
    _mm512_storeu_ps(target + 16, second);
}

static inline void add(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second) {
    float *target = output->target + row * output->width + column;
    _mm512_storeu_ps(target, _mm512_add_ps(_mm512_loadu_ps(target), first));
    _mm512_storeu_ps(target + 16, _mm512_add_ps(_mm512_loadu_ps(target + 16), second));
}

static inline void activate(const Output *output, int64_t row, int64_t column, __m512 gate, __m512 up) {
    const Model *model = output->model;
    store_bf16(model->activated + row * model->intermediate + column / 2, _mm512_mul_ps(silu(gate), up));
}

static void project_qkv(const Model *model, const Layer *layer, int64_t rows) {
    int64_t columns = (model->num_heads + 2 * model->num_kv_heads) * model->head_dim;
    Output output = {.target = model->qkv, .width = columns, .bias = layer->qkv_bias};
    project(model->normed, rows, layer->qkv, model->hidden, columns, store, &output);
}

static void add_projection(const Model *model, const bf16 *inputs, const bf16 *weights, int64_t depth, int64_t rows) {
    Output output = {.target = model->residual, .width = model->hidden};
    project(inputs, rows, weights, depth, model->hidden, add, &output);
}

static void project_gate_up(const Model *model, const Layer *layer, int64_t rows) {
    Output output = {.model = model};
    project(model->normed, rows, layer->gate_up, model->hidden, 2 * model->intermediate, activate, &output);
}

static void project_logits(const Model *model, const Step *step) {
    Output output = {.target = step->logits, .width = model->vocab_size};
    project(model->normed, step->num_samples, model->head, model->hidden, model->vocab_size, store, &output);
}

// ---- Norms and positions --------------------------------------------------------------------------------------------------------------

static float inverse_rms(const float *values, int64_t width, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < width; i += 16) {
        __m512 x = _mm512_loadu_ps(values + i);
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)width + eps);
}

static void normalize_row(const Model *model, const float *source, const float *weight, bf16 *target) {
    __m512 factor = _mm512_set1_ps(inverse_rms(source, model->hidden, model->norm_eps));
    for (int64_t i = 0; i < model->hidden; i += 16)
        store_bf16(target + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(source + i), factor), _mm512_loadu_ps(weight + i)));
}

static void normalize(const Model *model, const float *weight, int64_t rows) {
#pragma omp for
    for (int64_t row = 0; row < rows; row++)
        normalize_row(model, model->residual + row * model->hidden, weight, model->normed + row * model->hidden);
}

static void rotate(const Model *model, float *head, const float *norm, int64_t position) {
    int64_t half = model->head_dim / 2;
    if (norm) {
        float factor = inverse_rms(head, model->head_dim, model->norm_eps);
        for (int64_t i = 0; i < model->head_dim; i++) head[i] *= factor * norm[i];
    }
    const float *cosines = model->cosines + position * half, *sines = model->sines + position * half;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosines[i] - b * sines[i];
        head[i + half] = b * cosines[i] + a * sines[i];
    }
}

// A thread takes a key head with its query heads over all rows, in order: a token of even position clears its neighbour in the pair.
static void place_heads(const Model *model, const Layer *layer, const Step *step) {
    int64_t dim = model->head_dim, kv_heads = model->num_kv_heads, group = model->num_heads / kv_heads;
    int64_t columns = (model->num_heads + 2 * kv_heads) * dim;
#pragma omp for schedule(dynamic, 1)
    for (int64_t head = 0; head < kv_heads; head++)
        for (int64_t row = 0; row < step->num_rows; row++) {
            const Chunk *chunk = step->chunks + step->row_chunks[row];
            int64_t position = step->positions[row], token = position % BLOCK;
            int64_t block = step->block_table[chunk->table_offset + position / BLOCK];
            float *key = model->qkv + row * columns + (model->num_heads + head) * dim, *value = key + kv_heads * dim;
            bf16 *keys = layer->keys + (block * kv_heads + head) * dim * BLOCK;
            bf16 *values = layer->values + (block * kv_heads + head) * dim * BLOCK + token / 2 * dim * 2;
            rotate(model, key, layer->key_norm, position);
            for (int64_t i = 0; i < dim; i++) {
                keys[(i / 2 * BLOCK + token) * 2 + i % 2] = to_bf16(key[i]);
                values[i * 2 + token % 2] = to_bf16(value[i]);
                if (token % 2 == 0) values[i * 2 + 1] = 0;
            }
            for (int64_t member = head * group; member < (head + 1) * group; member++) {
                float *query = model->qkv + row * columns + member * dim;
                rotate(model, query, layer->query_norm, position);
                for (int64_t i = 0; i < dim; i += 16)
                    store_bf16(model->queries + (row * model->num_heads + member) * dim + i, _mm512_loadu_ps(query + i));
            }
        }
}

// ---- Attention ------------------------------------------------------------------------------------------------------------------------

typedef struct {
    const bf16 *query[MAX_ROWS];
    bf16 *target[MAX_ROWS];
    int64_t position[MAX_ROWS];
    float sums[MAX_ROWS][MAX_HEAD_DIM], peak[MAX_ROWS], total[MAX_ROWS];
} Rows;

// Blocks of one sequence, for one key head: where their keys and values are, the position of the first key, and how many have been written.
typedef struct {
    const bf16 *keys[SPAN_BLOCKS], *values[SPAN_BLOCKS], *next_keys[SPAN_BLOCKS];
    int64_t count, first, tokens;
} Span;

static inline __mmask16 seen_keys(int64_t first, int64_t position, int64_t window) {
    int64_t last = position - first, oldest = window ? last - window + 1 : 0;
    if (last < 0 || oldest > 15) return 0;
    return (__mmask16)((last >= 15 ? 0xffff : (1u << (last + 1)) - 1) & (oldest > 0 ? 0xffffu << oldest : 0xffff));
}

// Let `count` rows see a span. `count` is a constant where it is called, so that the sums stay in registers.
static inline __attribute__((always_inline)) void attend_span(
    Rows *rows, const int count, const Span *span, int64_t dim, float scale, int64_t window) {
    __m512 scores[MAX_ROWS][SPAN_BLOCKS];
    bf16 weights[MAX_ROWS][SPAN_BLOCKS * BLOCK];
    float rescale[MAX_ROWS];
    for (int r = 0; r < count; r++)
        for (int b = 0; b < SPAN_BLOCKS; b++) scores[r][b] = _mm512_setzero_ps();
    for (int64_t i = 0; i < dim; i += 2) {
        __m512bh pairs[SPAN_BLOCKS];
        for (int b = 0; b < SPAN_BLOCKS; b++) {
            pairs[b] = (__m512bh)_mm512_loadu_si512(span->keys[b] + i * BLOCK);
            _mm_prefetch((const char *)(span->values[b] + i * BLOCK), _MM_HINT_T0);
        }
        for (int r = 0; r < count; r++) {
            __m512bh query = broadcast_pair(rows->query[r] + i);
            for (int b = 0; b < SPAN_BLOCKS; b++) scores[r][b] = _mm512_dpbf16_ps(scores[r][b], pairs[b], query);
        }
    }
    for (int r = 0; r < count; r++) {
        __mmask16 seen[SPAN_BLOCKS];
        __m512 highest = _mm512_set1_ps(rows->peak[r]), total = _mm512_setzero_ps();
        for (int b = 0; b < SPAN_BLOCKS; b++) {
            seen[b] = b < span->count ? seen_keys(span->first + b * BLOCK, rows->position[r], window) : 0;
            scores[r][b] = _mm512_mask_mul_ps(_mm512_set1_ps(LOWEST), seen[b], scores[r][b], _mm512_set1_ps(scale));
            highest = _mm512_max_ps(highest, scores[r][b]);
        }
        __m512 peak = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
        for (int b = 0; b < SPAN_BLOCKS; b++) {
            __m512 share = _mm512_maskz_mov_ps(seen[b], exp_of(_mm512_sub_ps(scores[r][b], peak)));
            total = _mm512_add_ps(total, share);
            store_bf16(weights[r] + b * BLOCK, share);
        }
        rescale[r] = _mm512_cvtss_f32(exp_of(_mm512_sub_ps(_mm512_set1_ps(rows->peak[r]), peak)));
        rows->total[r] = rows->total[r] * rescale[r] + _mm512_reduce_add_ps(total);
        rows->peak[r] = _mm512_cvtss_f32(peak);
    }
    for (int64_t i = 0; i < dim; i += 16) {
        __m512 sums[MAX_ROWS];
        for (int r = 0; r < count; r++) sums[r] = _mm512_mul_ps(_mm512_loadu_ps(rows->sums[r] + i), _mm512_set1_ps(rescale[r]));
        for (int64_t token = 0; token < span->tokens; token += 2) {
            const bf16 *values = span->values[token / BLOCK] + token % BLOCK * dim;
            _mm_prefetch((const char *)(span->next_keys[token / BLOCK] + (i + token % BLOCK) * BLOCK), _MM_HINT_T0);
            __m512bh pairs = (__m512bh)_mm512_loadu_si512(values + i * 2);
            for (int r = 0; r < count; r++) sums[r] = _mm512_dpbf16_ps(sums[r], pairs, broadcast_pair(weights[r] + token));
        }
        for (int r = 0; r < count; r++) _mm512_storeu_ps(rows->sums[r] + i, sums[r]);
    }
}

// A row's result depends on no other row: spans begin at fixed blocks, and what is masked adds exact zeros.
static void attend_rows(const Model *model, const Layer *layer, Rows *rows, int count, const int64_t *blocks, int64_t head, int64_t end) {
    int64_t dim = model->head_dim, window = layer->window, size = dim * BLOCK, last = rows->position[count - 1] / BLOCK;
    int64_t block = window && rows->position[0] >= window ? (rows->position[0] - window + 1) / (BLOCK * SPAN_BLOCKS) * SPAN_BLOCKS : 0;
    for (int r = 0; r < count; r++) rows->peak[r] = LOWEST, rows->total[r] = 0, memset(rows->sums[r], 0, dim * sizeof(float));
    for (; block <= last; block += SPAN_BLOCKS) {
        Span span = {.count = last - block + 1 < SPAN_BLOCKS ? last - block + 1 : SPAN_BLOCKS, .first = block * BLOCK};
        span.tokens = end - span.first < span.count * BLOCK ? end - span.first : span.count * BLOCK;
        for (int64_t b = 0; b < SPAN_BLOCKS; b++) {
            int64_t here = b < span.count ? block + b : block, next = here + SPAN_BLOCKS <= last ? here + SPAN_BLOCKS : last;
            int64_t offset = (blocks[here] * model->num_kv_heads + head) * size;
            span.keys[b] = layer->keys + offset, span.values[b] = layer->values + offset;
            span.next_keys[b] = layer->keys + (blocks[next] * model->num_kv_heads + head) * size;
        }
#define ATTEND(n) case n: attend_span(rows, n, &span, dim, model->attention_scale, window); break;
        switch (count) { ATTEND(1) ATTEND(2) ATTEND(3) ATTEND(4) }
    }
    for (int r = 0; r < count; r++) {
        __m512 factor = _mm512_set1_ps(1.0f / rows->total[r]);
        for (int64_t i = 0; i < dim; i += 16) store_bf16(rows->target[r] + i, _mm512_mul_ps(_mm512_loadu_ps(rows->sums[r] + i), factor));
    }
}

// Query heads of one key head and rows of one chunk go together, as many as fit.
static void attend_chunk(const Model *model, const Layer *layer, const Step *step, const Chunk *chunk, int64_t head, int64_t from, int64_t to) {
    int64_t dim = model->head_dim, group = model->num_heads / model->num_kv_heads, end = chunk->start + chunk->num_rows;
    Rows rows;
    int count = 0;
    for (int64_t row = from; row < to; row++)
        for (int64_t member = 0; member < group; member++) {
            int64_t offset = ((chunk->first_row + row) * model->num_heads + head * group + member) * dim;
            rows.query[count] = model->queries + offset, rows.target[count] = model->attended + offset;
            rows.position[count++] = chunk->start + row;
            if (count < MAX_ROWS && (row + 1 < to || member + 1 < group)) continue;
            attend_rows(model, layer, &rows, count, step->block_table + chunk->table_offset, head, end);
            count = 0;
        }
}

#define TASK_ROWS 16

static void attend(const Model *model, const Layer *layer, const Step *step) {
    int64_t kv_heads = model->num_kv_heads;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t index = 0; index < step->num_rows; index++)
        for (int64_t head = 0; head < kv_heads; head++) {
            const Chunk *chunk = step->chunks + step->row_chunks[index];
            int64_t from = index - chunk->first_row;
            if (from % TASK_ROWS) continue;  // another row of the same task
            int64_t to = from + TASK_ROWS < chunk->num_rows ? from + TASK_ROWS : chunk->num_rows;
            attend_chunk(model, layer, step, chunk, head, from, to);
        }
}

// ---- The step -------------------------------------------------------------------------------------------------------------------------

static void embed(const Model *model, const Step *step) {
#pragma omp for
    for (int64_t row = 0; row < step->num_rows; row++)
        for (int64_t i = 0; i < model->hidden; i++)
            model->residual[row * model->hidden + i] = to_float(model->embedding[step->token_ids[row] * model->hidden + i]);
}

static void gather_samples(const Model *model, const Step *step) {
#pragma omp for
    for (int64_t i = 0; i < step->num_samples; i++)
        normalize_row(model, model->residual + step->samples[i] * model->hidden, model->final_norm, model->normed + i * model->hidden);
}

void marquee_step(const Model *model, const Step *step) {
#pragma omp parallel num_threads((int)model->num_threads)
    {
        begin_tiles();
        embed(model, step);
        for (int64_t index = 0; index < model->num_layers; index++) {
            const Layer *layer = model->layers + index;
            normalize(model, layer->input_norm, step->num_rows);
            project_qkv(model, layer, step->num_rows);
            place_heads(model, layer, step);
            attend(model, layer, step);
            add_projection(model, model->attended, layer->output, model->num_heads * model->head_dim, step->num_rows);
            normalize(model, layer->post_norm, step->num_rows);
            project_gate_up(model, layer, step->num_rows);
            add_projection(model, model->activated, layer->down, model->intermediate, step->num_rows);
        }
        gather_samples(model, step);
        project_logits(model, step);
        end_tiles();
    }
}
