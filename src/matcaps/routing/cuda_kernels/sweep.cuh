// The last sweep over the votes: their gradient from all iterations at once, and from it those of poses and matrices.
//
// A vote's gradient is (Σ_t d_t A_t - G_t C_t) D + Σ_t d_t B_t - G_t E_t, with D = vote - last mean and d_t = R_t·a. Here the
// layout is turned: a thread holds the matrices of kSweepEach neighbouring children and one parent, and goes over windows.
#pragma once

#include "backward.cuh"

constexpr int kSlots = kSweepThreads / kLanes;
constexpr int kSweepChildren = kSlots * kSweepEach;  // of a block
constexpr int kLater = kIterations - 1;

struct Window {
  Vec4 factor[kFactors][kLanes];
  Vec4 pose[kSweepChildren][4];
  Vec4 scalar[kIterations][kSweepChildren];  // of the first: uniform, activation; of others: R·a is what times, peak, total
  Vec4 offset[kCoordinates ? kSweepChildren : 1][4];
  Real logit[kLater > 0 ? kLater : 1][kSweepChildren][kLanes];
  Real grad[kLater > 0 ? kLater : 1][kSweepChildren][kLanes];
};

// What a thread brings of a window: where from, of the first window, and where to. Later windows lie a fixed way further, but
// for the children, whose places follow from the window's.
DEVICE constexpr int sweep_copies(int units) { return (units + kSweepThreads - 1) / kSweepThreads; }
constexpr int kFactorUnits = kFactors * kBlockParents, kSweepPoseUnits = kSweepChildren * 4;
constexpr int kSweepLogitUnits = kLater * kSweepChildren * kRowUnits, kSweepScalarUnits = kIterations * kSweepChildren;

struct SweepCarrier {
  const Arguments& a;
  const int first, parent;
  Vec4 scalar[sweep_copies(kSweepScalarUnits)];

  DEVICE void start(Window& stage, long long window) {
    const Real* factors = a.factors + (window * kFactors * kParents + parent) * 4;
    UNROLL for (int e = 0; e < sweep_copies(kFactorUnits); ++e) {
      const int u = threadIdx.x + e * kSweepThreads, which = u / kBlockParents, j = u % kBlockParents;
      if ((kFactorUnits % kSweepThreads == 0 || u < kFactorUnits) && (kParents % kBlockParents == 0 || parent + j < kParents))
        start_vec4(stage.factor[which][j], factors + (which * kParents + j) * 4);
    }
    const long long origin = first_child(window);
    const Real* poses = a.poses + origin * 16;
    UNROLL for (int e = 0; e < sweep_copies(kSweepPoseUnits); ++e) {
      const int u = threadIdx.x + e * kSweepThreads, n = least(first + u / 4, kChildren - 1);
      if (kSweepPoseUnits % kSweepThreads != 0 && u >= kSweepPoseUnits) break;
      start_vec4(stage.pose[u / 4][u % 4], poses + child_offset(n) * 16 + u % 4 * 4);
      if constexpr (kCoordinates) start_vec4(stage.offset[u / 4][u % 4], a.coordinates + n / kPeriod * 16 + u % 4 * 4);
    }
    const long long size = a.windows * (long long)(kChildren) * kParents, own = window * kChildren * kParents + parent;
    UNROLL for (int e = 0; e < sweep_copies(kSweepLogitUnits); ++e) {
      const int u = threadIdx.x + e * kSweepThreads;
      const int t = u / (kSweepChildren * kRowUnits), i = u / kRowUnits % kSweepChildren, unit = u % kRowUnits;
      if ((kSweepLogitUnits % kSweepThreads == 0 || u < kSweepLogitUnits) &&
          (kParents % kLanes == 0 || parent + unit * kRowWidth < kParents)) {
        const long long at = t * size + own + least(first + i, kChildren - 1) * kParents;
        start_row<kAlignedRows>(stage.logit[t][i], a.logits + at, unit);
        start_row<kAlignedRows>(stage.grad[t][i], a.grad_data + at, unit);
      }
    }
    UNROLL for (int e = 0; e < sweep_copies(kSweepScalarUnits); ++e) {
      const int u = threadIdx.x + e * kSweepThreads, t = u / kSweepChildren, n = first + u % kSweepChildren;
      Vec4 to{};
      if (t < kIterations && n < kChildren) {  // beyond the last child: no data
        const long long child = origin + child_offset(n);
        to.v[1] = a.activations[child];
        if (t == 0) {
          to.v[0] = first_assignment(window, n);
        } else {
          const long long rival = kChildCompetition ? child : window * kChildren + n;
          const Real* partition = partitions_of(a, t - 1) + 2 * rival;
          to.v[3] = partition[1];
          to.v[0] = partition[0];
          to.v[2] = a.totals[(t - 1) * competitors_of(a) + rival];
        }
      }
      scalar[e] = to;
    }
  }

  DEVICE void finish(Window& stage) {
    UNROLL for (int e = 0; e < sweep_copies(kSweepScalarUnits); ++e) {
      const int u = threadIdx.x + e * kSweepThreads, t = u / kSweepChildren;
      Vec4 to = scalar[e];
      if (t > 0) {
        to.v[3] *= to.v[1];
        to.v[1] = to.v[0];
        to.v[0] = to.v[3];
      }
      if (kSweepScalarUnits % kSweepThreads == 0 || u < kSweepScalarUnits) stage.scalar[t][u % kSweepChildren] = to;
    }
  }
};

// Adds up over the lanes what each has of kCount values, a power of two; value number i of them goes to the lane i · kLanes /
// kCount if there are fewer than lanes, or else each lane gets kCount / kLanes, in order.
template <int kCount, int kMask>
DEVICE void sum_over_lanes(Real* values, int lane) {
  if constexpr (kMask > 0) {
    if constexpr (kCount > 1) {
      const bool is_upper = lane & kMask;
      UNROLL for (int i = 0; i < kCount / 2; ++i) {
        const Real kept = is_upper ? values[kCount / 2 + i] : values[i];
        const Real sent = is_upper ? values[i] : values[kCount / 2 + i];
        values[i] = kept + of_neighbour(sent, kMask);
      }
      sum_over_lanes<kCount / 2, kMask / 2>(values, lane);
    } else {
      values[0] += of_neighbour(values[0], kMask);
      sum_over_lanes<1, kMask / 2>(values, lane);
    }
  }
}

#if MATCAPS_BACKWARD
KERNEL void __launch_bounds__(kSweepThreads, kSweepResident) sweep(Arguments a) {
  static_assert(2 * sizeof(Window) <= kSweepBytes, "the plan has too little shared memory");
  Window* stages = reinterpret_cast<Window*>(shared_memory());
  const int lane = threadIdx.x % kLanes, slot = threadIdx.x / kLanes;
  const int first = blockIdx.x * kSweepChildren, parent = blockIdx.y * kLanes;
  const int parent_at = least(lane, kParents - parent - 1);
  const bool is_parent = kParents % kLanes == 0 || lane == parent_at;
  const long long first_window = blockIdx.z * a.part_windows;
  const long long end = first_window + a.part_windows < a.windows ? first_window + a.part_windows : a.windows;
  Matrix matrix[kSweepEach], matrix_sum[kSweepEach];
  Vec4 vote_sum[kCoordinates ? kSweepEach : 1][4];
  UNROLL for (int i = 0; i < kSweepEach; ++i) {
    const int n = least(first + slot * kSweepEach + i, kChildren - 1) % kPeriod;
    UNROLL for (int k = 0; k < 4; ++k) {
      matrix[i].row[k] = *reinterpret_cast<const Vec4*>(a.weight + ((long long)(n) * kParents + parent + parent_at) * 16 + 4 * k);
      matrix_sum[i].row[k] = Vec4{};
      if constexpr (kCoordinates) vote_sum[i][k] = Vec4{};
    }
  }
  SweepCarrier carrier{a, first, parent};
  if (first_window < end) {
    carrier.start(stages[0], first_window);
    carrier.finish(stages[0]);
  }
  int at = 0;
  for (long long window = first_window; window < end; ++window, at ^= 1) {
    const Window& stage = stages[at];
    wait_for_copies();
    synchronise();  // this window is there, and nobody reads the one before any more
    if (window + 1 < end) carrier.start(stages[at ^ 1], window + 1);
    Real data[kSweepEach][kIterations], grads[kSweepEach][kLater > 0 ? kLater : 1], grad_first[kSweepEach];
    UNROLL for (int i = 0; i < kSweepEach; ++i) {
      const int n = slot * kSweepEach + i;
      const Vec4 scalar = stage.scalar[0][n];
      data[i][0] = is_parent ? scalar.v[0] * scalar.v[1] : Real(0);
      grad_first[i] = stage.factor[kFactors - 1][parent_at].v[0];
      UNROLL for (int t = 0; t < kLater; ++t) {
        const Vec4 later = stage.scalar[t + 1][n];
        data[i][t + 1] = is_parent ? exp(stage.logit[t][n][parent_at] - later.v[1]) * later.v[0] : Real(0);
        grads[i][t] = data[i][t + 1] * (stage.grad[t][n][parent_at] - later.v[2]);
      }
    }
    const long long copy = (blockIdx.y * a.windows + window) * kChildren + first + slot * kSweepEach;
    UNROLL for (int row = 0; row < 4; ++row) {
      Vec4 slope[kSweepEach], rest[kSweepEach], deviation[kSweepEach], pose[kSweepEach];
      const Vec4 mean = stage.factor[16 * kLater + 8 + row][parent_at];
      UNROLL for (int i = 0; i < kSweepEach; ++i) {
        pose[i] = stage.pose[slot * kSweepEach + i][row];
        UNROLL for (int c = 0; c < 4; ++c) {
          Real sum = -mean.v[c];
          if constexpr (kCoordinates) sum += stage.offset[slot * kSweepEach + i][row].v[c];
          UNROLL for (int k = 0; k < 4; ++k) sum += pose[i].v[k] * matrix[i].row[k].v[c];
          deviation[i].v[c] = sum;
        }
      }
      UNROLL for (int t = 0; t < kIterations; ++t) {
        const Vec4 twice = stage.factor[16 * t + row][parent_at], offset = stage.factor[16 * t + 4 + row][parent_at];
        Vec4 once;
        if (t == 0) UNROLL for (int c = 0; c < 4; ++c) once.v[c] = Real(0.5) * twice.v[c];
        UNROLL for (int i = 0; i < kSweepEach; ++i)
          UNROLL for (int c = 0; c < 4; ++c) {
            if (t == 0) {
              grad_first[i] += deviation[i].v[c] * (offset.v[c] + once.v[c] * deviation[i].v[c]);
              slope[i].v[c] = data[i][0] * twice.v[c];
              rest[i].v[c] = data[i][0] * offset.v[c];
            } else {
              slope[i].v[c] += data[i][t] * twice.v[c];
              rest[i].v[c] += data[i][t] * offset.v[c];
            }
          }
        if (t == kLater) break;
        const Vec4 third = stage.factor[16 * t + 8 + row][parent_at], fourth = stage.factor[16 * t + 12 + row][parent_at];
        UNROLL for (int i = 0; i < kSweepEach; ++i)
          UNROLL for (int c = 0; c < 4; ++c) {
            slope[i].v[c] -= grads[i][t] * third.v[c];
            rest[i].v[c] -= grads[i][t] * fourth.v[c];
          }
      }
      Real grad_pose[kSweepEach * 4];
      UNROLL for (int i = 0; i < kSweepEach; ++i) {
        Vec4 grad;
        UNROLL for (int c = 0; c < 4; ++c) grad.v[c] = slope[i].v[c] * deviation[i].v[c] + rest[i].v[c];
        UNROLL for (int k = 0; k < 4; ++k) {
          Real sum = grad.v[0] * matrix[i].row[k].v[0];
          UNROLL for (int c = 1; c < 4; ++c) sum += grad.v[c] * matrix[i].row[k].v[c];
          grad_pose[4 * i + k] = sum;
          UNROLL for (int c = 0; c < 4; ++c) matrix_sum[i].row[k].v[c] += pose[i].v[k] * grad.v[c];
        }
        if constexpr (kCoordinates) UNROLL for (int c = 0; c < 4; ++c) vote_sum[i][row].v[c] += grad.v[c];
      }
      // lanes that are no parent have no data, so no gradient
      constexpr int count = 4 * kSweepEach;
      sum_over_lanes<count, kLanes / 2>(grad_pose, lane);
      if constexpr (count >= kLanes) {
        UNROLL for (int i = 0; i < count / kLanes; ++i) {
          const int value = lane * (count / kLanes) + i;
          if (first + slot * kSweepEach + value / 4 < kChildren)
            a.pose_copies[(copy + value / 4) * 16 + 4 * row + value % 4] = grad_pose[i];
        }
      } else {
        const int value = lane / (kLanes / count);
        if (lane % (kLanes / count) == 0 && first + slot * kSweepEach + value / 4 < kChildren)
          a.pose_copies[(copy + value / 4) * 16 + 4 * row + value % 4] = grad_pose[0];
      }
    }
    // the first assignment is constant: the gradient of its R·a goes to the activation alone
    UNROLL for (int i = 0; i < kSweepEach; ++i) {
      Real sum = is_parent ? grad_first[i] : Real(0);
      UNROLL for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += of_neighbour(sum, mask);
      if (lane == 0 && first + slot * kSweepEach + i < kChildren)
        a.active_copies[copy + i] = sum * stage.scalar[0][slot * kSweepEach + i].v[0];
    }
    if (window + 1 < end) carrier.finish(stages[at ^ 1]);
  }
  UNROLL for (int i = 0; i < kSweepEach; ++i) {
    const int n = first + slot * kSweepEach + i;
    if (n >= kChildren || !is_parent) continue;
    const long long out = ((blockIdx.z * (long long)(kChildren) + n) * kParents + parent + lane) * 16;
    UNROLL for (int k = 0; k < 4; ++k) {
      *reinterpret_cast<Vec4*>(a.weight_parts + out + 4 * k) = matrix_sum[i].row[k];
      if constexpr (kCoordinates) *reinterpret_cast<Vec4*>(a.vote_parts + out + 4 * k) = vote_sum[i][k];
    }
  }
}

// Every child's sum over the windows that cover it, and over later iterations: four threads a child.
constexpr int kMap = kHeight * kWidth * kTypes, kGatherBlocks = (4 * kMap + kThreads - 1) / kThreads;

KERNEL void __launch_bounds__(kThreads) gather(Arguments a) {
  const unsigned image = blockIdx.x / kGatherBlocks, at = blockIdx.x % kGatherBlocks * kThreads + threadIdx.x;
  const int child = at / 4, row = at % 4;
  if (child >= kMap) return;
  Vec4 pose{};
  Real active = Real(0);
  if (kChildCompetition && row == 0)
    for (int t = 0; t < kLater; ++t) active += a.totals[t * competitors_of(a) + image * (long long)(kMap) + child];
  const Covered place = covered(child);
  UNROLL for (int i = 0; i < kCoversHigh * kCoversWide; ++i) {
    const Cover one = cover(place, i / kCoversWide, i % kCoversWide);
    if (one.window < 0) continue;
    const long long own = (image * (long long)(kRows * kColumns) + one.window) * kChildren + one.n;
    if (!kChildCompetition && row == 0)
      for (int t = 0; t < kLater; ++t) active += a.totals[t * competitors_of(a) + own];
    UNROLL for (int block = 0; block < kBlocks; ++block) {
      const long long copy = block * a.windows * kChildren + own;
      const Vec4 part = *reinterpret_cast<const Vec4*>(a.pose_copies + copy * 16 + 4 * row);
      UNROLL for (int c = 0; c < 4; ++c) pose.v[c] += part.v[c];
      if (row == 0) active += a.active_copies[copy];
    }
  }
  const long long to = image * (long long)(kMap) + child;
  *reinterpret_cast<Vec4*>(a.grad_poses + to * 16 + 4 * row) = pose;
  if (row == 0) a.grad_activations[to] = active;
}
#endif
