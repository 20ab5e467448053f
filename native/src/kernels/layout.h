// Where things lie in the buffers of one image, and the children of one window.
#pragma once

#include "vector.h"

namespace {

// A sum that carries what its last addition rounded away (Kahan).
template <class V>
struct Total {
  V sum{}, carried{};
  INLINE void add(V term) {
    const V corrected = term - carried;
    const V next = sum + corrected;
    carried = (next - sum) - corrected;
    sum = next;
  }
};

// Calls body(Group<G>, n) for groups of G children, whose independent sums hide one another's latency, and for the
// children left over one by one.
template <int G>
struct Group {
  static constexpr int size = G;
};
template <int G, class Body>
INLINE void for_groups(int64_t count, Body body) {
  int64_t n = 0;
  for (; n + G <= count; n += G) body(Group<G>(), n);
  for (; n < count; ++n) body(Group<1>(), n);
}

template <class Real>
INLINE int64_t block_of(const Job<Real>& job, int64_t window, int64_t block) {
  return window * job.blocks + block;
}
template <class Real>
INLINE int64_t assignment_size(const Job<Real>& job) {
  return job.windows * job.blocks * job.children * job.lanes;
}
template <class Real>
INLINE int64_t assignment_at(const Job<Real>& job, int64_t window, int64_t block) {
  return block_of(job, window, block) * job.children * job.lanes;
}
template <class Real>
INLINE int64_t record_at(const Job<Real>& job, int64_t window, int64_t block) {
  return block_of(job, window, block) * kRecord * job.lanes;
}
template <class Real>
INLINE int64_t grad_record_at(const Job<Real>& job, int64_t window, int64_t block) {
  return block_of(job, window, block) * kGradRecord * job.lanes;
}
template <class Real>
INLINE int64_t grad_records_size(const Job<Real>& job) {
  return job.windows * job.blocks * kGradRecord * job.lanes;
}

// The largest number of parents that stand in lanes of this block: the rest is padding.
template <class Real, int N>
INLINE Bits<Real, N> is_parent(const Job<Real>& job, int64_t block) {
  return Lanes<Real, N>::count() < Lanes<Real, N>::all(Real(job.parent_types - block * N));
}

// Calls part(first child of the window, first child of the image, children) for each contiguous run of children.
template <class Real, class Part>
INLINE void for_each_run(const Job<Real>& job, int64_t window, Part part) {
  if (job.one_window) {
    part(int64_t(0), int64_t(0), job.children);
    return;
  }
  const int64_t row = window / job.out_width * job.stride, column = window % job.out_width * job.stride;
  const int64_t run = job.kernel_size * job.child_types;
  for (int64_t k = 0; k < job.kernel_size; ++k)
    part(k * run, ((row + k) * job.width + column) * job.child_types, run);
}

// Copies the children of a window side by side.
template <class Real>
void gather(const Job<Real>& job, const Real* poses, const Real* activations, int64_t window, Scratch<Real>& scratch) {
  for_each_run(job, window, [&](int64_t n, int64_t child, int64_t count) {
    __builtin_memcpy(scratch.poses + n * 16, poses + child * 16, count * 16 * sizeof(Real));
    __builtin_memcpy(scratch.activations + n, activations + child, count * sizeof(Real));
    __builtin_memcpy(scratch.uniform + n, job.uniform + child, count * sizeof(Real));
  });
}

}  // namespace
