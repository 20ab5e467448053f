#include "plan.h"

#include "threads.h"

namespace matcaps {
namespace {

// 1 / (parents that compete for the child), the first assignment.
template <class Real>
Buffer<Real> uniform_assignment(const Job<Real>& job) {
  Buffer<Real> uniform(job.height * job.width * job.child_types);
  // windows that cover a row: starts y - k with k < K, on the stride, inside the map
  auto covers = [&](int64_t place, int64_t out_size) {
    int64_t count = 0;
    for (int64_t k = 0; k < job.kernel_size; ++k)
      count += place >= k && (place - k) % job.stride == 0 && (place - k) / job.stride < out_size;
    return count;
  };
  Real* to = uniform.get();
  for (int64_t y = 0; y < job.height; ++y) {
    for (int64_t x = 0; x < job.width; ++x) {
      int64_t windows = 1;
      if (job.child_competition && !job.one_window) windows = covers(y, job.out_height) * covers(x, job.out_width);
      const Real share = windows ? Real(1) / Real(job.parent_types * windows) : Real(0);
      for (int64_t i = 0; i < job.child_types; ++i) *to++ = share;
    }
  }
  return uniform;
}

template <class Real>
Buffer<Real> padded(const void* from, int64_t size, int64_t padded_size) {
  Buffer<Real> to = Buffer<Real>::zeros(padded_size);
  std::memcpy(to.get(), from, size_t(size) * sizeof(Real));
  return to;
}

}  // namespace

template <class Real>
Plan<Real>::Plan(const matcaps_problem& p) : kernels_(matcaps::kernels<Real>()) {
  Job<Real>& job = job_;
  job = Job<Real>{};
  job.batch = p.batch;
  job.height = p.height;
  job.width = p.width;
  job.child_types = p.child_types;
  job.parent_types = p.parent_types;
  job.kernel_size = p.kernel_size;
  job.stride = p.stride;
  job.iterations = p.iterations;
  job.one_window = p.one_window;
  job.child_competition = p.child_competition && !p.one_window;
  job.standardised = p.activation_rule == 1;
  job.relative = p.activation_rule == 2;
  if (job.one_window) {
    job.out_height = job.out_width = 1;
    job.children = p.height * p.width * p.child_types;
    job.weight_period = p.child_types;
  } else {
    job.out_height = (p.height - p.kernel_size) / p.stride + 1;
    job.out_width = (p.width - p.kernel_size) / p.stride + 1;
    job.children = p.kernel_size * p.kernel_size * p.child_types;
    job.weight_period = job.children;
  }
  job.windows = job.out_height * job.out_width;
  job.lanes = kernels_.lanes;
  job.blocks = (p.parent_types + job.lanes - 1) / job.lanes;
  job.variance_floor = Real(p.variance_floor);
  job.annealing = Real(p.annealing);
  job.poses = static_cast<const Real*>(p.poses);
  job.activations = static_cast<const Real*>(p.activations);
  job.inverse_temperature = static_cast<const Real*>(p.inverse_temperature);
  job.coordinates = static_cast<const Real*>(p.coordinates);
  beta_use_ = padded<Real>(p.beta_use, p.parent_types, job.blocks * job.lanes);
  beta_activation_ = padded<Real>(p.beta_activation, p.parent_types, job.blocks * job.lanes);
  uniform_ = uniform_assignment(job);
  weight_ = Buffer<Real>(weight_size());
  job.beta_use = beta_use_.get();
  job.beta_activation = beta_activation_.get();
  job.uniform = uniform_.get();
  job.weight = weight_.get();
  const int64_t tasks = std::min<int64_t>(p.threads, job.weight_period);
  parallel(p.threads, tasks, [&](int64_t task, int64_t) {
    kernels_.pack_weight(job, static_cast<const Real*>(p.weight), weight_.get(), task * job.weight_period / tasks,
                         (task + 1) * job.weight_period / tasks);
  });
}

template <class Real>
Workspace<Real>::Workspace(const Plan<Real>& plan, bool backward) : scratch_{} {
  const Job<Real>& job = plan.job();
  const int64_t padded_parents = job.blocks * job.lanes;
  struct Part {
    Real** at;
    int64_t size;
  };
  const Part parts[] = {
      {&scratch_.poses, job.children * 16},
      {&scratch_.activations, job.children},
      {&scratch_.uniform, job.children},
      {&scratch_.parents, 4 * padded_parents},
      {&scratch_.grad_poses, backward ? job.children * 16 : 0},
      {&scratch_.grad_activations, backward ? job.children : 0},
      {&scratch_.factors, backward ? job.iterations * 4 * 16 * job.lanes : 0},
      {&scratch_.data, backward ? job.iterations * 4 * job.lanes : 0},
  };
  const int64_t line = 64 / sizeof(Real);
  int64_t total = 0;
  for (const Part& part : parts) total += (part.size + line - 1) / line * line;
  memory_ = Buffer<Real>(total);
  Real* at = memory_.get();
  for (const Part& part : parts) {
    *part.at = at;
    at += (part.size + line - 1) / line * line;
  }
  if (backward) {  // what a window adds here is cleared when it joins the image's
    std::fill_n(scratch_.grad_poses, job.children * 16, Real(0));
    std::fill_n(scratch_.grad_activations, job.children, Real(0));
  }
  places_ = Buffer<const Real*>(2 * job.kernel_size * job.kernel_size);
  scratch_.places = places_.get();
}

template class Plan<float>;
template class Plan<double>;
template class Workspace<float>;
template class Workspace<double>;

}  // namespace matcaps
