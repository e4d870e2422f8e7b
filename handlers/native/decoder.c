// One step of a Llama-like decoder in bfloat16 on a CPU with AVX512-BF16, faster with AMX: one parallel region a step, weights read once.
// A token's logits depend, bit for bit, on its own sequence alone: not on the rows beside it, on how its prompt was cut into chunks, or on
// the number of threads.
//
// Layouts (element types as in the structs; `pair` is two bfloat16 side by side, what one dot-product instruction takes):
//   weights  tiles of 16 columns, from front to back: see unpack.h
//   keys     [block][kv head][head_dim / 2][16 tokens][pair of dimensions]
//   values   [block][kv head][16 tokens / 2][head_dim][pair of tokens]
// Activations are rows of a step's tokens; the residual stream is float32. Buffers of rows have room for a multiple of 32 of them.
//
// Compiled at run time and called through ctypes: runner.py mirrors the structs of model.h.

#include "attention.h"
#include "model.h"
#include "project.h"

static inline void add(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second) {
    float *target = output->target + row * output->width + column;
    _mm512_storeu_ps(target, _mm512_add_ps(_mm512_loadu_ps(target), first));
    _mm512_storeu_ps(target + 16, _mm512_add_ps(_mm512_loadu_ps(target + 16), second));
}

static inline void activate(const Output *output, int64_t row, int64_t column, __m512 gate, __m512 up) {
    const Model *model = output->model;
    store_bf16(model->activated + row * model->intermediate + column, _mm512_mul_ps(silu(gate), up));
}

// Return the inputs in the order of a matrix's own. Whoever still reads an earlier result is waited for.
static const bf16 *in_order_of(const Model *model, const Matrix *matrix, const bf16 *inputs, int64_t rows) {
    if (!matrix->order) return inputs;
    int64_t depth = matrix->depth;
#pragma omp barrier
#pragma omp for
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < depth; i++) model->ordered[row * depth + i] = inputs[row * depth + matrix->order[i]];
    return model->ordered;
}

static void project_qkv(const Model *model, const Layer *layer, int64_t rows) {
    int64_t columns = (model->num_heads + 2 * model->num_kv_heads) * model->head_dim, start = 0;
    for (int64_t i = 0; i < layer->num_qkv; i++) {
        Output output = {.target = model->qkv + start, .width = columns, .bias = layer->qkv_bias ? layer->qkv_bias + start : NULL};
        const bf16 *inputs = in_order_of(model, layer->qkv + i, model->normed, rows);
        project(inputs, rows, layer->qkv + i, &model->scratch, store, &output);
        start += layer->qkv[i].columns;
    }
#pragma omp barrier
}

static void add_projection(const Model *model, const bf16 *inputs, const Matrix *weights, int64_t rows) {
    Output output = {.target = model->residual, .width = model->hidden};
    project(in_order_of(model, weights, inputs, rows), rows, weights, &model->scratch, add, &output);
#pragma omp barrier
}

static void project_gate_up(const Model *model, const Layer *layer, int64_t rows) {
    Output output = {.model = model};
    const bf16 *inputs = in_order_of(model, &layer->gate, model->normed, rows);  // the same as up's
    project_pairs(inputs, rows, &layer->gate, &layer->up, &model->scratch, activate, &output);
#pragma omp barrier
}

static void project_logits(const Model *model, const Step *step) {
    Output output = {.target = step->logits, .width = model->head.columns};
    project(model->normed, step->num_samples, &model->head, &model->scratch, store, &output);
}

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

// A thread takes a key head with its query heads over all rows, in order: the first token of a block clears the values of a former owner.
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
            bf16 *values = layer->values + (block * kv_heads + head) * dim * BLOCK;
            if (token == 0) memset(values, 0, dim * BLOCK * sizeof(bf16));
            rotate(model, key, layer->key_norm, position);
            for (int64_t i = 0; i < dim; i++) {
                keys[(i / 2 * BLOCK + token) * 2 + i % 2] = to_bf16(key[i]);
                values[(token / 2 * dim + i) * 2 + token % 2] = to_bf16(value[i]);
            }
            for (int64_t member = head * group; member < (head + 1) * group; member++) {
                float *query = model->qkv + row * columns + member * dim;
                rotate(model, query, layer->query_norm, position);
                for (int64_t i = 0; i < dim; i += 16)
                    store_bf16(model->queries + (row * model->num_heads + member) * dim + i, _mm512_loadu_ps(query + i));
            }
        }
}

// A head that is the embedding as well has a token's row as one column of a tile.
static inline bf16 embedded(const Model *model, int64_t token, int64_t i) {
    if (model->embedding) return model->embedding[token * model->hidden + i];
    const bf16 *tile = (const bf16 *)model->head.codes + token / BLOCK * BLOCK * model->hidden;
    return tile[(i / 2 * BLOCK + token % BLOCK) * 2 + i % 2];
}

static void embed(const Model *model, const Step *step) {
#pragma omp for
    for (int64_t row = 0; row < step->num_rows; row++)
        for (int64_t i = 0; i < model->hidden; i++)
            model->residual[row * model->hidden + i] = to_float(embedded(model, step->token_ids[row], i));
}

static void gather_samples(const Model *model, const Step *step) {
#pragma omp for
    for (int64_t i = 0; i < step->num_samples; i++)
        normalize_row(model, model->residual + step->samples[i] * model->hidden, model->final_norm, model->normed + i * model->hidden);
}

void marquee_step(const Model *model, const Step *step) {
#pragma omp parallel num_threads((int)model->num_threads)
    {
        embed(model, step);
        for (int64_t index = 0; index < model->num_layers; index++) {
            const Layer *layer = model->layers + index;
            normalize(model, layer->input_norm, step->num_rows);
            project_qkv(model, layer, step->num_rows);
            place_heads(model, layer, step);
            attend(model, layer, step);
            add_projection(model, model->attended, &layer->output, step->num_rows);
            normalize(model, layer->post_norm, step->num_rows);
            project_gate_up(model, layer, step->num_rows);
            add_projection(model, model->activated, &layer->down, step->num_rows);
        }
        gather_samples(model, step);
        project_logits(model, step);
        release_tiles();
    }
}
