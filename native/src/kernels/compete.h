// Competition: the children's assignments from the parents' log-densities and activations, and the way back.
#pragma once

#include "forward.h"

namespace {

// The parents that compete for a child are those of one or more windows. For each window: where its block 0 has the
// child (from block to block: children * lanes further), and where its block 0 has the record.
template <class Real>
struct Rivals {
  const Real** places;
  int64_t count;
};

// The windows that cover the children at (row, column). offsets are relative to the buffers' beginnings.
template <class Real, class Visit>
INLINE void for_each_cover(const Job<Real>& job, int64_t row, int64_t column, Visit visit) {
  for (int64_t k = 0; k < job.kernel_size; ++k) {
    const int64_t y = row - k;
    if (y < 0 || y % job.stride || y / job.stride >= job.out_height) continue;
    for (int64_t l = 0; l < job.kernel_size; ++l) {
      const int64_t x = column - l;
      if (x < 0 || x % job.stride || x / job.stride >= job.out_width) continue;
      visit(y / job.stride * job.out_width + x / job.stride, (k * job.kernel_size + l) * job.child_types);
    }
  }
}

// places: pairs of (log-densities, record) of one child. Turns the log-densities into assignments.
template <class Real, int N>
INLINE void normalise(const Job<Real>& job, const Real** places, int64_t count, int64_t child) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t step = job.children * N;
  V peaks = L::all(-__builtin_inf());
  for (int64_t place = 0; place < count; ++place) {
    for (int64_t block = 0; block < job.blocks; ++block) {
      Real* logit = const_cast<Real*>(places[2 * place]) + block * step + child * N;
      V value = L::load(logit) + L::load(places[2 * place + 1] + (block * kRecord + kLogActivation) * N);
      value = is_parent<Real, N>(job, block) ? value : L::all(-__builtin_inf());
      L::store(logit, value);
      peaks = L::maximum(peaks, value);
    }
  }
  const V peak = L::all(L::largest(peaks));
  V sums{};
  for (int64_t place = 0; place < count; ++place) {
    for (int64_t block = 0; block < job.blocks; ++block) {
      Real* logit = const_cast<Real*>(places[2 * place]) + block * step + child * N;
      const V value = exponential<Real, N>(L::load(logit) - peak);
      L::store(logit, value);
      sums += value;
    }
  }
  const Real inverse = Real(1) / L::sum(sums);
  for (int64_t place = 0; place < count; ++place) {
    for (int64_t block = 0; block < job.blocks; ++block) {
      Real* logit = const_cast<Real*>(places[2 * place]) + block * step + child * N;
      L::store(logit, L::load(logit) * inverse);
    }
  }
}

// places: pairs of (gradient of R·a, assignment R) of one child. Turns the former into the gradient of the logits,
// R·a·(gradient - sum R·gradient), and returns the sum, which is the gradient of the child's activation.
template <class Real, int N>
INLINE Real normalise_backward(const Job<Real>& job, const Real** places, int64_t count, int64_t child,
                               Real activation) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t step = job.children * N;
  V sums{};
  for (int64_t place = 0; place < count; ++place)
    for (int64_t block = 0; block < job.blocks; ++block)
      sums += L::load(places[2 * place] + block * step + child * N) *
              L::load(places[2 * place + 1] + block * step + child * N);
  const Real sum = L::sum(sums);
  for (int64_t place = 0; place < count; ++place) {
    for (int64_t block = 0; block < job.blocks; ++block) {
      Real* grad = const_cast<Real*>(places[2 * place]) + block * step + child * N;
      const V assignment = L::load(places[2 * place + 1] + block * step + child * N);
      L::store(grad, (assignment * activation) * (L::load(grad) - sum));
    }
  }
  return sum;
}

template <class Real, int N>
void compete(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t begin_row, int64_t end_row,
             Scratch<Real>& scratch) {
  Real* assignment = image.assignment + t * image.assignment_step;
  const Real* records = image.statistics + t * image.statistics_step;
  for (int64_t row = begin_row; row < end_row; ++row) {
    for (int64_t column = 0; column < job.width; ++column) {
      int64_t count = 0;
      for_each_cover(job, row, column, [&](int64_t window, int64_t child) {
        scratch.places[2 * count] = assignment + assignment_at(job, window, 0) + child * N;
        scratch.places[2 * count++ + 1] = records + record_at(job, window, 0);
      });
      if (count == 0) continue;
      for (int64_t i = 0; i < job.child_types; ++i) normalise<Real, N>(job, scratch.places, count, i);
    }
  }
}

template <class Real, int N>
void compete_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t t,
                      int64_t begin_row, int64_t end_row, Scratch<Real>& scratch) {
  Real* grad = image.grad_logit + (t - 1) * assignment_size(job);
  const Real* assignment = image.assignment + (t - 1) * assignment_size(job);
  for (int64_t row = begin_row; row < end_row; ++row) {
    for (int64_t column = 0; column < job.width; ++column) {
      int64_t count = 0;
      for_each_cover(job, row, column, [&](int64_t window, int64_t child) {
        const int64_t at = assignment_at(job, window, 0) + child * N;
        scratch.places[2 * count] = grad + at;
        scratch.places[2 * count++ + 1] = assignment + at;
      });
      if (count == 0) continue;
      const int64_t child = (row * job.width + column) * job.child_types;
      for (int64_t i = 0; i < job.child_types; ++i)
        sums.grad_activations[child + i] +=
            normalise_backward<Real, N>(job, scratch.places, count, i, image.activations[child + i]);
    }
  }
}

// Competition within windows: all iterations of a window in one visit, its votes computed once if they fit.
template <class Real, int N>
void windows_forward(const Job<Real>& job, const ForwardImage<Real>& image, int64_t begin, int64_t end,
                     Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window) {
    gather(job, image.poses, image.activations, window, scratch);
    for (int64_t t = 0; t < job.iterations; ++t) {
      for (int64_t block = 0; block < job.blocks; ++block)
        m_step_of_block<Real, N>(job, image, t, window, block, job.keep_votes && t > 0, scratch);
      activate_window<Real, N>(job, image, t, window, scratch);
      if (t + 1 == job.iterations) break;
      scratch.places[0] = image.assignment + t * image.assignment_step + assignment_at(job, window, 0);
      scratch.places[1] = image.statistics + t * image.statistics_step + record_at(job, window, 0);
      for (int64_t n = 0; n < job.children; ++n) normalise<Real, N>(job, scratch.places, 1, n);
    }
  }
}

}  // namespace
