// Kernel decode_indexed: decode_segments for crops of JPEG files that stay as they are, by a crop index.
//
// A segment begins at a checkpoint, at any bit and with DC values, or behind a restart marker. The host has checked
// positions and markers and removed stuffed zeros. A block copies as many bytes as fit to shared memory, words in the
// order of their bits; then each thread decodes a segment of them, up to 16 MCUs.
#pragma once
#include "decode_segments.cuh"
#include "scaled_idct.cuh"

// A segment has at most 64 blocks, and up to 7 bits of its first byte are not its own. The host cuts off what is longer.
#define MAX_INDEXED_WORDS (64 * MAX_BLOCK_WORDS + 1)
#define INDEXED_STAGE_WORDS 4096  // room for segments, 16 KB
#define ANY_REST 255

static_assert(INDEXED_STAGE_WORDS > MAX_INDEXED_WORDS, "the largest segment and the bytes before it in its first word fit");

// What crop_index/gpu/plan.py writes. MCUs are counted from the checkpoint on, which is at `row` and `column` of the
// window; the column may be negative.
struct IndexedSegment {
    u32 start, size;                  // bytes behind Crop.data
    u8 skipped, min_rest, max_rest;   // bits: in the first byte, fewest and most that may be left at the end
    u8 checked;                       // whether the DC values at the end must be `after`
    u8 first, shown, end, reserved;   // first MCU, first one that the window has, one past the last
    i16 row, column;
    i16 before[3], after[3];          // DC values by component
};

static_assert(sizeof(IndexedSegment) == 32, "as plan.py writes it");

// Whether the stage has room for a segment if its first word is word `low` of the crop's.
DEVICE bool fits(const IndexedSegment& segment, u32 low) {
    return segment.start + segment.size <= 4 * (low + INDEXED_STAGE_WORDS);
}

// Decodes a segment into the planes. `stage` begins with word `low` of the crop. `block` is that of decode_segment.
DEVICE bool decode_stretch(const u32* stage, u32 low, const IndexedSegment& segment, const Tables& tables,
                           const Crop& crop, u8* scratch, i16* block) {
    u32 start = 8 * (segment.start - 4 * low), end = start + 8 * segment.size;
    Reader reader = {stage, start + segment.skipped, {segment.before[0], segment.before[1], segment.before[2]}};
    i32 num_luma = tables.luma_rows * tables.luma_columns, num_blocks = num_luma + tables.num_components - 1;
    for (i32 m = segment.first; m < segment.end; m++) {
        KEEP_LOOP
        for (i32 n = 0; n < num_blocks; n++) {
            i32 component = n < num_luma ? 0 : n - num_luma + 1;
            Reader before = reader;
            i32 sum = read_block<i16, LANE_STEP>(reader, component, tables, block);
            if (sum < 0 || reader.at > end) return false;
            if (m < segment.shown) {
                clear_block<i16, LANE_STEP>(block);
                continue;
            }
            i32 chroma_side = (i32)crop.chroma_side, side = component ? chroma_side : (i32)crop.side;
            i32 stride = component ? chroma_stride(crop, chroma_side) : luma_stride(crop), row = segment.row;
            i32 column = segment.column + m;
            if (!component) row = row * tables.luma_rows + n / tables.luma_columns;
            if (!component) column = column * tables.luma_columns + n % tables.luma_columns;
            u8* to = scratch + plane_start(crop, component, chroma_side) + (i64)(side * row) * stride + side * column;
            if (sum <= MAX_SUM) {
                write_samples<i16, LANE_STEP>(side, block, to, stride);
            } else {
                i32 exact[64];
                for (i32 k = 0; k < 64; k++) exact[k] = 0, block[k * LANE_STEP] = 0;
                read_block<i32, 1>(before, component, tables, exact);
                write_samples<i32, 1>(side, exact, to, stride);
            }
        }
    }
    u32 rest = end - reader.at;
    bool valid = rest >= segment.min_rest && (segment.max_rest == ANY_REST || rest <= segment.max_rest);
    for (i32 k = 0; k < 3 && segment.checked; k++) valid = valid && reader.dc[k] == segment.after[k];
    return valid;
}

KERNEL(BLOCK_THREADS, 8) decode_indexed(Batch batch) {
    SHARED Tables tables;
    SHARED i16 coefficients[64 * BLOCK_THREADS];
    SHARED u32 stage[INDEXED_STAGE_WORDS + MAX_BLOCK_WORDS + 2];  // what a damaged block reads beyond the last segment
    const Crop& crop = batch.crops[BLOCK_X];
    i64& code = batch.codes[BLOCK_X];  // not read here, because another block may write it
    i32 wanted = crop.rows ? (i32)crop.num_segments : 0;
    if (BLOCK_Y * BLOCK_THREADS >= wanted) return;
    make_tables(batch.bytes + crop.header, crop, (i32)crop.side, tables, (u8*)coefficients);
    if (tables.error != OK || (tables.num_components == 1) != (crop.gray != 0)) {
        ONE_THREAD MARK_BAD(code, NOT_AS_INDEXED);
        return;
    }
    FOR_THREADS(k, 64 * BLOCK_THREADS / 2) ((u32*)coefficients)[k] = 0;
    const IndexedSegment* segments = (const IndexedSegment*)(batch.bytes + crop.index);
    const u32* data = (const u32*)(batch.bytes + crop.data);
    for (i32 base = BLOCK_Y * BLOCK_THREADS; base < wanted; base += NUM_BLOCKS_Y * BLOCK_THREADS) {
        i32 end = at_most(base + BLOCK_THREADS, wanted), num;
        for (i32 from = base; from < end; from += num) {  // once, unless the stage is too small
            u32 low = segments[from].start / 4;
            FOR_THREADS(lane, end - from) {
                bool last = from + lane + 1 == end || !fits(segments[from + lane + 1], low);
                if (last && fits(segments[from + lane], low)) tables.num_fitting = lane + 1;
            }
            BARRIER;
            num = tables.num_fitting;
            u32 high = (segments[from + num - 1].start + segments[from + num - 1].size + 3) / 4;
            FOR_THREADS(k, (i32)(high - low)) stage[k] = swap_bytes(data[low + k]);
            BARRIER;
            FOR_THREADS(lane, num) {
                i16* block = coefficients + (LANE_STEP > 1 ? lane : 0);
                if (!decode_stretch(stage, low, segments[from + lane], tables, crop, batch.scratch, block)) {
                    MARK_BAD(code, NOT_AS_INDEXED);
                }
            }
        }
    }
}
