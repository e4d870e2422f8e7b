// What runner.py hands over: a model, its layers, and one step; the structs are the same there.

#pragma once

#include "project.h"

typedef struct {
    Matrix qkv[3];                                   // the first `num_qkv`: their columns side by side
    Matrix output, gate, up, down;
    int64_t num_qkv;
    const float *input_norm, *post_norm;             // (hidden)
    const float *qkv_bias, *query_norm, *key_norm;   // NULL, or (qkv columns), (head_dim), (head_dim)
    bf16 *keys, *values;
    int64_t window;                                  // keys at most so far back; 0: all
} Layer;

typedef struct {
    int64_t num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate, num_threads;
    float norm_eps, attention_scale;
    const bf16 *embedding;                           // (vocab_size, hidden), plain; NULL: it is the head, which is PLAIN
    Matrix head;
    const float *final_norm;                         // (hidden)
    const float *cosines, *sines;                    // (max_model_len, head_dim / 2)
    const Layer *layers;
    // Workspace of one step.
    float *residual, *qkv;                           // (rows, hidden), (rows, qkv columns)
    bf16 *normed, *queries, *attended, *activated;   // (rows, hidden), (rows, heads, head_dim) twice, (rows, intermediate)
    bf16 *ordered;                                   // (rows, the deepest matrix with an order)
    Scratch scratch;
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
