// Backward, from the last iteration to the first: the gradients of records, of data and of logits. See the README.
//
// The logits' gradients are not stored: whoever reads them makes them of the data's, G = R·a (g(d) - Σ R g(d)).
#pragma once

#include "forward.cuh"

// What the log-densities of iteration t send to its means and variances, and the sum of the logits' gradients.
DEVICE void fit_backward(const Arguments& a, const Block& block, const Place& place, int t) {
  const long long pairs = pairs_of(a);
  const Real* record = record_of(a, t);
  const Real floor = Real(a.variance_floor), annealing = Real(a.annealing);
  const int parent_at = least(place.lane, kParents - block.parent - 1);
  Moments sums[kTogether];
  Real mean[kTogether][16];
  long long pair[kTogether];
  UNROLL for (int w = 0; w < kTogether; ++w) {
    pair[w] = window_at(a, block, place.group * kTogether + w) * kParents + block.parent + parent_at;
    UNROLL for (int h = 0; h < 16; ++h) mean[w][h] = record[(kMean + h) * pairs + pair[w]];
  }
  moments<false, true>(a, block, place, t, mean, sums);
  UNROLL for (int w = 0; w < kTogether; ++w) {
    const int at = place.group * kTogether + w;
    if (block.window + at >= a.windows || place.lane != parent_at || place.split != 0) continue;
    pair_memory(0)[at * kParents + block.parent + place.lane] = sums[w].mass;
    UNROLL for (int h = 0; h < 16; ++h) {
      const Real plain = Real(1) / (record[(kSpread + h) * pairs + pair[w]] + floor);
      const Real precision = annealing * plain;
      a.grad_record[(kGradMean + h) * pairs + pair[w]] = precision * sums[w].first[h];
      a.grad_record[(kGradVariance + h) * pairs + pair[w]] =
          Real(0.5) * precision * (sums[w].second[h] * plain - sums[w].mass);
    }
  }
}

// From the gradients of activations to those of costs, which stay in shared memory; the parameters' gradients as three
// planes to be summed.
DEVICE void activate_backward(const Arguments& a, const Block& block, int t) {
  const long long pairs = pairs_of(a);
  const Real* record = record_of(a, t);
  const Real temperature = a.inverse_temperature[t];
  const Real* logit_sums = pair_memory(0);
  Real* grad_evidences = pair_memory(1);
  Real* grad_costs = pair_memory(2);
  Real* sums = a.sums + t * 3 * pairs;
  for_pairs(a, block.window, [&](int w, int j) {
    const long long pair = (block.window + w) * kParents + j;
    const Real evidence = record[kEvidence * pairs + pair];
    Real unused, active, silent;
    log_sigmoid(temperature * evidence, unused, active);
    log_sigmoid(-temperature * evidence, unused, silent);
    const Real grad_logit = t + 1 == kIterations ? a.grad_out_activations[pair] * (active * silent)
                                                 : logit_sums[w * kParents + j] * silent;
    grad_evidences[w * kParents + j] = temperature * grad_logit;
    sums[pair] = grad_logit * evidence;
    sums[pairs + pair] = temperature * grad_logit;
  });
  synchronise();
  for_pairs(a, block.window, [&](int w, int j) {
    const long long first = (block.window + w) * kParents;
    const Real* mass = record + kMass * pairs + first;
    const Real* description = record + kDescription * pairs + first;
    const Real* grad_evidence = grad_evidences + w * kParents;
    Real grad_cost = -grad_evidence[j];
    if constexpr (kRule == 1) {
      // standardised_j = x_j / divisor with x_j = mean cost - cost_j; the deviation depends on every x
      Real costs = Real(0), squares = Real(0), projection = Real(0), grads = Real(0);
      for (int i = 0; i < kParents; ++i) costs += product(mass[i], description[i]);
      const Real usual = costs / Real(kParents);
      for (int i = 0; i < kParents; ++i) {
        const Real centred = usual - product(mass[i], description[i]);
        squares += centred * centred;
        projection += grad_evidence[i] * centred;
      }
      const Real variance = squares / Real(kParents), deviation = sqrt(variance), divisor = deviation + kDeviationOffset;
      const Real slope = variance > Real(0) ? projection / (divisor * divisor * deviation * Real(kParents)) : Real(0);
      Real own = Real(0);
      for (int i = 0; i < kParents; ++i) {
        const Real grad = grad_evidence[i] / divisor - slope * (usual - product(mass[i], description[i]));
        grads += grad;
        own = i == j ? grad : own;
      }
      grad_cost = grads / Real(kParents) - own;
    } else if constexpr (kRule == 2) {
      // relative: the record's description is less the usual, which depends on every parent's data
      Real data = Real(0), shared = Real(0);
      for (int i = 0; i < kParents; ++i) {
        data += mass[i];
        shared += mass[i] * grad_evidence[i];
      }
      grad_cost += shared / (data > Real(0) ? data : Real(1));
    }
    grad_costs[w * kParents + j] = grad_cost;
    sums[2 * pairs + first + j] = Real(16) * mass[j] * grad_cost;
  });
}

// The factors of the last sweep that belong to iteration t; then, but for the first iteration, the gradient of the children's
// data R·a, Σ_h D (g(µ) + g(σ²) D) / m + constant. The first one's comes from the factors.
DEVICE void data_backward(const Arguments& a, const Block& block, const Place& place, int t) {
  const long long pairs = pairs_of(a);
  const Real* record = record_of(a, t);
  const Real* last = record_of(a, kIterations - 1);
  const Real floor = Real(a.variance_floor), annealing = Real(a.annealing);
  const int parent_at = least(place.lane, kParents - block.parent - 1);
  const bool is_last = t + 1 == kIterations;
  Real mean[kTogether][16], linear[kTogether][16], square[kTogether][16], constant[kTogether];
  long long out[kTogether];
  bool is_pair[kTogether];
  UNROLL for (int w = 0; w < kTogether; ++w) {
    const int at = place.group * kTogether + w;
    const long long window = window_at(a, block, at), pair = window * kParents + block.parent + parent_at;
    is_pair[w] = block.window + at < a.windows && place.lane == parent_at;
    out[w] = window * (long long)(kChildren) * kParents + block.parent + parent_at;
    const Real mass = record[kMass * pairs + pair];
    const Real inverse = mass > kEmptyMass ? Real(1) / mass : Real(0);
    const Real grad_cost = pair_memory(2)[int(window - block.window) * kParents + block.parent + parent_at];
    Real* factors = a.factors + (window * kFactors * (long long)(kParents) + block.parent + parent_at) * 4;
    const bool writes = is_pair[w] && place.split == 0;
    Real rest = Real(0), shifted = Real(0);
    UNROLL for (int row = 0; row < 4; ++row) {
      Vec4 twice, offset, third, fourth;
      UNROLL for (int c = 0; c < 4; ++c) {
        const int h = 4 * row + c;
        const Real spread = record[(kSpread + h) * pairs + pair];
        Real grad_variance = Real(0.5) * grad_cost * mass / (spread + floor), grad_mean;
        if (is_last) {
          grad_mean = a.grad_out_poses[pair * 16 + h];
        } else {
          grad_mean = a.grad_record[(kGradMean + h) * pairs + pair];
          grad_variance += a.grad_record[(kGradVariance + h) * pairs + pair];
        }
        mean[w][h] = record[(kMean + h) * pairs + pair];
        linear[w][h] = grad_mean * inverse;
        square[w][h] = grad_variance * inverse;
        rest -= grad_variance * spread;
        const Real last_mean = last[(kMean + h) * pairs + pair], shift = last_mean - mean[w][h];
        const Real precision = annealing / (spread + floor);
        twice.v[c] = Real(2) * square[w][h];
        offset.v[c] = linear[w][h] + twice.v[c] * shift;
        third.v[c] = is_last ? last_mean : precision;
        fourth.v[c] = precision * shift;
        shifted += shift * (linear[w][h] + square[w][h] * shift);
      }
      if (writes) {
        auto put = [&](int which, const Vec4& value) {
          *reinterpret_cast<Vec4*>(factors + (long long)(which) * kParents * 4) = value;
        };
        put(16 * t + row, twice);
        put(16 * t + 4 + row, offset);
        put(16 * t + 8 + row, third);
        if (!is_last) put(16 * t + 12 + row, fourth);
      }
    }
    constant[w] = rest * inverse + grad_cost * record[kDescription * pairs + pair];
    if (writes && t == 0) factors[(long long)(kFactors - 1) * kParents * 4] = constant[w] + shifted;
  }
  if (t == 0) return;
  Real* grad_data = a.grad_data + (t - 1) * (a.windows * (long long)(kChildren) * kParents);
  for_children<false, false, false, 1>(
      a, block, place, nullptr, nullptr, nullptr, nullptr, [&](const Stage<false, false>& stage, int i, int n) {
        const Matrix matrix = matrix_of(stage, i, parent_at);
        UNROLL for (int w = 0; w < kTogether; ++w) {
          Real total = Real(0);
          UNROLL for (int row = 0; row < 4; ++row) {
            const Vec4 deviation =
                deviation_row(stage, stage.pose[place.group * kTogether + w][i][row], matrix, mean[w], i, row);
            Real part = Real(0);
            UNROLL for (int c = 0; c < 4; ++c)
              part += deviation.v[c] * (linear[w][4 * row + c] + square[w][4 * row + c] * deviation.v[c]);
            total += part;
          }
          if (is_pair[w]) grad_data[out[w] + (long long)(n) * kParents] = total + constant[w];
        }
      });
}

// Σ R g(d) of a child over all parents that compete for it.
DEVICE void compete_backward_for(const Arguments& a, int t, long long contest, int child, int lane) {
  const Real* logits = logits_of(a, t);
  const Real* grads = a.grad_data + t * (a.windows * (long long)(kChildren) * kParents);
  const bool is_child = child < kContested;
  const long long competitor_at = contest * kContested + child;
  Real result = Real(0);
  if (is_child) {
    const Real peak = partitions_of(a, t)[2 * competitor_at];
    for_bids(contest, child, lane, [&](long long at, int) {
      const Bids bids = load_bids(logits + at), grad = load_bids(grads + at);
      UNROLL for (int k = 0; k < kBidWidth; ++k) result += exp(bids.value[k] - peak) * grad.value[k];
    });
    result *= partitions_of(a, t)[2 * competitor_at + 1];
  }
  UNROLL for (int mask = kBidLanes / 2; mask > 0; mask /= 2) result += of_neighbour(result, mask);
  if (is_child && lane == 0) a.totals[t * competitors_of(a) + competitor_at] = result;
}

DEVICE void iterate_backward(const Arguments& a, Block block, int t) {
  const Place place = place_of_thread();
  if (t + 1 < kIterations)
    for (block.parent = 0; block.parent < kParents; block.parent += kLanes) fit_backward(a, block, place, t);
  synchronise();
  activate_backward(a, block, t);
  synchronise();
  for (block.parent = 0; block.parent < kParents; block.parent += kLanes) data_backward(a, block, place, t);
}

#if MATCAPS_BACKWARD && MATCAPS_CHILD_COMPETITION
KERNEL void __launch_bounds__(kThreads, kResident) iterate_back(Arguments a) {
  iterate_backward(a, {blockIdx.x * (long long)(kBlockWindows), 0}, int(a.iteration));
}

KERNEL void __launch_bounds__(kThreads) compete_back(Arguments a) {
  const unsigned image = blockIdx.x / kContestBlocks, part = blockIdx.x % kContestBlocks;
  compete_backward_for(a, int(a.iteration), image, part * kBidSlots + threadIdx.x / kBidLanes, threadIdx.x % kBidLanes);
}

#elif MATCAPS_BACKWARD

// All iterations, where children compete within a window.
KERNEL void __launch_bounds__(kThreads, kResident) route_windows_back(Arguments a) {
  const Block block{blockIdx.x * (long long)(kBlockWindows), 0};
  for (int t = kIterations - 1;; --t) {
    iterate_backward(a, block, t);
    if (t == 0) return;
    synchronise();
    for_contests_of_block(
        a, block, [&](long long window, int n, int lane) { compete_backward_for(a, t - 1, window, n, lane); });
    synchronise();
  }
}
#endif
