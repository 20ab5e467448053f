// From a problem to a job: sizes, packed parameters, and the working memory of a task.
#pragma once

#include <algorithm>
#include <vector>

#include "memory.h"
#include "targets.h"
#include "matcaps.h"

namespace matcaps {

template <class Real>
class Plan {
 public:
  explicit Plan(const matcaps_problem& problem);
  const Job<Real>& job() const { return job_; }
  const Kernels<Real>& kernels() const { return kernels_; }

  int64_t assignment_size() const { return job_.windows * job_.blocks * job_.children * job_.lanes; }
  int64_t record_size() const { return job_.windows * job_.blocks * kRecord * job_.lanes; }
  int64_t grad_record_size() const { return job_.windows * job_.blocks * kGradRecord * job_.lanes; }
  int64_t weight_size() const { return job_.weight_period * job_.blocks * 16 * job_.lanes; }
  int64_t map_size() const { return job_.height * job_.width * job_.child_types; }

 private:
  Job<Real> job_;
  Kernels<Real> kernels_;
  Buffer<Real> weight_, beta_use_, beta_activation_, uniform_;
};

template <class Real>
class Workspace {
 public:
  Workspace(const Plan<Real>& plan, bool backward);
  Scratch<Real>& scratch() { return scratch_; }

 private:
  Buffer<Real> memory_;
  Buffer<const Real*> places_;
  Scratch<Real> scratch_;
};

}  // namespace matcaps
