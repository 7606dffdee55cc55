// Crops of RoC records and by a crop index, from stored bytes to finished pixels: fill_taps, decode_segments or
// decode_indexed, resample. See docs/gpu.md.
#include "decode_indexed.cuh"
#include "resample.cuh"
#include "taps.cuh"
