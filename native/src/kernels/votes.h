// The votes of some children of a window for one block of parents: pose times matrix, a parent to a lane. Votes are
// computed where a pass needs them and never leave the registers: they would take more time to store and to load again.
#pragma once

#include "layout.h"

namespace {

// Vector registers of the machine: what a pass may keep at hand.
template <class Real, int N>
constexpr int registers() {
#if defined(__aarch64__)
  return 32;
#else
  return sizeof(Vector<Real, N>) == 64 ? 32 : 16;
#endif
}

// Rows of votes that are computed side by side where little else needs registers, and where two sums of each do.
template <class Real, int N>
constexpr int kRows = registers<Real, N>() == 32 ? 4 : 2;
template <class Real, int N>
constexpr int kRowsOfMoments = registers<Real, N>() == 32 ? 2 : 1;

// D = start + pose · matrix, R rows of it: `pose`, `start` and `D` begin at the first of these rows.
template <class Real, int N, int R>
INLINE void vote_rows(const Real* pose, const Real* weight, const Real* start, Vector<Real, N>* d) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  __asm__("" : "+r"(start));  // loaded for each child: kept in registers, it would leave too few for the sums
  UNROLL for (int i = 0; i < 4 * R; ++i) d[i] = L::load(start + i * N);
  UNROLL for (int k = 0; k < 4; ++k) {
    UNROLL for (int c = 0; c < 4; ++c) {
      const V w = L::load_once(weight + (k * 4 + c) * N);
      UNROLL for (int r = 0; r < R; ++r) d[4 * r + c] += pose[4 * r + k] * w;
    }
  }
}

// D = pose · matrix + start, or without one pose · matrix: sixteen more additions, and the same vote to the last bit wherever
// it is computed. That is what a mean and the distances from it need: where one child holds all the data, its distance from
// the mean is 0.
template <class Real, int N, int R>
INLINE void same_vote_rows(const Real* pose, const Real* weight, const Real* start, Vector<Real, N>* d) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  __asm__("" : "+r"(start));
  UNROLL for (int k = 0; k < 4; ++k) {
    UNROLL for (int c = 0; c < 4; ++c) {
      const V w = L::load_once(weight + (k * 4 + c) * N);
      UNROLL for (int r = 0; r < R; ++r) {
        // of the first two products, always the second is fused into the sum
        d[4 * r + c] = k ? d[4 * r + c] + pose[4 * r + k] * w : L::kept(pose[4 * r] * w);
      }
    }
  }
  if (start)
    UNROLL for (int i = 0; i < 4 * R; ++i) d[i] += L::load(start + i * N);
}

// Where the votes of a pass are counted from: -centre, plus the coordinates of the children's place.
template <class Real, int N>
INLINE void start_at(const Real* centre, const Real* offset, Real* start) {
  typedef Lanes<Real, N> L;
  for (int h = 0; h < 16; ++h)
    L::store(start + h * N, (offset ? L::all(offset[h]) : typename L::V{}) - L::load(centre + h * N));
}

// Calls visit(begin, end, matrices of the first child, start) for the children [begin, end) of a window, of class capsules
// for those of each place: the matrices repeat there, and coordinates are added. `start` is what start_at has made of the
// centre, and changes with the coordinates.
template <class Real, int N, class Visit>
INLINE void for_each_stretch(const Job<Real>& job, int64_t block, int64_t begin, int64_t end, const Real* centre,
                             Real* start, Visit visit) {
  const Real* weight = job.weight + block * 16 * N;
  if (!job.one_window) {
    visit(begin, end, weight + begin * job.blocks * 16 * N, start);
    return;
  }
  while (begin < end) {
    const int64_t place = begin / job.weight_period, first = place * job.weight_period;
    const int64_t stop = first + job.weight_period < end ? first + job.weight_period : end;
    if (job.coordinates) start_at<Real, N>(centre, job.coordinates + place * 16, start);
    visit(begin, stop, weight + (begin - first) * job.blocks * 16 * N, start);
    begin = stop;
  }
}

// Calls pass(first child, end) for each chunk of a window's children.
template <class Real, class Pass>
INLINE void for_each_chunk(const Job<Real>& job, Pass pass) {
  for (int64_t begin = 0; begin < job.children; begin += kChunk)
    pass(begin, begin + kChunk < job.children ? begin + kChunk : job.children);
}

}  // namespace
