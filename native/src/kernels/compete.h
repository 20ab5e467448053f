// Competition: the children's assignments from the parents' log-densities and activations, and the way back.
#pragma once

#include "forward.h"

namespace {

// The windows along one side that cover a place: from `last` down to `first`; the place is child place - window * stride of
// theirs.
struct Cover {
  int64_t first, last;
};
template <class Real>
INLINE Cover cover_of(const Job<Real>& job, int64_t place, int64_t windows) {
  const int64_t before = place - job.kernel_size + 1;  // the first place of the first window that could cover it
  const int64_t last = place / job.stride;
  return {before > 0 ? (before + job.stride - 1) / job.stride : 0, last < windows ? last : windows - 1};
}

// Calls visit(window, its first child at this place) for the windows that cover the children at (row, column).
template <class Real, class Visit>
INLINE void for_each_cover(const Job<Real>& job, int64_t row, const Cover& rows, int64_t column, const Cover& columns,
                           Visit visit) {
  for (int64_t y = rows.last; y >= rows.first; --y)
    for (int64_t x = columns.last; x >= columns.first; --x)
      visit(y * job.out_width + x,
            ((row - y * job.stride) * job.kernel_size + column - x * job.stride) * job.child_types);
}

// The parents that compete for a child are those of the one or more windows that cover it. `places` has a pair for each
// window: where block 0 has child 0 of the children at hand, and where block 0 has the record, or the assignment.

// Calls visit(pointer to G vectors of children, second pointer, block) for every block of every window.
template <class Real, int N, class Visit>
INLINE void for_each_rival(const Job<Real>& job, const Real** places, int64_t count, int64_t child,
                           int64_t second_step, Visit visit) {
  for (int64_t place = 0; place < count; ++place) {
    Real* first = const_cast<Real*>(places[2 * place]) + child * N;
    const Real* second = places[2 * place + 1];
    for (int64_t block = 0; block < job.blocks; ++block, first += job.children * N, second += second_step)
      visit(first, second, block);
  }
}

// Turns the log-densities of G children into assignments.
template <class Real, int N, int G>
INLINE void normalise(const Job<Real>& job, const Real** places, int64_t count, int64_t child) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V peak[G], sum[G]{};
  UNROLL for (int i = 0; i < G; ++i) peak[i] = L::all(-__builtin_inf());
  for_each_rival<Real, N>(job, places, count, child, kRecord * N, [&](Real* logit, const Real* record, int64_t block) {
    V log_activation = L::load(record + kLogActivation * N);
    const bool is_whole = (block + 1) * N <= job.parent_types;
    const Bits<Real, N> parent = is_parent<Real, N>(job, block);
    UNROLL for (int i = 0; i < G; ++i) {
      V value = L::load(logit + i * N) + log_activation;
      if (!is_whole) value = parent ? value : L::all(-__builtin_inf());
      L::store(logit + i * N, value);
      peak[i] = L::maximum(peak[i], value);
    }
  });
  UNROLL for (int i = 0; i < G; ++i) peak[i] = L::all(L::largest(peak[i]));
  for_each_rival<Real, N>(job, places, count, child, 0, [&](Real* logit, const Real*, int64_t) {
    UNROLL for (int i = 0; i < G; ++i) {
      const V value = exponential<Real, N>(L::load(logit + i * N) - peak[i]);
      L::store(logit + i * N, value);
      sum[i] += value;
    }
  });
  UNROLL for (int i = 0; i < G; ++i) sum[i] = Real(1) / L::all(L::sum(sum[i]));
  for_each_rival<Real, N>(job, places, count, child, 0, [&](Real* logit, const Real*, int64_t) {
    UNROLL for (int i = 0; i < G; ++i) L::store(logit + i * N, L::load(logit + i * N) * sum[i]);
  });
}

// Turns the gradients of R·a of G children into those of their logits, R·a·(gradient - sum R·gradient), and adds the
// sums, which are the gradients of the children's activations, to grad_activations.
template <class Real, int N, int G>
INLINE void normalise_backward(const Job<Real>& job, const Real** places, int64_t count, int64_t child,
                               const Real* activations, Real* grad_activations) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V sum[G]{};
  const int64_t step = job.children * N;
  for_each_rival<Real, N>(job, places, count, child, step, [&](Real* grad, const Real* assignment, int64_t) {
    UNROLL for (int i = 0; i < G; ++i) sum[i] += L::load(grad + i * N) * L::load(assignment + (child + i) * N);
  });
  UNROLL for (int i = 0; i < G; ++i) {
    const Real total = L::sum(sum[i]);
    grad_activations[i] += total;
    sum[i] = L::all(total);
  }
  for_each_rival<Real, N>(job, places, count, child, step, [&](Real* grad, const Real* assignment, int64_t) {
    UNROLL for (int i = 0; i < G; ++i)
      L::store(grad + i * N, (L::load(assignment + (child + i) * N) * activations[i]) * (L::load(grad + i * N) - sum[i]));
  });
}

template <class Real, int N>
INLINE void normalise_all(const Job<Real>& job, const Real** places, int64_t count, int64_t children) {
  for_groups<4>(children, [&](auto group, int64_t n) {
    normalise<Real, N, decltype(group)::size>(job, places, count, n);
  });
}

template <class Real, int N>
INLINE void normalise_all_backward(const Job<Real>& job, const Real** places, int64_t count, int64_t children,
                                   const Real* activations, Real* grad_activations) {
  for_groups<4>(children, [&](auto group, int64_t n) {
    normalise_backward<Real, N, decltype(group)::size>(job, places, count, n, activations + n, grad_activations + n);
  });
}

template <class Real, int N>
void compete(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t begin_row, int64_t end_row,
             Scratch<Real>& scratch) {
  Real* assignment = image.assignment + t * image.assignment_step;
  const Real* records = image.statistics + t * image.statistics_step;
  for (int64_t row = begin_row; row < end_row; ++row) {
    const Cover rows = cover_of(job, row, job.out_height);
    for (int64_t column = 0; column < job.width; ++column) {
      int64_t count = 0;
      for_each_cover(job, row, rows, column, cover_of(job, column, job.out_width), [&](int64_t window, int64_t child) {
        scratch.places[2 * count] = assignment + assignment_at(job, window, 0) + child * N;
        scratch.places[2 * count++ + 1] = records + record_at(job, window, 0);
      });
      if (count == 0) continue;
      normalise_all<Real, N>(job, scratch.places, count, job.child_types);
    }
  }
}

template <class Real, int N>
void compete_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t t,
                      int64_t begin_row, int64_t end_row, Scratch<Real>& scratch) {
  Real* grad = image.grad_logit + (t - 1) * assignment_size(job);
  const Real* assignment = image.assignment + (t - 1) * assignment_size(job);
  for (int64_t row = begin_row; row < end_row; ++row) {
    const Cover rows = cover_of(job, row, job.out_height);
    for (int64_t column = 0; column < job.width; ++column) {
      int64_t count = 0;
      for_each_cover(job, row, rows, column, cover_of(job, column, job.out_width), [&](int64_t window, int64_t child) {
        const int64_t at = assignment_at(job, window, 0) + child * N;
        scratch.places[2 * count] = grad + at;
        scratch.places[2 * count++ + 1] = assignment + at;
      });
      if (count == 0) continue;
      const int64_t child = (row * job.width + column) * job.child_types;
      normalise_all_backward<Real, N>(job, scratch.places, count, job.child_types, image.activations + child,
                                      sums.grad_activations + child);
    }
  }
}

// Competition within windows: all iterations of a window in one visit.
template <class Real, int N>
void windows_forward(const Job<Real>& job, const ForwardImage<Real>& image, int64_t begin, int64_t end,
                     Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window) {
    gather(job, image.poses, image.activations, window, scratch);
    for (int64_t t = 0; t < job.iterations; ++t) {
      for (int64_t block = 0; block < job.blocks; ++block)
        m_step_of_block<Real, N>(job, image, t, window, block, scratch);
      activate_window<Real, N>(job, image, t, window, scratch);
      if (t + 1 == job.iterations) break;
      scratch.places[0] = image.assignment + t * image.assignment_step + assignment_at(job, window, 0);
      scratch.places[1] = image.statistics + t * image.statistics_step + record_at(job, window, 0);
      normalise_all<Real, N>(job, scratch.places, 1, job.children);
    }
  }
}

}  // namespace
