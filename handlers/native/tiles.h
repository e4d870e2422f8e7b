// The tile registers of AMX: eight of 16 rows of 64 bytes, shaped by a configuration. Without AMX nothing needs to be prepared.

#pragma once

#include "numbers.h"

#ifdef __AMX_BF16__

#include <sys/syscall.h>
#include <unistd.h>

#define HAS_TILES 1

// Constants, because gcc 12 takes only the first bytes of a configuration for read and may drop stores to the others.
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

static const TileConfig full_tiles = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

// Tile 6 holds weights of 16 tokens in bfloat16, tile 7 their values.
static const TileConfig attention_tiles = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 8}};

// Linux lets a process use the tiles once it has asked (arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
int marquee_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

static void shape_tiles_for_matrices(void) { _tile_loadconfig(&full_tiles); }
static void shape_tiles_for_attention(void) { _tile_loadconfig(&attention_tiles); }
static void release_tiles(void) { _tile_release(); }

#else

#define HAS_TILES 0

int marquee_prepare(void) { return 0; }
static void shape_tiles_for_matrices(void) {}
static void shape_tiles_for_attention(void) {}
static void release_tiles(void) {}

#endif
