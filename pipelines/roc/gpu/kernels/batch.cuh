// What the kernels get: a batch, and for each of its crops where its bytes are and what to make of them.
#pragma once
#include "portable.cuh"

// Codes of pipelines/roc/layout.py.
enum { OK = 0, BAD_INDEX = 5, NOT_DECODABLE = 7, WRONG_SIZE = 9, NOT_AS_INDEXED = 10 };

// Columns of `crop_plan.plan_crops`, in its order; the host has checked them. Positions are bytes in Batch::bytes, or
// in Batch::scratch for planes and taps. A name behind another one is that of crops by a crop index, of which
// crop_index/gpu/plan.py makes the same plans. A segment of theirs is one MCU wide here.
struct Crop {
    i64 header, header_size;            // the level's JPEG headers, up to the first entropy-coded byte
    i64 data, data_end;                 // first segment of the window; where the level's bytes end
    i64 index;                          // length of that segment, 2 bytes each; or the first IndexedSegment
    union {
        i64 index_columns;              // segments from row to row of the index
        i64 num_segments;
    };
    i64 rows, columns;                  // segments of the window; 0 if the host refused the crop, or made it
    union {
        i64 first_segment;              // number of the first one in its level
        i64 side;                       // samples of a luma block along each side, 8 or fewer
    };
    i64 level_columns;                  // segments in a row of the level
    i64 last_segment;                   // of the level: an end marker follows it instead of a restart marker
    i64 interval;                       // MCUs in a segment
    i64 mcu_height, mcu_width;          // pixels
    i64 level_height, level_width;      // pixels
    i64 y, x, height, width;            // pixels of the level that the window holds
    i64 y_low, y_high, x_low, x_high;   // pixels that may be used
    i64 num_taps[4];                    // source samples for each output pixel: rows, columns, chroma rows, chroma columns
    i64 flip, bicubic;
    i64 gray;                           // filled by decode_segments
    i64 planes, taps;
    i64 chroma_side;                    // samples of a chroma block along each side
};

struct Batch {
    const u8* bytes;       // aligned to 4, with 8 readable bytes at its end
    Crop* crops;           // (n,)
    const double* boxes;   // (n, 4): y, x, h, w on the level
    u8* scratch;           // aligned to 16
    void* out;             // (n, r, r, 3): u8, half or bfloat16
    i64* codes;            // (n,): OK, or why a crop is not made; may be set by the host before
    i32 num, resolution;
    i32 kind;              // of the output: 0 uint8; 1 half; 2 bfloat16
    float shift[3], factor[3];  // of half and bfloat16: (value - shift) * factor
};

// Bytes of the first plane from row to row, and of the two chroma planes, whose blocks have `side` samples a side.
DEVICE i32 luma_stride(const Crop& crop) { return (i32)(crop.columns * crop.interval * crop.mcu_width); }
DEVICE i32 chroma_stride(const Crop& crop, i32 side) { return (i32)(crop.columns * crop.interval * side); }

// Where plane k begins in scratch.
DEVICE i64 plane_start(const Crop& crop, i32 k, i32 side) {
    i64 luma = luma_stride(crop) * crop.rows * crop.mcu_height, chroma = chroma_stride(crop, side) * crop.rows * side;
    return crop.planes + (k == 0 ? 0 : luma + (k - 1) * chroma);
}

// The taps of an axis in scratch: the first source sample of each output pixel, i32 (r,), then weights, u16 (r, num).
// Axis 0 is rows, 1 columns, 2 chroma rows, 3 chroma columns. `crop_plan.taps_size` is the host's sum of this.
struct Taps {
    i32* first;
    u16* weights;
    i32 num;
};

DEVICE Taps taps_of(const Batch& batch, const Crop& crop, i32 axis) {
    i64 at = crop.taps;
    for (i32 k = 0; k < axis; k++) at += 4 * batch.resolution + (2 * batch.resolution * crop.num_taps[k] + 3) / 4 * 4;
    u8* base = batch.scratch + at;
    return {(i32*)base, (u16*)(base + 4 * batch.resolution), (i32)crop.num_taps[axis]};
}
