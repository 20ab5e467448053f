// Forward: the M-step of all parents of some windows, their activations, the logits that follow, and competition.
#pragma once

#include "common.cuh"

constexpr Real kFar = Real(8);  // variances between a mean and its centre, squared

// Mean, spread and cost of the block's pairs, by iteration t's assignment; mass and description go to shared memory, too.
template <bool kFirst>
DEVICE void fit(const Arguments& a, Block block, const Place& place, int t) {
  const long long pairs = pairs_of(a);
  Real* record = record_of(a, t);
  const Real floor = Real(a.variance_floor);
  Moments sums[kTogether];
  Real centre[kTogether][16], inverse[kTogether];
  const int parent = block.parent + place.lane;
  long long pair[kTogether];
  bool is_pair[kTogether];
  UNROLL for (int w = 0; w < kTogether; ++w) {
    const int at = place.group * kTogether + w;
    pair[w] = window_at(a, block, at) * kParents + least(parent, kParents - 1);
    is_pair[w] = block.window + at < a.windows && parent < kParents;
  }
  if constexpr (kFirst) {
    UNROLL for (int w = 0; w < kTogether; ++w) UNROLL for (int h = 0; h < 16; ++h) centre[w][h] = Real(0);
    moments<true, false, (kChildren + 15) / 16>(a, block, place, 0, centre, sums);
    UNROLL for (int w = 0; w < kTogether; ++w) {
      const Real over = sums[w].mass > Real(0) ? Real(1) / sums[w].mass : Real(0);
      UNROLL for (int h = 0; h < 16; ++h) centre[w][h] = sums[w].mass > Real(0) ? sums[w].first[h] * over : Real(0);
    }
  } else {
    const Real* before = record_of(a, t - 1);
    UNROLL for (int w = 0; w < kTogether; ++w)
      UNROLL for (int h = 0; h < 16; ++h) centre[w][h] = before[(kMean + h) * pairs + pair[w]];
  }
  // A centre far from the mean costs digits of the spread, three bits at most: then once more, about the mean.
  for (int visit = 0;; ++visit) {
    moments<kFirst, false>(a, block, place, t - 1, centre, sums);
    bool is_far = false;
    UNROLL for (int w = 0; w < kTogether; ++w) {
      const Real mass = sums[w].mass;
      inverse[w] = mass > kEmptyMass ? Real(1) / mass : Real(0);
      UNROLL for (int h = 0; h < 16; ++h) {
        const Real rest = sums[w].first[h] * inverse[w];
        is_far = is_far || (is_pair[w] && rest * rest > kFar * (sums[w].second[h] * inverse[w] - rest * rest + floor));
      }
    }
    if (visit > 0 || !any_of_block(is_far)) break;
    UNROLL for (int w = 0; w < kTogether; ++w)
      UNROLL for (int h = 0; h < 16; ++h) centre[w][h] += sums[w].first[h] * inverse[w];
  }
  UNROLL for (int w = 0; w < kTogether; ++w) {
    if (!is_pair[w] || place.split != 0) continue;
    const bool has_data = sums[w].mass > kEmptyMass;
    Real log_determinant = Real(0);
    UNROLL for (int row = 0; row < 4; ++row) {  // four sums of four: shorter sums round less
      Real logs = Real(0);
      Vec4 mean;
      UNROLL for (int c = 0; c < 4; ++c) {
        const int h = 4 * row + c;
        const Real rest = sums[w].first[h] * inverse[w];
        Real spread = sums[w].second[h] * inverse[w] - rest * rest;
        spread = spread < Real(0) ? Real(0) : spread;  // NaN stays NaN
        mean.v[c] = has_data ? centre[w][h] + rest : Real(0) * sums[w].first[h];  // NaN votes come through without data
        logs += log(spread + floor);
        record[(kMean + h) * pairs + pair[w]] = mean.v[c];
        record[(kSpread + h) * pairs + pair[w]] = spread;
      }
      log_determinant += logs;
      if (t + 1 == kIterations) *reinterpret_cast<Vec4*>(a.out_poses + pair[w] * 16 + 4 * row) = mean;
    }
    const Real description = Real(16) * a.beta_use[parent] + Real(0.5) * log_determinant;
    record[kMass * pairs + pair[w]] = sums[w].mass;
    const int at = (place.group * kTogether + w) * kParents + parent;
    pair_memory(0)[at] = sums[w].mass;
    pair_memory(1)[at] = description;
    pair_memory(2)[at] = product(sums[w].mass, description);
  }
}

// Evidence and log-activation of all parents of the block's windows, whose mass and description are in shared memory.
DEVICE void activate(const Arguments& a, const Block& block, int t) {
  const long long pairs = pairs_of(a);
  Real* record = record_of(a, t);
  const Real* masses = pair_memory(0);
  const Real* descriptions = pair_memory(1);
  const Real* all_costs = pair_memory(2);
  const Real temperature = a.inverse_temperature[t];
  for_pairs(a, block.window, [&](int w, int j) {
    const Real* mass = masses + w * kParents;
    const Real* description = descriptions + w * kParents;
    const Real* cost = all_costs + w * kParents;
    const long long pair = (block.window + w) * kParents + j;
    Real cost_of_a_unit = description[j], evidence = a.beta_activation[j];
    if constexpr (kRule == 2) {  // relative: less what a unit of the window's data costs on average
      Real data = Real(0), costs = Real(0);
      for (int i = 0; i < kParents; ++i) {
        data += mass[i];
        costs += cost[i];
      }
      cost_of_a_unit -= costs / (data > Real(0) ? data : Real(1));
    }
    if constexpr (kRule == 1) {  // standardised
      Real costs = Real(0), squares = Real(0);
      for (int i = 0; i < kParents; ++i) costs += cost[i];
      const Real usual = costs / Real(kParents);
      for (int i = 0; i < kParents; ++i) {
        const Real centred = usual - cost[i];
        squares += centred * centred;
      }
      evidence += (usual - cost[j]) / (sqrt(squares / Real(kParents)) + kDeviationOffset);
    } else {
      evidence -= mass[j] * cost_of_a_unit;
    }
    Real log_value, value;
    log_sigmoid(temperature * evidence, log_value, value);
    record[kDescription * pairs + pair] = cost_of_a_unit;
    record[kEvidence * pairs + pair] = evidence;
    record[kLogActivation * pairs + pair] = log_value;
    if (t + 1 == kIterations) a.out_activations[pair] = value;
  });
}

// ln(activation) + annealing times the log-density of every child's vote: what parents bid for children.
DEVICE void bid(const Arguments& a, const Block& block, const Place& place, int t) {
  const long long pairs = pairs_of(a);
  const Real* record = record_of(a, t);
  const Real floor = Real(a.variance_floor), annealing = Real(a.annealing);
  const int parent_at = least(place.lane, kParents - block.parent - 1);
  Real mean[kTogether][16], scale[kTogether][16], constant[kTogether];
  long long out[kTogether];
  bool is_pair[kTogether];
  UNROLL for (int w = 0; w < kTogether; ++w) {
    const int at = place.group * kTogether + w;
    const long long window = window_at(a, block, at), pair = window * kParents + block.parent + parent_at;
    is_pair[w] = block.window + at < a.windows && place.lane == parent_at;
    out[w] = window * (long long)(kChildren) * kParents + block.parent + parent_at;
    Real log_determinant = Real(0);
    UNROLL for (int row = 0; row < 4; ++row) {
      Real logs = Real(0);
      UNROLL for (int h = 4 * row; h < 4 * row + 4; ++h) {
        const Real variance = record[(kSpread + h) * pairs + pair] + floor;
        mean[w][h] = record[(kMean + h) * pairs + pair];
        scale[w][h] = Real(-0.5) * annealing / variance;
        logs += log(variance);
      }
      log_determinant += logs;
    }
    constant[w] = Real(-0.5) * annealing * log_determinant + record[kLogActivation * pairs + pair];
  }
  Real* logits = logits_of(a, t);
  for_children<false, false, false, 1>(
      a, block, place, nullptr, nullptr, nullptr, nullptr, [&](const Stage<false, false>& stage, int i, int n) {
        const Matrix matrix = matrix_of(stage, i, parent_at);
        UNROLL for (int w = 0; w < kTogether; ++w) {
          Real total = Real(0);
          UNROLL for (int row = 0; row < 4; ++row) {  // apart from the constant, and each row apart: it rounds less
            const Vec4 deviation =
                deviation_row(stage, stage.pose[place.group * kTogether + w][i][row], matrix, mean[w], i, row);
            Real part = Real(0);
            UNROLL for (int c = 0; c < 4; ++c)
              part += deviation.v[c] * deviation.v[c] * scale[w][4 * row + c];
            total += part;
          }
          if (is_pair[w]) logits[out[w] + (long long)(n) * kParents] = total + constant[w];
        }
      });
}

template <bool kFirst>
DEVICE void iterate(const Arguments& a, Block block, int t) {
  const Place place = place_of_thread();
  for (block.parent = 0; block.parent < kParents; block.parent += kLanes) fit<kFirst>(a, block, place, t);
  synchronise();
  activate(a, block, t);
  if (t + 1 == kIterations) return;
  synchronise();  // what was written to global memory, the block may read
  for (block.parent = 0; block.parent < kParents; block.parent += kLanes) bid(a, block, place, t);
}

// --- competition: kBidLanes threads a child, each with kBidWidth neighbouring parents at a time ---

constexpr int kBidWidth = kParents % 4 == 0 ? 4 : 1;
constexpr int kBidLanes = kLanes / kBidWidth, kBidSlots = kThreads / kBidLanes;
constexpr int kRivals = kChildCompetition ? kCoversHigh * kCoversWide : 1;  // windows that compete for a child, at most
constexpr int kBidsEach = (kParents + kLanes - 1) / kLanes;
constexpr bool kFewBids = kRivals * kBidsEach * kBidWidth <= 36;  // they stay in registers
constexpr Real kNothing = Real(-3e38);                           // below every logit

// The children that compete on their own: those of an image, or under window competition those of a window.
constexpr int kContested = kChildCompetition ? kHeight * kWidth * kTypes : kChildren;
constexpr int kContestBlocks = (kContested + kBidSlots - 1) / kBidSlots;

struct Bids {
  Real value[kBidWidth];
};
DEVICE Bids load_bids(const Real* from) {
  Bids bids;
  if constexpr (kBidWidth == 4) {
    const Vec4 four = *reinterpret_cast<const Vec4*>(from);
    UNROLL for (int k = 0; k < kBidWidth; ++k) bids.value[k] = four.v[k];
  } else {
    bids.value[0] = from[0];
  }
  return bids;
}

// Calls body(where, number) for this lane's parents of all windows that compete for a child of a contest: where their bids are.
template <class Body>
DEVICE void for_bids(long long contest, int child, int lane, Body body) {
  auto of_window = [&](long long window, int n, int at) {
    const long long from = (window * kChildren + n) * kParents + lane * kBidWidth;
    UNROLL for (int e = 0; e < kBidsEach; ++e)
      if (kParents % kLanes == 0 || lane * kBidWidth + e * kLanes < kParents) body(from + e * kLanes, at * kBidsEach + e);
  };
  if constexpr (!kChildCompetition) {
    of_window(contest, child, 0);
  } else {
    const Covered at = covered(child);
    UNROLL for (int i = 0; i < kRivals; ++i) {
      const Cover one = cover(at, i / kCoversWide, i % kCoversWide);
      if (one.window >= 0) of_window(contest * (kRows * kColumns) + one.window, one.n, i);
    }
  }
}

// The largest logit of a child over all parents that compete for it, and the inverse of Σ exp(logit - largest).
DEVICE void compete_for(const Arguments& a, int t, long long contest, int child, int lane) {
  const Real* logits = logits_of(a, t);
  const bool is_child = child < kContested;
  Real peak = kNothing, total = Real(0);
  Bids kept[kFewBids ? kRivals * kBidsEach : 1];
  if (is_child)
    for_bids(contest, child, lane, [&](long long at, int i) {
      const Bids bids = load_bids(logits + at);
      UNROLL for (int k = 0; k < kBidWidth; ++k) peak = bids.value[k] > peak ? bids.value[k] : peak;
      if constexpr (kFewBids) kept[i] = bids;
    });
  UNROLL for (int mask = kBidLanes / 2; mask > 0; mask /= 2) {
    const Real other = of_neighbour(peak, mask);
    peak = other > peak ? other : peak;
  }
  peak = peak > kNothing ? peak : Real(0);  // no window covers the child; or NaN, which comes through below
  if (is_child)
    for_bids(contest, child, lane, [&](long long at, int i) {
      const Bids bids = kFewBids ? kept[kFewBids ? i : 0] : load_bids(logits + at);
      UNROLL for (int k = 0; k < kBidWidth; ++k) total += exp(bids.value[k] - peak);
    });
  UNROLL for (int mask = kBidLanes / 2; mask > 0; mask /= 2) total += of_neighbour(total, mask);
  if (is_child && lane == 0) {
    Real* partition = partitions_of(a, t) + 2 * (contest * kContested + child);
    partition[0] = peak;
    partition[1] = Real(1) / (total == Real(0) ? Real(1) : total);
  }
}

// What follows `iterate`, where children compete within a window: the block has all that it takes.
template <class Body>
DEVICE void for_contests_of_block(const Arguments& a, const Block& block, Body body) {
  for (int w = 0; w < kBlockWindows; ++w)
    for (int begin = 0; begin < kChildren; begin += kBidSlots) {
      const int child = begin + threadIdx.x / kBidLanes;
      body(window_at(a, block, w), block.window + w < a.windows ? child : kContested, threadIdx.x % kBidLanes);
    }
}

#if MATCAPS_FORWARD && MATCAPS_CHILD_COMPETITION
KERNEL void __launch_bounds__(kThreads, kResident) iterate_first(Arguments a) {
  iterate<true>(a, {blockIdx.x * (long long)(kBlockWindows), 0}, 0);
}

KERNEL void __launch_bounds__(kThreads, kResident) iterate_later(Arguments a) {
  iterate<false>(a, {blockIdx.x * (long long)(kBlockWindows), 0}, int(a.iteration));
}

KERNEL void __launch_bounds__(kThreads) compete(Arguments a) {
  const unsigned image = blockIdx.x / kContestBlocks, part = blockIdx.x % kContestBlocks;
  compete_for(a, int(a.iteration), image, part * kBidSlots + threadIdx.x / kBidLanes, threadIdx.x % kBidLanes);
}

#elif MATCAPS_FORWARD

// All iterations, where children compete within a window.
KERNEL void __launch_bounds__(kThreads, kResident) route_windows(Arguments a) {
  const Block block{blockIdx.x * (long long)(kBlockWindows), 0};
  iterate<true>(a, block, 0);
  for (int t = 1; t < kIterations; ++t) {
    synchronise();
    for_contests_of_block(a, block, [&](long long window, int n, int lane) { compete_for(a, t - 1, window, n, lane); });
    synchronise();
    iterate<false>(a, block, t);
  }
}
#endif
