#include "driver.h"

#include <vector>

#include "plan.h"
#include "threads.h"

namespace matcaps {
namespace {

// State is laid out for a target's lanes but sized for any target's, so that its shape is a property of the problem.
constexpr int64_t kLanesOfState = 16;

// Images go to threads whole. Where that would leave threads idle, all images' windows are shared out instead, step by
// step, with every thread waiting for the others between steps.
template <class Real>
bool share_windows(const Job<Real>& job, int threads) {
  if (threads <= 1 || job.windows == 1) return false;
  return job.batch < threads || (job.batch % threads != 0 && job.batch < 4 * threads);
}

struct Range {
  int64_t begin, end;
};

// A piece of work is done by one thread, whichever is free: where one of them is held up, the others do more. What a piece
// adds up is the piece's, and pieces depend on the number of threads alone; so do the bits of every sum.
constexpr int64_t kPiecesPerThread = 4;

int64_t pieces_of(int64_t size, int threads) {
  return threads <= 1 ? 1 : std::min<int64_t>(size, kPiecesPerThread * threads);
}

Range part_of(int64_t size, int64_t part, int64_t parts) { return {part * size / parts, (part + 1) * size / parts}; }

template <class Real>
class Forward {
 public:
  Forward(const matcaps_problem& problem) : problem_(problem), plan_(problem), job_(plan_.job()) {}

  void run() {
    const bool windows = share_windows(job_, problem_.threads);
    const int64_t workers = windows ? problem_.threads : std::min<int64_t>(problem_.threads, job_.batch);
    const int64_t slots = windows ? job_.batch : workers;
    for (int64_t i = 0; i < workers; ++i) workspaces_.emplace_back(plan_, false);
    if (!problem_.state) {
      one_assignment_ = job_.iterations > 1 ? plan_.assignment_size() : 0;
      slot_size_ = one_assignment_ + plan_.record_size();
      memory_ = Buffer<Real>(slots * slot_size_);
    } else {
      prefer_large_pages(problem_.state, size_t(job_.batch * state_size(problem_)) * sizeof(Real));
    }
    windows ? by_window() : by_image();
  }

 private:
  ForwardImage<Real> image(int64_t index, int64_t slot) const {
    const int64_t map = plan_.map_size(), parents = job_.windows * job_.parent_types;
    ForwardImage<Real> image;
    image.poses = job_.poses + index * map * 16;
    image.activations = job_.activations + index * map;
    image.out_poses = static_cast<Real*>(problem_.out_poses) + index * parents * 16;
    image.out_activations = static_cast<Real*>(problem_.out_activations) + index * parents;
    if (problem_.state) {
      image.assignment = static_cast<Real*>(problem_.state) + index * state_size(problem_);
      image.assignment_step = plan_.assignment_size();
      image.statistics = image.assignment + (job_.iterations - 1) * image.assignment_step;
      image.statistics_step = plan_.record_size();
    } else {
      image.assignment = memory_.get() + slot * slot_size_;
      image.statistics = image.assignment + one_assignment_;
      image.assignment_step = image.statistics_step = 0;
    }
    return image;
  }

  // What lies beyond this target's lanes: the state is a tensor, and tensors hold no rubbish.
  void clear_padding(const ForwardImage<Real>& image) const {
    if (!problem_.state) return;
    const int64_t used = (job_.iterations - 1) * image.assignment_step + job_.iterations * image.statistics_step;
    std::fill_n(image.assignment + used, state_size(problem_) - used, Real(0));
  }

  void by_image() {
    const Kernels<Real>& kernels = plan_.kernels();
    parallel(problem_.threads, job_.batch, [&](int64_t index, int64_t worker) {
      Scratch<Real>& scratch = workspaces_[worker].scratch();
      const ForwardImage<Real> at = image(index, worker);
      clear_padding(at);
      if (!job_.child_competition) {
        kernels.windows_forward(job_, at, 0, job_.windows, scratch);
        return;
      }
      for (int64_t t = 0; t < job_.iterations; ++t) {
        kernels.m_step(job_, at, t, 0, job_.windows, scratch);
        kernels.activate(job_, at, t, 0, job_.windows, scratch);
        if (t + 1 < job_.iterations) kernels.compete(job_, at, t, 0, job_.height, scratch);
      }
    });
  }

  // Calls step(image, part, scratch) for every image, part of its `size` windows or rows.
  template <class Step>
  void in_step(int64_t size, Step step) {
    const int64_t total = job_.batch * size, pieces = pieces_of(total, problem_.threads);
    parallel(problem_.threads, pieces, [&](int64_t piece, int64_t worker) {
      const Range all = part_of(total, piece, pieces);
      for (int64_t at = all.begin; at < all.end;) {
        const int64_t index = at / size, begin = at % size;
        const int64_t end = std::min(size, begin + all.end - at);
        step(image(index, index), Range{begin, end}, workspaces_[worker].scratch());
        at += end - begin;
      }
    });
  }

  void by_window() {
    const Kernels<Real>& kernels = plan_.kernels();
    typedef const ForwardImage<Real>& Image;
    for (int64_t index = 0; index < job_.batch; ++index) clear_padding(image(index, index));
    if (!job_.child_competition) {
      in_step(job_.windows, [&](Image at, Range r, Scratch<Real>& scratch) {
        kernels.windows_forward(job_, at, r.begin, r.end, scratch);
      });
      return;
    }
    for (int64_t t = 0; t < job_.iterations; ++t) {
      in_step(job_.windows, [&](Image at, Range r, Scratch<Real>& scratch) {
        kernels.m_step(job_, at, t, r.begin, r.end, scratch);
        kernels.activate(job_, at, t, r.begin, r.end, scratch);
      });
      if (t + 1 == job_.iterations) break;
      in_step(job_.height, [&](Image at, Range r, Scratch<Real>& scratch) {
        kernels.compete(job_, at, t, r.begin, r.end, scratch);
      });
    }
  }

  const matcaps_problem& problem_;
  Plan<Real> plan_;
  const Job<Real>& job_;
  std::vector<Workspace<Real>> workspaces_;
  Buffer<Real> memory_;
  int64_t slot_size_ = 0, one_assignment_ = 0;
};

// What one piece of the work adds up of the gradients that all images share.
template <class Real>
struct Totals {
  Totals(const Plan<Real>& plan, bool coordinates)
      : weight(Buffer<Real>::zeros(plan.weight_size())),
        beta_use(Buffer<double>::zeros(plan.job().parent_types)),
        beta_activation(Buffer<double>::zeros(plan.job().parent_types)),
        inverse_temperature(Buffer<double>::zeros(plan.job().iterations)),
        coordinates(Buffer<double>::zeros(coordinates ? plan.job().height * plan.job().width * 16 : 0)) {}
  Buffer<Real> weight;
  Buffer<double> beta_use, beta_activation, inverse_temperature, coordinates;
};

template <class Real>
class Backward {
 public:
  Backward(const matcaps_problem& problem) : problem_(problem), plan_(problem), job_(plan_.job()) {}

  void run() {
    const bool windows = share_windows(job_, problem_.threads);
    const int64_t workers = windows ? problem_.threads : std::min<int64_t>(problem_.threads, job_.batch);
    const int64_t slots = windows ? job_.batch : workers;
    pieces_ = windows ? problem_.threads : pieces_of(job_.batch, problem_.threads);  // each of windows has a map: few
    for (int64_t i = 0; i < workers; ++i) workspaces_.emplace_back(plan_, true);
    for (int64_t i = 0; i < pieces_; ++i) totals_.emplace_back(plan_, problem_.grad_coordinates != nullptr);
    logits_ = (job_.iterations - 1) * plan_.assignment_size();
    slot_size_ = logits_ + job_.iterations * plan_.grad_record_size();
    memory_ = Buffer<Real>(slots * slot_size_);
    windows ? by_window() : by_image();
    finish();
  }

 private:
  BackwardImage<Real> image(int64_t index, int64_t slot) const {
    const int64_t map = plan_.map_size(), parents = job_.windows * job_.parent_types;
    BackwardImage<Real> image;
    image.poses = job_.poses + index * map * 16;
    image.activations = job_.activations + index * map;
    image.assignment = static_cast<const Real*>(problem_.state) + index * state_size(problem_);
    image.statistics = image.assignment + logits_;
    image.grad_out_poses = static_cast<const Real*>(problem_.grad_out_poses) + index * parents * 16;
    image.grad_out_activations = static_cast<const Real*>(problem_.grad_out_activations) + index * parents;
    image.grad_logit = memory_.get() + slot * slot_size_;
    image.grad_record = image.grad_logit + logits_;
    return image;
  }

  Sums<Real> sums(const Totals<Real>& totals, Real* grad_poses, Real* grad_activations) const {
    return {grad_poses,
            grad_activations,
            totals.weight.get(),
            totals.beta_use.get(),
            totals.beta_activation.get(),
            totals.inverse_temperature.get(),
            problem_.grad_coordinates ? totals.coordinates.get() : nullptr};
  }

  void by_image() {
    const Kernels<Real>& kernels = plan_.kernels();
    const int64_t map = plan_.map_size();
    parallel(problem_.threads, pieces_, [&](int64_t piece, int64_t worker) {
      Scratch<Real>& scratch = workspaces_[worker].scratch();
      const Range images = part_of(job_.batch, piece, pieces_);
      for (int64_t index = images.begin; index < images.end; ++index) {
        const BackwardImage<Real> at = image(index, worker);
        Real* grad_poses = static_cast<Real*>(problem_.grad_poses) + index * map * 16;
        Real* grad_activations = static_cast<Real*>(problem_.grad_activations) + index * map;
        std::fill_n(grad_poses, map * 16, Real(0));
        std::fill_n(grad_activations, map, Real(0));
        const Sums<Real> to = sums(totals_[piece], grad_poses, grad_activations);
        if (!job_.child_competition) {
          kernels.windows_backward(job_, at, to, 0, job_.windows, scratch);
          continue;
        }
        for (int64_t t = job_.iterations - 1; t >= 0; --t) {
          kernels.activate_backward(job_, at, to, t, 0, job_.windows, scratch);
          kernels.m_step_backward(job_, at, to, t, 0, job_.windows, scratch);
          if (t) kernels.compete_backward(job_, at, to, t, 0, job_.height, scratch);
        }
      }
    });
  }

  // Windows overlap, so each piece adds its windows' gradients of poses and activations into a map of its own.
  void by_window() {
    const Kernels<Real>& kernels = plan_.kernels();
    typedef const BackwardImage<Real>& Image;
    const int64_t map = plan_.map_size() * job_.batch;
    std::vector<Buffer<Real>> maps;
    for (int64_t i = 0; i < pieces_; ++i) maps.push_back(Buffer<Real>::zeros(map * 17));
    auto in_step = [&](int64_t size, auto step) {
      const int64_t total = job_.batch * size;
      parallel(problem_.threads, pieces_, [&](int64_t piece, int64_t worker) {
        const Range all = part_of(total, piece, pieces_);
        for (int64_t at = all.begin; at < all.end;) {
          const int64_t index = at / size, begin = at % size;
          const int64_t end = std::min(size, begin + all.end - at);
          Real* grad_poses = maps[piece].get() + index * plan_.map_size() * 16;
          Real* grad_activations = maps[piece].get() + map * 16 + index * plan_.map_size();
          step(image(index, index), sums(totals_[piece], grad_poses, grad_activations), Range{begin, end},
               workspaces_[worker].scratch());
          at += end - begin;
        }
      });
    };
    typedef const Sums<Real>& To;
    if (!job_.child_competition) {
      in_step(job_.windows, [&](Image at, To to, Range r, Scratch<Real>& scratch) {
        kernels.windows_backward(job_, at, to, r.begin, r.end, scratch);
      });
    } else {
      for (int64_t t = job_.iterations - 1; t >= 0; --t) {
        in_step(job_.windows, [&](Image at, To to, Range r, Scratch<Real>& scratch) {
          kernels.activate_backward(job_, at, to, t, r.begin, r.end, scratch);
          kernels.m_step_backward(job_, at, to, t, r.begin, r.end, scratch);
        });
        if (t == 0) break;
        in_step(job_.height, [&](Image at, To to, Range r, Scratch<Real>& scratch) {
          kernels.compete_backward(job_, at, to, t, r.begin, r.end, scratch);
        });
      }
    }
    parallel(problem_.threads, pieces_, [&](int64_t piece, int64_t) {
      auto add = [&](void* out, int64_t size, int64_t offset) {
        const Range range = part_of(size, piece, pieces_);
        for (int64_t i = range.begin; i < range.end; ++i) {
          Real sum = maps[0].get()[offset + i];
          for (int64_t other = 1; other < pieces_; ++other) sum += maps[other].get()[offset + i];
          static_cast<Real*>(out)[i] = sum;
        }
      };
      add(problem_.grad_poses, map * 16, 0);
      add(problem_.grad_activations, map, map * 16);
    });
  }

  void finish() {
    std::vector<const Real*> weights;
    for (const Totals<Real>& totals : totals_) weights.push_back(totals.weight.get());
    const int64_t tasks = pieces_of(job_.weight_period, problem_.threads);
    parallel(problem_.threads, tasks, [&](int64_t task, int64_t) {
      const Range range = part_of(job_.weight_period, task, tasks);
      plan_.kernels().unpack_weight(job_, weights.data(), pieces_, static_cast<Real*>(problem_.grad_weight),
                                    range.begin, range.end);
    });
    auto add = [&](void* out, int64_t size, auto part) {
      for (int64_t i = 0; i < size; ++i) {
        double sum = 0;
        for (const Totals<Real>& totals : totals_) sum += part(totals)[i];
        static_cast<Real*>(out)[i] = Real(sum);
      }
    };
    add(problem_.grad_beta_use, job_.parent_types, [](auto& totals) { return totals.beta_use.get(); });
    add(problem_.grad_beta_activation, job_.parent_types, [](auto& totals) { return totals.beta_activation.get(); });
    add(problem_.grad_inverse_temperature, job_.iterations,
        [](auto& totals) { return totals.inverse_temperature.get(); });
    if (problem_.grad_coordinates)
      add(problem_.grad_coordinates, job_.height * job_.width * 16,
          [](auto& totals) { return totals.coordinates.get(); });
  }

  const matcaps_problem& problem_;
  Plan<Real> plan_;
  const Job<Real>& job_;
  int64_t pieces_ = 0, logits_ = 0, slot_size_ = 0;
  std::vector<Workspace<Real>> workspaces_;
  std::vector<Totals<Real>> totals_;
  Buffer<Real> memory_;
};

}  // namespace

int64_t state_size(const matcaps_problem& p) {
  const int64_t parents = (p.parent_types + kLanesOfState - 1) / kLanesOfState * kLanesOfState;
  int64_t windows = 1, children = p.height * p.width * p.child_types;
  if (!p.one_window) {
    windows = ((p.height - p.kernel_size) / p.stride + 1) * ((p.width - p.kernel_size) / p.stride + 1);
    children = p.kernel_size * p.kernel_size * p.child_types;
  }
  return windows * parents * ((p.iterations - 1) * children + p.iterations * kRecord);
}

void forward(const matcaps_problem& problem) {
  problem.double_precision ? Forward<double>(problem).run() : Forward<float>(problem).run();
}

void backward(const matcaps_problem& problem) {
  problem.double_precision ? Backward<double>(problem).run() : Backward<float>(problem).run();
}

}  // namespace matcaps
