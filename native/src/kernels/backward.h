// The gradients of one window's records and assignments, iteration by iteration from the last to the first.
#pragma once

#include "sweep.h"

namespace {

// From the gradients of a window's activations to those of its costs and of the betas.
template <class Real, int N>
void activate_window_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums,
                              int64_t t, int64_t window, Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t parents = job.parent_types, padded = job.blocks * N;
  const bool last = t + 1 == job.iterations;
  const Real* records =
      image.statistics + t * job.windows * job.blocks * kRecord * N + record_at(job, window, 0);
  Real* grads = image.grad_record + t * grad_records_size(job) + grad_record_at(job, window, 0);
  Real* grad_evidence = scratch.parents;
  Real* evidence = grad_evidence + padded;
  Real* grad_cost = evidence + padded;
  Real* cost = grad_cost + padded;
  const Real inverse_temperature = job.inverse_temperature[t];
  double grad_inverse_temperature = 0;
  for (int64_t block = 0; block < job.blocks; ++block) {
    const Real* record = records + block * kRecord * N;
    Real* grad = grads + block * kGradRecord * N;
    const V e = L::load(record + kEvidence * N);
    V log, sigmoid, log_other, other;
    log_sigmoid<Real, N>(inverse_temperature * e, log, sigmoid);
    log_sigmoid<Real, N>(-inverse_temperature * e, log_other, other);
    V grad_logit{};
    if (last) {
      V grad_activation{};
      for (int64_t lane = 0, j = block * N; lane < N && j < parents; ++lane, ++j) {
        grad_activation[lane] = image.grad_out_activations[window * parents + j];
        for (int h = 0; h < 16; ++h)
          grad[(kGradMean + h) * N + lane] = image.grad_out_poses[(window * parents + j) * 16 + h];
      }
      for (int64_t lane = parents - block * N; lane < N; ++lane)
        if (lane >= 0)
          for (int h = 0; h < 16; ++h) grad[(kGradMean + h) * N + lane] = 0;
      grad_logit = grad_activation * (sigmoid * other);
    } else {
      const Real* from = image.grad_logit + t * assignment_size(job) + assignment_at(job, window, block);
      Total<V> total;
      for (int64_t begin = 0; begin < job.children; begin += kChunk) {
        const int64_t end = begin + kChunk < job.children ? begin + kChunk : job.children;
        V sum{};
        for (int64_t n = begin; n < end; ++n) sum += L::load(from + n * N);
        total.add(sum);
      }
      L::store(grad + kLogitSum * N, total.sum);
      grad_logit = total.sum * other;
    }
    L::store(grad_evidence + block * N, inverse_temperature * grad_logit);
    L::store(evidence + block * N, e);
    L::store(cost + block * N, L::load(record + kMass * N) * L::load(record + kDescription * N));
    for (int64_t lane = 0, j = block * N; lane < N && j < parents; ++lane, ++j)
      grad_inverse_temperature += double(grad_logit[lane]) * double(e[lane]);
  }
  sums.grad_inverse_temperature[t] += grad_inverse_temperature;
  for (int64_t j = 0; j < parents; ++j) sums.grad_beta_activation[j] += grad_evidence[j];
  if (job.relative) {
    // cost_j = mass_j (description_j - usual), usual = sum of mass description / sum of mass; the record's description is
    // the difference, so that d cost_j / d mass_j is as under the paper's rule but for what usual itself passes on
    Real data = 0, sum = 0;
    for (int64_t j = 0; j < parents; ++j) {
      const Real mass = records[((j / N) * kRecord + kMass) * N + j % N];
      data += mass;
      sum += mass * grad_evidence[j];
    }
    const Real mean_grad = data > 0 ? sum / data : Real(0);
    for (int64_t j = 0; j < parents; ++j) grad_cost[j] = mean_grad - grad_evidence[j];
  } else if (!job.standardised) {
    for (int64_t j = 0; j < parents; ++j) grad_cost[j] = -grad_evidence[j];
  } else {
    Real sum = 0, squares = 0;
    for (int64_t j = 0; j < parents; ++j) sum += cost[j];
    const Real mean_cost = sum / Real(parents);
    for (int64_t j = 0; j < parents; ++j) squares += (mean_cost - cost[j]) * (mean_cost - cost[j]);
    const Real variance = squares / Real(parents);
    const Real deviation = variance > 0 ? Real(__builtin_sqrt(variance)) : Real(0) * variance;
    const Real divisor = deviation + Real(kDeviationOffset);
    // standardised_j = x_j / divisor with x_j = mean cost - cost_j; the deviation depends on every x
    Real projection = 0, mean_grad = 0;
    for (int64_t j = 0; j < parents; ++j) projection += grad_evidence[j] * (mean_cost - cost[j]);
    const Real slope = variance > 0 ? projection / (divisor * divisor * deviation * Real(parents)) : Real(0);
    for (int64_t j = 0; j < parents; ++j) {
      grad_cost[j] = grad_evidence[j] / divisor - slope * (mean_cost - cost[j]);
      mean_grad += grad_cost[j];
    }
    mean_grad /= Real(parents);
    for (int64_t j = 0; j < parents; ++j) grad_cost[j] = mean_grad - grad_cost[j];
  }
  for (int64_t j = parents; j < padded; ++j) grad_cost[j] = 0;
  for (int64_t block = 0; block < job.blocks; ++block) {
    const Real* record = records + block * kRecord * N;
    const V g = L::load(grad_cost + block * N);
    L::store(grads + (block * kGradRecord + kGradCost) * N, g);
    for (int64_t lane = 0, j = block * N; lane < N && j < parents; ++lane, ++j)
      sums.grad_beta_use[j] += 16.0 * double(g[lane]) * double(record[kMass * N + lane]);
  }
}

template <class Real, int N>
void m_step_of_block_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums,
                              int64_t t, int64_t window, int64_t block, Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const Real* record =
      image.statistics + t * job.windows * job.blocks * kRecord * N + record_at(job, window, block);
  Real* grad = image.grad_record + t * grad_records_size(job) + grad_record_at(job, window, block);
  const int64_t at = assignment_at(job, window, block);
  const V mass = L::load(record + kMass * N);
  const V grad_cost = L::load(grad + kGradCost * N);
  const bool last = t + 1 == job.iterations;

  Moments<Real, N> logits;
  if (!last) {
    const Real* grad_logit = image.grad_logit + t * assignment_size(job) + at;
    moments_about<Real, N>(job, scratch.poses, block, record + kMean * N,
                           [&](int64_t n) { return L::load(grad_logit + n * N); }, logits);
  }
  const auto has_data = mass > Real(kEmptyMass);
  const V inverse_mass = has_data ? Real(1) / (has_data ? mass : V{} + Real(1)) : V{};
  V constant{};
  Real linear[16 * N], square[16 * N];
  for (int h = 0; h < 16; ++h) {
    const V spread = L::load(record + (kSpread + h) * N);
    const V inverse = Real(1) / (spread + job.variance_floor);
    V grad_mean, grad_variance = Real(0.5) * grad_cost * mass * inverse;
    if (last) {
      grad_mean = L::load(grad + (kGradMean + h) * N);
    } else {
      grad_mean = job.annealing * inverse * logits.first[h].sum;
      grad_variance += Real(0.5) * job.annealing * inverse *
                       (logits.second[h].sum * inverse - L::load(grad + kLogitSum * N));
    }
    L::store(grad + (kGradMean + h) * N, grad_mean);
    L::store(grad + (kGradVariance + h) * N, grad_variance);
    constant -= grad_variance * spread;
    L::store(linear + h * N, grad_mean * inverse_mass);
    L::store(square + h * N, grad_variance * inverse_mass);
  }
  constant = constant * inverse_mass + grad_cost * L::load(record + kDescription * N);

  // the gradient of R·a: the constant + sum over the components of D (linear + square D), with D = vote - mean
  if (t == 0) {
    sweep<Real, N>(job, image, sums, window, block, {record + kMean * N, linear, square, constant}, scratch);
    return;
  }
  auto quadratic_form = [&](int h, V d) { return d * (L::load(linear + h * N) + L::load(square + h * N) * d); };
  sum_of_components<Real, N>(job, scratch.poses, block, record + kMean * N, constant,
                             image.grad_logit + (t - 1) * assignment_size(job) + at, quadratic_form);
}

template <class Real, int N>
void m_step_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t t,
                     int64_t begin, int64_t end, Scratch<Real>& scratch) {
  for (int64_t block = 0; block < job.blocks; ++block) {
    for (int64_t window = begin; window < end; ++window) {
      gather(job, image.poses, image.activations, window, scratch);
      m_step_of_block_backward<Real, N>(job, image, sums, t, window, block, scratch);
      if (t == 0) scatter(job, window, sums, scratch);
    }
  }
}

template <class Real, int N>
void activate_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t t,
                       int64_t begin, int64_t end, Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window)
    activate_window_backward<Real, N>(job, image, sums, t, window, scratch);
}

template <class Real, int N>
void windows_backward(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t begin,
                      int64_t end, Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window) {
    gather(job, image.poses, image.activations, window, scratch);
    for (int64_t t = job.iterations - 1; t >= 0; --t) {
      activate_window_backward<Real, N>(job, image, sums, t, window, scratch);
      for (int64_t block = 0; block < job.blocks; ++block)
        m_step_of_block_backward<Real, N>(job, image, sums, t, window, block, scratch);
      if (t == 0) break;
      const int64_t at = (t - 1) * assignment_size(job) + assignment_at(job, window, 0);
      scratch.places[0] = image.grad_logit + at;
      scratch.places[1] = image.assignment + at;
      normalise_all_backward<Real, N>(job, scratch.places, 1, job.children, scratch.activations,
                                      scratch.grad_activations);
    }
    scatter(job, window, sums, scratch);
  }
}

}  // namespace
