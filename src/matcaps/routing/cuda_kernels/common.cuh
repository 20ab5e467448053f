// What all kernels share: the arguments, where children are, their votes, and visits of all children of some windows.
//
// A window and a parent are a pair. In the kernels of forward.cuh and backward.cuh a thread holds kTogether pairs, of
// neighbouring windows and one parent, and goes through the children; kSplits threads share the children of a pair.
// Sizes are constants of the routing at hand, put in front of this source when it is compiled (cuda_program.py).
#pragma once

#include "platform.cuh"

struct alignas(4 * sizeof(Real) > 16 ? 16 : 4 * sizeof(Real)) Vec4 {
  Real v[4];
};

constexpr Real kEmptyMass = Real(1e-20);       // a parent whose mass does not exceed this has no data
constexpr Real kDeviationOffset = Real(1e-9);  // of the standardised rule; both as in the reference

// Planes [windows, J] of one iteration's record; as in record.py.
enum : int { kMean = 0, kSpread = 16, kMass = 32, kDescription = 33, kEvidence = 34, kLogActivation = 35, kRecord = 36 };

// The gradients of such a record: planes, too.
enum : int { kGradMean = 0, kGradVariance = 16, kGradRecord = 32 };

// Groups of four factors of the last sweep, for a pair: of iteration t those from 16 t on, A and B (four each, a row of the
// pose in each), C and E; the last iteration has its mean in place of C, and one more group that starts with the constant.
enum : int { kFactors = 16 * kIterations - 4 + 1 };

struct Arguments {
  const Real* poses;                // [B, H, W, I, 16]
  const Real* activations;          // [B, H, W, I]
  const Real* weight;               // [children of a period, J, 16]
  const Real* beta_use;             // [J]
  const Real* beta_activation;      // [J]
  const Real* inverse_temperature;  // [T]
  const Real* coordinates;          // [H, W, 16] or null
  Real* out_poses;                  // [windows, J, 16]
  Real* out_activations;            // [windows, J]
  Real* records;                    // [T, kRecord, windows, J]
  Real* logits;                     // [kept, windows, children, J]
  Real* partitions;                 // [kept, competitors, 2]: the largest logit, 1 / Σ exp(logit - largest)
  const Real* grad_out_poses;       // as out_poses
  const Real* grad_out_activations;
  Real* grad_record;                // [kGradRecord, windows, J], of the iteration at hand
  Real* grad_data;                  // [T - 1, windows, children, J]
  Real* totals;                     // [T - 1, competitors]: Σ R g(d)
  Real* factors;                    // [windows, kFactors, J, 4]
  Real* sums;                       // [T, 3, windows, J]: the gradients of λ, β_a and β_u
  Real* pose_copies;                // [blocks of parents, windows, children, 16]
  Real* active_copies;              // [blocks of parents, windows, children]
  Real* weight_parts;               // [parts, children, J, 16]
  Real* vote_parts;                 // the same: sums of the votes' gradients; null: not wanted
  Real* grad_poses;                 // as poses
  Real* grad_activations;
  long long windows, images, kept;  // kept: iterations whose logits and partitions there is room for
  long long part_windows;           // windows over which a block of the last sweep adds up
  double variance_floor, annealing;
  long long iteration;
};

DEVICE long long pairs_of(const Arguments& a) { return a.windows * kParents; }
DEVICE Real* record_of(const Arguments& a, int t) { return a.records + t * (kRecord * pairs_of(a)); }
DEVICE Real* logits_of(const Arguments& a, int t) {
  return a.logits + t % a.kept * (a.windows * (long long)(kChildren) * kParents);
}
DEVICE long long competitors_of(const Arguments& a) {
  return kChildCompetition ? a.images * (long long)(kHeight * kWidth * kTypes) : a.windows * kChildren;
}
DEVICE Real* partitions_of(const Arguments& a, int t) { return a.partitions + t % a.kept * (2 * competitors_of(a)); }

DEVICE constexpr int least(int a, int b) { return a < b ? a : b; }

// The index in the batch of a window's upper left child of type 0.
DEVICE long long first_child(long long window) {
  const long long image = window / (kRows * kColumns);
  const int place = int(window % (kRows * kColumns));
  const int row = place / kColumns * kStride, column = place % kColumns * kStride;
  return ((image * kHeight + row) * kWidth + column) * (long long)(kTypes);
}

// How far a window's child n lies from its first one.
DEVICE int child_offset(int n) {
  constexpr int width = kKernelWidth * kTypes;
  return n / width * (kWidth * kTypes) + n % width;
}

// How many windows cover this row (or column).
DEVICE int covers(int at, int kernel, int windows) {
  const int last = at / kStride < windows - 1 ? at / kStride : windows - 1;
  const int first = at < kernel ? 0 : (at - kernel) / kStride + 1;
  return last - first + 1;
}

// 1 / (parents that compete for child n of the window).
DEVICE Real first_assignment(long long window, int n) {
  if constexpr (kChildCompetition) {
    const int place = int(window % (kRows * kColumns));
    const int row = place / kColumns * kStride + n / (kKernelWidth * kTypes);
    const int column = place % kColumns * kStride + n / kTypes % kKernelWidth;
    const int rivals = covers(row, kKernelHeight, kRows) * covers(column, kKernelWidth, kColumns) * kParents;
    return Real(1) / Real(rivals);
  } else {
    return Real(1) / Real(kParents);
  }
}

// Where a child of a map stands, and the windows that may cover it: those that begin at (top - down, left - across).
struct Covered {
  int row, column, type, top, left;
};
DEVICE Covered covered(int child) {
  const int type = child % kTypes, column = child / kTypes % kWidth, row = child / (kTypes * kWidth);
  return {row, column, type, least(row / kStride, kRows - 1), least(column / kStride, kColumns - 1)};
}

// One of these windows, by its number in the image, and which of its children the child is; or -1, if it does not cover it.
struct Cover {
  int window, n;
};
DEVICE Cover cover(const Covered& at, int down, int across) {
  const int y = at.top - down, x = at.left - across, k = at.row - y * kStride, l = at.column - x * kStride;
  const bool is_one = y >= 0 && x >= 0 && k < kKernelHeight && l < kKernelWidth;
  return {is_one ? y * kColumns + x : -1, (k * kKernelWidth + l) * kTypes + at.type};
}
constexpr int kCoversHigh = least(kRows, (kKernelHeight + kStride - 1) / kStride);
constexpr int kCoversWide = least(kColumns, (kKernelWidth + kStride - 1) / kStride);

// ln(1 / (1 + exp(-z))), and 1 / (1 + exp(-z))
DEVICE void log_sigmoid(Real z, Real& log_value, Real& value) {
  const Real small = exp(z > Real(0) ? -z : z);
  log_value = (z > Real(0) ? Real(0) : z) - log1p(small);
  value = (z > Real(0) ? Real(1) : small) / (Real(1) + small);
  if (z != z) log_value = value = z;
}

// --- how a block is cut: see plan in cuda_launch.py ---

constexpr int kGroups = kThreads / (kLanes * kSplits);   // of windows, side by side
constexpr int kBlockWindows = kGroups * kTogether;
constexpr int kBlocks = (kParents + kLanes - 1) / kLanes;  // of parents, one after the other
constexpr int kPad = 2;                                    // keeps the four rows of a matrix in different banks
static_assert(kThreads % (kLanes * kSplits) == 0 && kTile % kSplits == 0, "a block is cut into whole threads");

struct Place {
  int lane, group, split;
};
DEVICE Place place_of_thread() {
  const int i = threadIdx.x;
  return {i % kLanes, i / kLanes % kGroups, i / (kLanes * kGroups)};
}

// What a visit of children needs of kTile of them, in shared memory.
template <bool kLogits, bool kGrads>
struct Stage {
  Vec4 weight[kTile][4][kLanes + kPad];     // [child][row of the matrix][parent]
  Vec4 pose[kBlockWindows][kTile][4];
  Vec4 scalar[kBlockWindows][kTile];        // see Carrier
  Vec4 offset[kCoordinates ? kTile : 1][4];
  Real logit[kLogits ? kBlockWindows : 1][kLogits ? kTile : 1][kLanes];
  Real grad[kGrads ? kBlockWindows : 1][kGrads ? kTile : 1][kLanes];
};

// Copies `count` reals, which lie side by side in both places; 16 bytes at a time where `aligned` says that this may be.
template <bool kAligned>
DEVICE void start_row(Real* to, const Real* from, int at) {
  if constexpr (kAligned)
    start_copy<16>(to + at * (16 / int(sizeof(Real))), from + at * (16 / int(sizeof(Real))));
  else
    start_copy<sizeof(Real)>(to + at, from + at);
}
constexpr bool kAlignedRows = kParents % (16 / int(sizeof(Real))) == 0 && kLanes % (16 / int(sizeof(Real))) == 0;
constexpr int kRowUnits = kAlignedRows ? kLanes / (16 / int(sizeof(Real))) : kLanes;
constexpr int kRowWidth = kLanes / kRowUnits;

DEVICE void start_vec4(Vec4& to, const Real* from) {
  UNROLL for (int part = 0; part < int(sizeof(Vec4)) / 16; ++part)
    start_copy<16>(reinterpret_cast<char*>(&to) + part * 16, reinterpret_cast<const char*>(from) + part * 16);
}

// The windows and parents that a block has at hand.
struct Block {
  long long window;  // the first; what lies beyond the last window takes the last one's place, and is not stored
  int parent;        // the first
};
DEVICE long long window_at(const Arguments& a, const Block& block, int i) {
  return block.window + i < a.windows ? block.window + i : a.windows - 1;
}

// What a thread brings of a tile: where from, for the first tile, and where to. Later tiles lie a fixed way further.
constexpr int kBlockParents = kBlocks == 1 ? kParents : kLanes;  // of a block, at most
DEVICE constexpr int copies(int units) { return (units + kThreads - 1) / kThreads; }
constexpr int kWeightUnits = kTile * kBlockParents * 4, kPoseUnits = kBlockWindows * kTile * 4;
constexpr int kLogitUnits = kBlockWindows * kTile * kRowUnits, kScalarUnits = kBlockWindows * kTile;

template <bool kFirst, bool kLogits, bool kGrads, int kStep>
struct Carrier {
  typedef Stage<kLogits, kGrads> S;
  static constexpr bool kScalars = kFirst || kLogits;
  const Arguments& a;
  const Block block;
  const Real *logits, *partitions, *grads, *totals;
  long long pose[copies(kPoseUnits)], logit[kLogits ? copies(kLogitUnits) : 1], window[kScalars ? copies(kScalarUnits) : 1];
  Vec4 scalar[kScalars ? copies(kScalarUnits) : 1];

  DEVICE Carrier(const Arguments& arguments, const Block& at, const Real* of_logits, const Real* of_partitions,
                 const Real* of_grads, const Real* of_totals)
      : a(arguments), block(at), logits(of_logits), partitions(of_partitions), grads(of_grads), totals(of_totals) {
    UNROLL for (int e = 0; e < copies(kPoseUnits); ++e) {
      const int u = threadIdx.x + e * kThreads;
      pose[e] = first_child(window_at(a, block, u / (kTile * 4) % kBlockWindows)) * 16 + u % 4 * 4;
    }
    if constexpr (kLogits) UNROLL for (int e = 0; e < copies(kLogitUnits); ++e) {
      const int u = threadIdx.x + e * kThreads, w = u / (kTile * kRowUnits) % kBlockWindows;
      logit[e] = (window_at(a, block, w) * kChildren + u / kRowUnits % kTile) * kParents + block.parent;
    }
    if constexpr (kScalars) UNROLL for (int e = 0; e < copies(kScalarUnits); ++e)
      window[e] = window_at(a, block, (threadIdx.x + e * kThreads) / kTile % kBlockWindows);
  }

  // Of the children from number begin on; what lies beyond the last child stays as it is.
  DEVICE void start(S& stage, int begin) {
    UNROLL for (int e = 0; e < copies(kWeightUnits); ++e) {
      const int u = threadIdx.x + e * kThreads, i = u / (kBlockParents * 4), rest = u % (kBlockParents * 4);
      const int n = (begin + i) * kStep;
      if ((kWeightUnits % kThreads == 0 || u < kWeightUnits) && n < kChildren &&
          (kParents % kBlockParents == 0 || block.parent + rest / 4 < kParents))
        start_vec4(stage.weight[i][rest % 4][rest / 4], a.weight + (n % kPeriod * kParents + block.parent) * 16 + rest * 4);
    }
    UNROLL for (int e = 0; e < copies(kPoseUnits); ++e) {
      const int u = threadIdx.x + e * kThreads, i = u / 4 % kTile, n = (begin + i) * kStep;
      if ((kPoseUnits % kThreads == 0 || u < kPoseUnits) && n < kChildren)
        start_vec4(stage.pose[u / (kTile * 4)][i][u % 4], a.poses + pose[e] + child_offset(n) * 16);
    }
    if constexpr (kCoordinates)
      for (int u = threadIdx.x; u < kTile * 4; u += kThreads)
        if ((begin + u / 4) * kStep < kChildren)
          start_vec4(stage.offset[u / 4][u % 4], a.coordinates + (begin + u / 4) * kStep / kPeriod * 16 + u % 4 * 4);
    if constexpr (kLogits) UNROLL for (int e = 0; e < copies(kLogitUnits); ++e) {
      const int u = threadIdx.x + e * kThreads, w = u / (kTile * kRowUnits), i = u / kRowUnits % kTile, unit = u % kRowUnits;
      if ((kLogitUnits % kThreads == 0 || u < kLogitUnits) && begin + i < kChildren &&
          (kParents % kLanes == 0 || block.parent + unit * kRowWidth < kParents)) {
        start_row<kAlignedRows>(stage.logit[w][i], logits + logit[e] + begin * kParents, unit);
        if constexpr (kGrads) start_row<kAlignedRows>(stage.grad[w][i], grads + logit[e] + begin * kParents, unit);
      }
    }
    // of a window's child: what its data is a multiple of, the largest logit, and Σ R g(d)
    if constexpr (kScalars) UNROLL for (int e = 0; e < copies(kScalarUnits); ++e) {
      const int n = (begin + int(threadIdx.x + e * kThreads) % kTile) * kStep;
      Vec4 to{};
      if (n < kChildren && (kScalarUnits % kThreads == 0 || threadIdx.x + e * kThreads < kScalarUnits)) {
        const long long child = first_child(window[e]) + child_offset(n);
        to.v[0] = a.activations[child];
        if constexpr (kFirst) {
          to.v[1] = first_assignment(window[e], n);
        } else {
          const long long rival = kChildCompetition ? child : window[e] * kChildren + n;
          to.v[1] = partitions[2 * rival];
          to.v[3] = partitions[2 * rival + 1];
          if constexpr (kGrads) to.v[2] = totals[rival];
        }
      }
      scalar[e] = to;
    }
  }

  DEVICE void finish(S& stage) {
    if constexpr (kScalars) UNROLL for (int e = 0; e < copies(kScalarUnits); ++e) {
      const int u = threadIdx.x + e * kThreads;
      Vec4 to = scalar[e];
      to.v[0] *= kFirst ? to.v[1] : to.v[3];
      if (kScalarUnits % kThreads == 0 || u < kScalarUnits) stage.scalar[u / kTile][u % kTile] = to;
    }
  }
};

// Calls body(stage, i, n) for this thread's share of every kStep-th child n of the block's windows, whose things are at place i
// of the stage, while those of the next kTile children are on their way.
template <bool kFirst, bool kLogits, bool kGrads, int kStep, class Body>
DEVICE void for_children(const Arguments& a, const Block& block, const Place& place, const Real* logits,
                         const Real* partitions, const Real* grads, const Real* totals, Body body) {
  typedef Stage<kLogits, kGrads> S;
  static_assert(2 * sizeof(S) <= kStageBytes, "the plan has too little shared memory");
  static_assert(!kLogits || kStep == 1, "a sample has no logits");
  S* stages = reinterpret_cast<S*>(shared_memory());
  constexpr int count = (kChildren + kStep - 1) / kStep;
  Carrier<kFirst, kLogits, kGrads, kStep> carrier(a, block, logits, partitions, grads, totals);
  carrier.start(stages[0], 0);
  carrier.finish(stages[0]);
  for (int begin = 0, at = 0; begin < count; begin += kTile, at ^= 1) {
    wait_for_copies();
    synchronise();  // this tile is there, and nobody reads the one before any more
    const bool is_last = begin + kTile >= count;
    if (!is_last) carrier.start(stages[at ^ 1], begin + kTile);
    UNROLL_CHILDREN for (int i = place.split; i < kTile; i += kSplits) {
      const int n = (begin + i) * kStep;
      if (kChildren % (kTile * kStep) == 0 || n < kChildren) body(stages[at], i, n);
    }
    if (!is_last) carrier.finish(stages[at ^ 1]);
  }
  synchronise();
}

struct Matrix {
  Vec4 row[4];
};
template <class S>
DEVICE Matrix matrix_of(const S& stage, int i, int parent_at) {
  Matrix matrix;
  UNROLL for (int k = 0; k < 4; ++k) matrix.row[k] = stage.weight[i][k][parent_at];
  return matrix;
}

// How far a row of a vote lies from a centre: a row of the pose times the matrix, and what the child's position adds, less
// that. The centre comes first: the multiply-adds take it away at no cost.
template <class S>
DEVICE Vec4 deviation_row(const S& stage, const Vec4& pose, const Matrix& matrix, const Real* centre, int i, int row) {
  Vec4 deviation;
  Vec4 offset{};
  if constexpr (kCoordinates) offset = stage.offset[i][row];
  UNROLL for (int c = 0; c < 4; ++c) {
    Real sum = kCoordinates ? offset.v[c] - centre[4 * row + c] : -centre[4 * row + c];
    UNROLL for (int k = 0; k < 4; ++k) sum += pose.v[k] * matrix.row[k].v[c];
    deviation.v[c] = sum;
  }
  return deviation;
}

struct Moments {
  Real mass, first[16], second[16];
};

// Sums over every kStep-th child of x, x D and x D², with D = vote - centre, for each of the thread's pairs.
//
// x is the data R·a of the children, uniform if kFirst; or, if kGrads, the gradient of their logits, and `t` the iteration of
// those logits.
template <bool kFirst, bool kGrads, int kStep = 1>
DEVICE void moments(const Arguments& a, const Block& block, const Place& place, int t, const Real (*centre)[16],
                    Moments* sums) {
  const int parent_at = least(place.lane, kParents - block.parent - 1);
  UNROLL for (int w = 0; w < kTogether; ++w) sums[w] = Moments{};
  const Real* grads = nullptr;
  const Real* totals = nullptr;
  if constexpr (kGrads) {
    grads = a.grad_data + t * (a.windows * (long long)(kChildren) * kParents);
    totals = a.totals + t * competitors_of(a);
  }
  const Real* logits = kFirst ? nullptr : logits_of(a, t);
  const Real* partitions = kFirst ? nullptr : partitions_of(a, t);
  for_children<kFirst, !kFirst, kGrads, kStep>(
      a, block, place, logits, partitions, grads, totals, [&](const Stage<!kFirst, kGrads>& stage, int i, int n) {
        const Matrix matrix = matrix_of(stage, i, parent_at);
        UNROLL for (int w = 0; w < kTogether; ++w) {
          const int at = place.group * kTogether + w;
          const Vec4 scalar = stage.scalar[at][i];
          Real x = scalar.v[0];
          // not exp(L - log-sum-exp), whose rounding, of the size of L, all assignments of a child would share
          if constexpr (!kFirst) x *= exp(stage.logit[at][i][parent_at] - scalar.v[1]);
          if constexpr (kGrads) x *= stage.grad[at][i][parent_at] - scalar.v[2];
          sums[w].mass += x;
          // NaN data make the mass NaN, and the pair counts as one without data; NaN votes are another matter
          if constexpr (!kGrads) x = x == x ? x : Real(0);
          UNROLL for (int row = 0; row < 4; ++row) {
            const Vec4 deviation = deviation_row(stage, stage.pose[at][i][row], matrix, centre[w], i, row);
            UNROLL for (int c = 0; c < 4; ++c) {
              const Real weighted = x * deviation.v[c];
              sums[w].first[4 * row + c] += weighted;
              sums[w].second[4 * row + c] += weighted * deviation.v[c];
            }
          }
        }
      });
  if constexpr (kSplits > 1) {
    static_assert(kSplits == 1 || 33 * kThreads * sizeof(Real) <= kStageBytes, "the plan has too little shared memory");
    // [split][component][group and lane]: the splits share the components out, and add each up in order
    Real* memory = reinterpret_cast<Real*>(shared_memory());
    constexpr int side = kGroups * kLanes;
    const int at = place.group * kLanes + place.lane;
    UNROLL for (int w = 0; w < kTogether; ++w) {
      Real* own = memory + place.split * (33 * side) + at;
      UNROLL for (int h = 0; h < 16; ++h) {
        own[h * side] = sums[w].first[h];
        own[(16 + h) * side] = sums[w].second[h];
      }
      own[32 * side] = sums[w].mass;
      synchronise();
      for (int c = place.split; c < 33; c += kSplits) {
        Real sum = memory[c * side + at];
        for (int s = 1; s < kSplits; ++s) sum += memory[(s * 33 + c) * side + at];
        memory[c * side + at] = sum;
      }
      synchronise();
      UNROLL for (int h = 0; h < 16; ++h) {
        sums[w].first[h] = memory[h * side + at];
        sums[w].second[h] = memory[(16 + h) * side + at];
      }
      sums[w].mass = memory[32 * side + at];
      synchronise();
    }
  }
}

// What the parents of a window tell one another: [window of the block][parent], behind the stages.
DEVICE Real* pair_memory(int which) {
  return reinterpret_cast<Real*>(shared_memory() + kStageBytes) + which * (kBlockWindows * kParents);
}

// One of a block's windows, and one of its parents, for each thread until all pairs are done.
template <class Body>
DEVICE void for_pairs(const Arguments& a, long long first_window, Body body) {
  for (int i = threadIdx.x; i < kBlockWindows * kParents; i += kThreads)
    if (first_window + i / kParents < a.windows) body(i / kParents, i % kParents);
}
