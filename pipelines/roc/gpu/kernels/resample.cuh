// Kernel resample: planes to output pixels: weighted sums of rows, then of columns, colors, normalization.
//
// Blocks: x is the crop; the blocks along y share its output rows. A block makes up to 16 rows at a time. First each
// thread sums four neighboring columns of a plane over rows, into shared memory; then each thread makes one column of
// four output pixels. Sums, their rounding and the colors are those of pipelines/roc/decoder/weighted_rows.py and
// color.py.
#pragma once
#include "batch.cuh"

#define STRIP_ROOM 20480   // sums in shared memory, 40 KB
#define STRIP_ROWS 16
#define ROWS_AT_ONCE 4     // output rows of a thread: each weight is loaded once for all of them
#define MAX_FAST_TAPS 64   // with more, products are not rounded one by one

// A weighted sum in 8.8 fixed point, of bytes (bits = 8) or of 8.8 numbers (bits = 16).
template <i32 bits, bool is_signed>
struct Sum {
    u32 total;
    DEVICE_MEMBER void start(i32 num) { total = num <= MAX_FAST_TAPS ? (u32)num >> 1 : 1u << (bits - 1); }
    DEVICE_MEMBER void add_fast(u32 value, u32 weight) { total += value * weight >> bits; }
    DEVICE_MEMBER void add_exact(u32 value, u32 weight) { total += value * weight; }
    DEVICE_MEMBER u32 result(i32 num) const { return (num <= MAX_FAST_TAPS ? total : total >> bits) & 0xFFFF; }
};

// With signed weights: 128 is subtracted from gray levels. Sums of bytes stay without it, as sums of words expect.
template <i32 bits>
struct Sum<bits, true> {
    i32 total;
    DEVICE_MEMBER i32 centered(u32 value) const { return bits == 8 ? ((i32)value - 128) * 256 : (i16)value; }
    DEVICE_MEMBER void start(i32 num) { total = num <= MAX_FAST_TAPS ? num >> 1 : 1 << 15; }
    DEVICE_MEMBER void add_fast(u32 value, u32 weight) { total += centered(value) * (i16)weight >> 16; }
    DEVICE_MEMBER void add_exact(u32 value, u32 weight) { total += centered(value) * (i16)weight; }
    DEVICE_MEMBER u32 result(i32 num) const {
        i32 sum = at_most(at_least((i32)(i16)(num <= MAX_FAST_TAPS ? total : total >> 16), -8192), 8191) * 4;
        return (u32)(bits == 8 ? sum : sum + 32768) & 0xFFFF;
    }
};

// A plane and its taps.
struct Plane {
    const u8* samples;  // row `y` and column `x` of the level's plane
    i32 stride, y, x;
    Taps rows, columns;
    i32 low, width;     // the columns that are used, in whole words: first one in the plane, number
};

DEVICE Plane plane_of(const Batch& batch, const Crop& crop, i32 k) {
    i32 side = (i32)crop.chroma_side;
    i64 factor_y = k ? crop.mcu_height / side : 1, factor_x = k ? crop.mcu_width / side : 1;
    Plane plane = {batch.scratch + plane_start(crop, k, side), k ? chroma_stride(crop, side) : luma_stride(crop),
                   (i32)(crop.y / factor_y), (i32)(crop.x / factor_x), taps_of(batch, crop, k ? 2 : 0),
                   taps_of(batch, crop, k ? 3 : 1), 0, 0};
    i32 a = plane.columns.first[0], b = plane.columns.first[batch.resolution - 1];
    plane.low = (at_most(a, b) - plane.x) & ~3;
    plane.width = ((at_least(a, b) + plane.columns.num - plane.x + 3) & ~3) - plane.low;
    return plane;
}

// Sums over rows for output row o: four columns from `column` of the plane on.
template <bool is_signed>
DEVICE void sum_rows(const Plane& plane, i32 o, i32 column, u16* to) {
    const u8* source = plane.samples + (i64)(plane.rows.first[o] - plane.y) * plane.stride + column;
    const u16* weights = plane.rows.weights + (i64)o * plane.rows.num;
    i32 num = plane.rows.num;
    Sum<8, is_signed> sums[4];
    for (i32 j = 0; j < 4; j++) sums[j].start(num);
    if (num <= MAX_FAST_TAPS) {
        for (i32 k = 0; k < num; k++, source += plane.stride) {
            u32 word = *(const u32*)source;
            for (i32 j = 0; j < 4; j++) sums[j].add_fast(word >> 8 * j & 255, weights[k]);
        }
    } else {
        for (i32 k = 0; k < num; k++, source += plane.stride) {
            u32 word = *(const u32*)source;
            for (i32 j = 0; j < 4; j++) sums[j].add_exact(word >> 8 * j & 255, weights[k]);
        }
    }
    for (i32 j = 0; j < 4; j++) to[j] = (u16)sums[j].result(num);
}

// Sums over columns for output column o, of several rows whose sums over rows begin at `rows`.
template <bool is_signed>
DEVICE void sum_columns(const Plane& plane, i32 o, const u16* const* rows, i32 offset, u32* to) {
    const u16* weights = plane.columns.weights + (i64)o * plane.columns.num;
    i32 at = offset + plane.columns.first[o] - plane.x - plane.low, num = plane.columns.num;
    Sum<16, is_signed> sums[ROWS_AT_ONCE];
    for (i32 j = 0; j < ROWS_AT_ONCE; j++) sums[j].start(num);
    if (num <= MAX_FAST_TAPS) {
        for (i32 k = 0; k < num; k++) {
            for (i32 j = 0; j < ROWS_AT_ONCE; j++) sums[j].add_fast(rows[j][at + k], weights[k]);
        }
    } else {
        for (i32 k = 0; k < num; k++) {
            for (i32 j = 0; j < ROWS_AT_ONCE; j++) sums[j].add_exact(rows[j][at + k], weights[k]);
        }
    }
    for (i32 j = 0; j < ROWS_AT_ONCE; j++) to[j] = sums[j].result(num);
}

// One output sample of a plane without shared memory, for planes of which not even one row of sums fits there.
template <bool is_signed>
DEVICE u32 sum_directly(const Plane& plane, i32 o_row, i32 o_column) {
    const u16* weights = plane.columns.weights + (i64)o_column * plane.columns.num;
    i32 num = plane.columns.num, first = plane.columns.first[o_column] - plane.x;
    Sum<16, is_signed> sum;
    sum.start(num);
    for (i32 k = 0; k < num; k++) {
        u16 four[4];
        sum_rows<is_signed>(plane, o_row, (first + k) & ~3, four);
        u32 value = four[(first + k) & 3];
        if (num <= MAX_FAST_TAPS) sum.add_fast(value, weights[k]);
        else sum.add_exact(value, weights[k]);
    }
    return sum.result(num);
}

// Integer part of a value with 6 fractional bits, clipped.
DEVICE u32 to_byte(i32 value) { return (u32)at_most(at_least(value >> 6, 0), 255); }

DEVICE u16 to_half(float value) {
#if ON_GPU
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    _Float16 half = (_Float16)value;
    u16 bits;
    memcpy(&bits, &half, 2);
#endif
    return bits;
}

// Rounds to nearest, ties to even. No output is infinite or NaN.
DEVICE u16 to_bfloat16(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return (u16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Writes the output pixel (y, x) from 8.8 fixed-point luma and chroma.
DEVICE void write_pixel(const Batch& batch, i32 y, i32 x, u32 luma, u32 cb, u32 cr) {
    i32 l = (i32)(luma >> 2) + 32, b = (i32)(cb >> 2) - 8192, r = (i32)(cr >> 2) - 8192;
    u32 rgb[3] = {to_byte(l + r + (r * 26345 >> 16)), to_byte(l - (b * 22553 >> 16) - (r - (r * 18734 >> 16))),
                  to_byte(l + b - (b * 14942 >> 16) + b)};
    i64 at = 3 * (((i64)BLOCK_X * batch.resolution + y) * batch.resolution + x);
    for (i32 k = 0; k < 3; k++) {
        float value = ((float)rgb[k] - batch.shift[k]) * batch.factor[k];
        if (batch.kind == 0) ((u8*)batch.out)[at + k] = (u8)rgb[k];
        else ((u16*)batch.out)[at + k] = batch.kind == 1 ? to_half(value) : to_bfloat16(value);
    }
}

// Output rows [top, top + num): sums over rows into `strip`, which has `per_row` elements for each.
template <bool is_signed>
DEVICE void fill_strip(const Plane* planes, i32 num_planes, i32 top, i32 num, i32 per_row, u16* strip) {
    i32 words = per_row / 4;
    FOR_THREADS(item, num * words) {
        i32 y = item / words, column = 4 * (item - y * words), k = 0;
        u16* to = strip + y * per_row + column;
        for (; k < num_planes - 1 && column >= planes[k].width; k++) column -= planes[k].width;
        sum_rows<is_signed>(planes[k], top + y, planes[k].low + column, to);
    }
}

template <bool is_signed>
DEVICE void write_strip(const Batch& batch, const Plane* planes, bool gray, i32 top, i32 num, i32 per_row,
                        const u16* strip) {
    i32 resolution = batch.resolution;
    FOR_THREADS(item, (num + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * resolution) {
        i32 y = item / resolution, x = item - y * resolution;
        y *= ROWS_AT_ONCE;
        const u16* rows[ROWS_AT_ONCE];
        u32 luma[ROWS_AT_ONCE], cb[ROWS_AT_ONCE], cr[ROWS_AT_ONCE];
        for (i32 j = 0; j < ROWS_AT_ONCE; j++) {
            rows[j] = strip + at_most(y + j, num - 1) * per_row;
            cb[j] = cr[j] = 128 << 8;
        }
        sum_columns<is_signed>(planes[0], x, rows, 0, luma);
        if (!gray) {
            sum_columns<is_signed>(planes[1], x, rows, planes[0].width, cb);
            sum_columns<is_signed>(planes[2], x, rows, planes[0].width + planes[1].width, cr);
        }
        for (i32 j = 0; j < ROWS_AT_ONCE && y + j < num; j++) write_pixel(batch, top + y + j, x, luma[j], cb[j], cr[j]);
    }
}

// All output rows of this block, pixel by pixel.
template <bool is_signed>
DEVICE void resample_directly(const Batch& batch, const Plane* planes, bool gray) {
    i32 resolution = batch.resolution;
    for (i32 y = BLOCK_Y; y < resolution; y += NUM_BLOCKS_Y) {
        FOR_THREADS(x, resolution) {
            u32 cb = gray ? 128 << 8 : sum_directly<is_signed>(planes[1], y, x);
            u32 cr = gray ? 128 << 8 : sum_directly<is_signed>(planes[2], y, x);
            write_pixel(batch, y, x, sum_directly<is_signed>(planes[0], y, x), cb, cr);
        }
    }
}

template <bool is_signed>
DEVICE void resample_crop(const Batch& batch, u16* strip) {
    const Crop& crop = batch.crops[BLOCK_X];
    if (crop.rows == 0 || batch.codes[BLOCK_X] != OK || (crop.bicubic != 0) != is_signed) return;
    bool gray = crop.gray != 0;
    i32 num_planes = gray ? 1 : 3, resolution = batch.resolution;
    Plane planes[3];
    for (i32 k = 0; k < 3; k++) planes[k] = plane_of(batch, crop, k);
    i32 per_row = planes[0].width + (gray ? 0 : 2 * planes[1].width);
    i32 rows = at_most(STRIP_ROOM / per_row, STRIP_ROWS);
    if (rows == 0) {
        resample_directly<is_signed>(batch, planes, gray);
        return;
    }
    for (i32 top = BLOCK_Y * rows; top < resolution; top += NUM_BLOCKS_Y * rows) {
        i32 num = at_most(resolution - top, rows);
        BARRIER;
        fill_strip<is_signed>(planes, num_planes, top, num, per_row, strip);
        BARRIER;
        write_strip<is_signed>(batch, planes, gray, top, num, per_row, strip);
    }
}

// Two kernels, because signed sums need more registers.
KERNEL(256, 3) resample(Batch batch) {
    SHARED u16 strip[STRIP_ROOM];
    resample_crop<false>(batch, strip);
}

KERNEL(256, 2) resample_bicubic(Batch batch) {
    SHARED u16 strip[STRIP_ROOM];
    resample_crop<true>(batch, strip);
}
