// Matrices to and from the order of the kernels: [child][block of parents][16][lanes].
#pragma once

#include "vector.h"

namespace {

template <class Real, int N>
void pack_weight(const Job<Real>& job, const Real* weight, Real* packed, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n)
    for (int64_t block = 0; block < job.blocks; ++block)
      for (int h = 0; h < 16; ++h)
        for (int64_t lane = 0; lane < N; ++lane) {
          const int64_t j = block * N + lane;
          packed[((n * job.blocks + block) * 16 + h) * N + lane] =
              j < job.parent_types ? weight[(n * job.parent_types + j) * 16 + h] : Real(0);
        }
}

// weight = the sum of `count` packed ones, always in the same order
template <class Real, int N>
void unpack_weight(const Job<Real>& job, const Real* const* packed, int64_t count, Real* weight, int64_t begin,
                   int64_t end) {
  typedef Lanes<Real, N> L;
  for (int64_t n = begin; n < end; ++n)
    for (int64_t block = 0; block < job.blocks; ++block)
      for (int h = 0; h < 16; ++h) {
        const int64_t at = ((n * job.blocks + block) * 16 + h) * N;
        typename L::V sum = L::load(packed[0] + at);
        for (int64_t i = 1; i < count; ++i) sum += L::load(packed[i] + at);
        for (int64_t lane = 0, j = block * N; lane < N && j < job.parent_types; ++lane, ++j)
          weight[(n * job.parent_types + j) * 16 + h] = sum[lane];
      }
}

}  // namespace
