// Crops of RoC records, from stored bytes to finished pixels: fill_taps, decode_segments, resample. See docs/gpu.md.
#include "decode_segments.cuh"
#include "resample.cuh"
#include "taps.cuh"
