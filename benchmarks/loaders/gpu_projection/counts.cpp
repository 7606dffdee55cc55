// The kernels as host code that counts what each thread does: codes of each block, words of each segment. The sources
// are those of the GPU; calls are counted by macros with the names of functions, which stand behind their definitions.
#include "batch.cuh"
#include "idct.cuh"
#include "jpeg_tables.cuh"

static int *g_codes, *g_long_codes, *g_words;  // of each block, of each block, of each segment
static int g_num_blocks, g_num_segments;

#define window_of(high, low, shift) (g_codes[g_num_blocks]++, window_of(high, low, shift))
#define find_code(...) (g_long_codes[g_num_blocks]++, find_code(__VA_ARGS__))
#define four_bytes(p) (g_words[g_num_segments]++, four_bytes(p))
#define write_block g_num_blocks++, write_block
#include "entropy.cuh"
#define unstuff(p, length, to) unstuff(p, length, to); g_num_segments++
#include "decode_segments.cuh"

// Decodes one crop. The counts begin with zeros. Returns the number of blocks.
extern "C" int count(const Batch* batch, int* codes, int* long_codes, int* words) {
    g_codes = codes, g_long_codes = long_codes, g_words = words;
    g_num_blocks = g_num_segments = 0, g_num_blocks_y = 1;
    decode_segments(*batch);
    return g_num_blocks;
}
