// Kernel fill_taps: the source samples and weights of each output pixel, for rows and columns, luma and chroma.
//
// Blocks: one for each crop. A thread makes the luma and chroma taps of one output row or column. The arithmetic is that
// of pipelines/images/resampling.py and pipelines/roc/decoder/planes.py, in doubles.
#pragma once
#include "batch.cuh"

#define WEIGHT_ONE 65535
#define SIGNED_ONE 16384

DEVICE double filter_at(i64 pixel, double center, double slope, bool bicubic) {
    double distance = fabs((double)pixel + 0.5 - center) * slope;
    if (!bicubic) return distance < 1.0 ? 1.0 - distance : 0.0;
    if (distance < 1.0) return (1.5 * distance - 2.5) * distance * distance + 1.0;
    return distance < 2.0 ? ((2.5 - 0.5 * distance) * distance - 4.0) * distance + 2.0 : 0.0;
}

struct Axis {
    double start, length;  // of the box
    i64 low, high;         // pixels that may be used
    bool flip, bicubic;
};

// The taps of output pixel i; returns where they are stored, mirrored or not.
DEVICE i32 luma_taps(const Axis& axis, i32 resolution, i32 i, const Taps& taps) {
    bool bicubic = axis.bicubic;
    double step = axis.length / resolution, support = step > 1.0 ? step : 1.0, slope = 1.0 / support;
    double center = axis.start + (i + 0.5) * step, reach = bicubic ? support * 2.0 : support;
    if (bicubic) center = at_most(at_least(center, (double)axis.low), (double)axis.high);
    i64 begin = at_most(at_least((i64)floor(center - reach + 0.5), axis.low), axis.high - 1);
    i64 end = at_most((i64)floor(center + reach + 0.5), at_most(axis.high, begin + taps.num));
    end = at_least(end, begin + 1);
    double total = 0.0;
    for (i64 pixel = begin; pixel < end; pixel++) total += filter_at(pixel, center, slope, bicubic);
    bool outside = total <= 0.0;  // only for a box outside [low, high): use the nearest pixel
    i64 rest = bicubic ? SIGNED_ONE : WEIGHT_ONE;
    double scale = (double)rest / (outside ? 1.0 : total);
    i64 position = at_least(at_most(begin, axis.high - taps.num), axis.low);
    i32 o = axis.flip ? resolution - 1 - i : i;
    taps.first[o] = (i32)position;
    u16* weights = taps.weights + (i64)o * taps.num;
    for (i32 k = 0; k < taps.num; k++) weights[k] = 0;
    for (i64 pixel = begin; pixel < end; pixel++) {
        double value = outside ? (pixel == begin ? 1.0 : 0.0) : filter_at(pixel, center, slope, bicubic);
        i64 weight = (i64)floor(value * scale + 0.5);
        weights[pixel - position] = (u16)weight;
        rest -= weight;
    }
    i64 nearest = at_most(at_least((i64)floor(center), begin), end - 1);
    weights[nearest - position] = (u16)(weights[nearest - position] + rest);
    return o;
}

// Chroma samples of one axis: pixels that share one (1, 2 or 4), the samples [low, high) that exist, and whether a pixel
// also takes a quarter of the next nearest sample. Of four pixels that share one, none does.
struct Chroma {
    i32 factor, low, high;
    bool fancy, bicubic;
};

// Four times the weight of chroma sample `sample`. Samples that do not exist repeat the outermost.
DEVICE i32 quarters_of(i32 sample, i32 first, const u16* luma, i32 num_luma, const Chroma& chroma) {
    i32 factor = chroma.factor, reach = factor == 2, quarters = 0;
    i32 begin = sample == chroma.low ? 0 : at_least(factor * sample - reach - first, 0);
    i32 end = sample == chroma.high - 1 ? num_luma : at_most(factor * (sample + 1) + reach - first, num_luma);
    for (i32 k = begin; k < end; k++) {
        i32 weight = chroma.bicubic ? (i16)luma[k] : luma[k], pixel = first + k, near = pixel >> factor / 2;
        if (weight == 0) continue;
        i32 far = chroma.fancy ? near - 1 + 2 * (pixel & 1) : near;
        if (at_most(at_least(near, chroma.low), chroma.high - 1) == sample) quarters += 3 * weight;
        if (at_most(at_least(far, chroma.low), chroma.high - 1) == sample) quarters += weight;
    }
    return quarters;
}

// The chroma taps that belong to the luma taps of output o.
DEVICE void chroma_taps(const Taps& luma, i32 o, const Chroma& chroma, const Taps& taps) {
    const u16* luma_weights = luma.weights + (i64)o * luma.num;
    u16* weights = taps.weights + (i64)o * taps.num;
    i32 first = luma.first[o];
    if (chroma.factor == 1) {
        taps.first[o] = first;
        for (i32 k = 0; k < taps.num; k++) weights[k] = luma_weights[k];
        return;
    }
    i32 position = chroma.factor == 2 ? (first - 1) >> 1 : first >> 2;
    position = at_least(at_most(position, chroma.high - taps.num), chroma.low);
    i32 rest = chroma.bicubic ? SIGNED_ONE : WEIGHT_ONE, largest = 0, most = 0;
    for (i32 k = 0; k < taps.num; k++) {
        i32 quarters = quarters_of(position + k, first, luma_weights, luma.num, chroma);
        i32 weight = (quarters + 2) >> 2;
        weights[k] = (u16)weight;
        rest -= weight;
        if (k == 0 || quarters > most) most = quarters, largest = k;
    }
    weights[largest] = (u16)(weights[largest] + rest);
    taps.first[o] = position;
}

KERNEL(128, 4) fill_taps(Batch batch) {
    const Crop& crop = batch.crops[BLOCK_X];
    if (crop.rows == 0) return;
    const double* box = batch.boxes + 4 * (i64)BLOCK_X;
    i32 resolution = batch.resolution;
    // In a narrow image libjpeg repeats chroma samples, along both axes.
    i64 chroma_side = crop.chroma_side, factor_x = crop.mcu_width / chroma_side;
    bool fancy = factor_x != 2 || crop.x + crop.width > 4;
    FOR_THREADS(item, 2 * resolution) {
        i32 columns = item >= resolution, i = columns ? item - resolution : item;
        Axis axis = {box[columns], box[2 + columns], columns ? crop.x_low : crop.y_low,
                     columns ? crop.x_high : crop.y_high, columns && crop.flip, crop.bicubic != 0};
        Taps luma = taps_of(batch, crop, columns);
        i32 o = luma_taps(axis, resolution, i, luma);
        i64 factor = columns ? factor_x : crop.mcu_height / chroma_side;
        i64 low = columns ? crop.x : crop.y, high = low + (columns ? crop.width : crop.height);
        Chroma chroma = {(i32)factor, (i32)(low / factor), (i32)((high + factor - 1) / factor), fancy && factor == 2,
                         crop.bicubic != 0};
        chroma_taps(luma, o, chroma, taps_of(batch, crop, 2 + columns));
    }
}
