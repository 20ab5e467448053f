// The votes of some children of a window for one block of parents: pose times matrix, a parent to a lane.
#pragma once

#include "layout.h"

namespace {

// Votes lie as [4 rows of the matrix][child of the tile][4 columns][lanes]: a pass over one row keeps its four means in
// registers and reads one stream.
template <class Real, int N>
struct Votes {
  Real* base;
  int64_t row_step;
  INLINE Real* at(int row, int64_t child) const { return base + row * row_step + child * 4 * N; }
};

template <class Real, int N>
INLINE Votes<Real, N> votes_of_block(const Job<Real>& job, const Scratch<Real>& scratch, int64_t block) {
  const int64_t kept = job.keep_votes ? block : 0;
  return {scratch.votes + kept * 16 * job.tile * N, job.tile * 4 * N};
}

// Children [begin, end) of the window, to places [to, ...) of the tile.
template <class Real, int N>
void compute_votes(const Job<Real>& job, const Real* poses, int64_t block, int64_t begin, int64_t end,
                   const Votes<Real, N>& votes, int64_t to) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  int64_t weight_index = begin % job.weight_period;  // with coordinates, the period is the number of child types
  const Real* offset = job.coordinates ? job.coordinates + begin / job.weight_period * 16 : nullptr;
  for (int64_t n = begin; n < end; ++n, ++to) {
    const Real* p = poses + n * 16;
    const Real* w = job.weight + (weight_index * job.blocks + block) * 16 * N;
    constexpr int R = sizeof(V) == 64 ? 4 : 2;  // rows at a time: their sums stay in registers, AVX-512 has twice as many
    for (int row = 0; row < 4; row += R, p += 4 * R) {
      V sum[R][4];
      UNROLL for (int k = 0; k < 4; ++k) {
        UNROLL for (int c = 0; c < 4; ++c) {
          const V wc = L::load_once(w + (k * 4 + c) * N);
          UNROLL for (int r = 0; r < R; ++r) sum[r][c] = k ? sum[r][c] + p[4 * r + k] * wc : p[4 * r] * wc;
        }
      }
      if (offset) {
        UNROLL for (int r = 0; r < R; ++r)
          UNROLL for (int c = 0; c < 4; ++c) sum[r][c] += L::all(offset[(row + r) * 4 + c]);
      }
      UNROLL for (int r = 0; r < R; ++r) {
        Real* out = votes.at(row + r, to);
        UNROLL for (int c = 0; c < 4; ++c) L::store(out + c * N, sum[r][c]);
      }
    }
    if (++weight_index == job.weight_period) {
      weight_index = 0;
      if (offset) offset += 16;
    }
  }
}

// Calls pass(votes, first child, children) for each chunk of children, whose votes lie from place 0 of what it gets.
// Votes that are kept have a place for each child of the window and are computed once (`ready`); the others are computed
// for this pass, and read while they are in the nearest cache.
template <class Real, int N, class Pass>
INLINE void for_each_chunk(const Job<Real>& job, const Real* poses, int64_t block, const Votes<Real, N>& votes,
                           bool ready, Pass pass) {
  const bool kept = job.tile == job.children;
  for (int64_t begin = 0; begin < job.children; begin += kChunk) {
    const int64_t end = begin + kChunk < job.children ? begin + kChunk : job.children;
    const int64_t place = kept ? begin : 0;
    if (!ready || !kept) compute_votes<Real, N>(job, poses, block, begin, end, votes, place);
    pass(Votes<Real, N>{votes.at(0, place), votes.row_step}, begin, end - begin);
  }
}

}  // namespace
