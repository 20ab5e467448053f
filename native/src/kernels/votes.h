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
    for (int half = 0; half < 2; ++half, p += 8) {  // two rows at a time: their eight sums stay in registers
      V first[4], second[4];
      UNROLL for (int c = 0; c < 4; ++c) {
        const V wc = L::load_once(w + c * N);
        first[c] = p[0] * wc;
        second[c] = p[4] * wc;
      }
      UNROLL for (int k = 1; k < 4; ++k) {
        UNROLL for (int c = 0; c < 4; ++c) {
          const V wc = L::load_once(w + (k * 4 + c) * N);
          first[c] += p[k] * wc;
          second[c] += p[4 + k] * wc;
        }
      }
      if (offset) {
        UNROLL for (int c = 0; c < 4; ++c) {
          first[c] += L::all(offset[half * 8 + c]);
          second[c] += L::all(offset[half * 8 + 4 + c]);
        }
      }
      Real* out = votes.at(2 * half, to);
      UNROLL for (int c = 0; c < 4; ++c) L::store(out + c * N, first[c]);
      out = votes.at(2 * half + 1, to);
      UNROLL for (int c = 0; c < 4; ++c) L::store(out + c * N, second[c]);
    }
    if (++weight_index == job.weight_period) {
      weight_index = 0;
      if (offset) offset += 16;
    }
  }
}

// Calls pass(first child, children) for each tile, with that tile's votes in the scratch. The votes are computed again
// only where they do not all fit, or where `ready` says that they are not there yet.
template <class Real, int N, class Pass>
INLINE void for_each_tile(const Job<Real>& job, const Real* poses, int64_t block, const Votes<Real, N>& votes,
                          bool ready, Pass pass) {
  for (int64_t begin = 0; begin < job.children; begin += job.tile) {
    const int64_t end = begin + job.tile < job.children ? begin + job.tile : job.children;
    if (!ready || job.tile < job.children) compute_votes<Real, N>(job, poses, block, begin, end, votes, 0);
    pass(begin, end - begin);
  }
}

}  // namespace
