// Runs the core over awkward sizes, threads and settings, for a sanitizer or valgrind to watch; checks that nothing
// non-finite comes out and that a second run gives the same bits. Usage: matcaps_selftest [instruction set...], by
// default every one that this machine has. Prints which ones ran and returns 0 where all is well.
//   matcaps_selftest --write FILE SET: the values of one instruction set, all forward and backward results
//   matcaps_selftest --compare FILE SET: another one's beside them, on this machine or another; arm64.sh does so
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../src/matcaps.h"

namespace {

int failures = 0;

void check(bool right, const char* what) {
  if (right) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

template <class Real>
struct Routing {
  std::vector<Real> poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates, state,
      out_poses, out_activations, grad_out_poses, grad_out_activations, grad_poses, grad_activations, grad_weight,
      grad_beta_use, grad_beta_activation, grad_inverse_temperature, grad_coordinates;
  matcaps_problem problem{};

  Routing(matcaps_problem p, bool keep_state) : problem(p) {
    std::mt19937 random(1);
    auto fill = [&](std::vector<Real>& to, int64_t size, const void*& at, double scale) {
      to.resize(size);  // evenly in ±√3: variance 1, and little work under valgrind
      for (Real& x : to) x = Real(scale * 1.7320508 * (random() / 2147483648.0 - 1));
      at = to.data();
    };
    auto room = [&](std::vector<Real>& to, int64_t size, void*& at) {
      to.assign(size, Real(NAN));
      at = to.data();
    };
    const int64_t map = p.batch * p.height * p.width * p.child_types;
    const int64_t places = p.one_window ? 1 : p.kernel_size * p.kernel_size;
    const int64_t windows = p.one_window ? 1
                                         : ((p.height - p.kernel_size) / p.stride + 1) *
                                               ((p.width - p.kernel_size) / p.stride + 1);
    const int64_t parents = p.batch * windows * p.parent_types;
    const int64_t weights = places * p.child_types * p.parent_types * 16;
    fill(poses, map * 16, problem.poses, 1);
    fill(activations, map, problem.activations, 1);
    for (Real& x : activations) x = Real(1) / (1 + std::exp(-x));
    fill(weight, weights, problem.weight, 0.5);
    fill(beta_use, p.parent_types, problem.beta_use, 0.1);
    fill(beta_activation, p.parent_types, problem.beta_activation, 1);
    fill(inverse_temperature, p.iterations, problem.inverse_temperature, 0.01);
    fill(grad_out_poses, parents * 16, problem.grad_out_poses, 1);
    fill(grad_out_activations, parents, problem.grad_out_activations, 1);
    room(out_poses, parents * 16, problem.out_poses);
    room(out_activations, parents, problem.out_activations);
    room(grad_poses, map * 16, problem.grad_poses);
    room(grad_activations, map, problem.grad_activations);
    room(grad_weight, weights, problem.grad_weight);
    room(grad_beta_use, p.parent_types, problem.grad_beta_use);
    room(grad_beta_activation, p.parent_types, problem.grad_beta_activation);
    room(grad_inverse_temperature, p.iterations, problem.grad_inverse_temperature);
    if (p.one_window && !p.child_competition) {  // one window has no other competition: the switch is free for this
      fill(coordinates, p.height * p.width * 16, problem.coordinates, 1);
      room(grad_coordinates, p.height * p.width * 16, problem.grad_coordinates);
    }
    if (keep_state) room(state, p.batch * matcaps_state_size(&problem), problem.state);
  }

  std::vector<std::vector<Real>*> results() {
    std::vector<std::vector<Real>*> all = {&out_poses, &out_activations};
    if (problem.state)
      all.insert(all.end(), {&grad_poses, &grad_activations, &grad_weight, &grad_beta_use, &grad_beta_activation,
                             &grad_inverse_temperature, &grad_coordinates});
    return all;
  }

  void run() {
    char error[256] = "";
    check(matcaps_forward(&problem, error, sizeof error) == 0, error);
    if (problem.state) check(matcaps_backward(&problem, error, sizeof error) == 0, error);
  }
};

template <class Real>
void run_twice(const matcaps_problem& problem, bool keep_state) {
  Routing<Real> first(problem, keep_state), second(problem, keep_state);
  first.run();
  second.run();
  auto a = first.results(), b = second.results();
  for (size_t i = 0; i < a.size(); ++i) {
    for (Real x : *a[i]) {
      if (std::isfinite(x)) continue;
      check(false, "a result is not finite");
      break;
    }
    check(a[i]->size() == b[i]->size() &&
              (a[i]->empty() || std::memcmp(a[i]->data(), b[i]->data(), a[i]->size() * sizeof(Real)) == 0),
          "two runs differ");
  }
}

// Calls do(problem) for awkward sizes and all settings.
template <class Do>
void each_problem(Do&& act) {
  // Children of a window on both sides of a chunk (16), with vectors of any size, and more than the caches hold. Images
  // are shared out whole to four threads if they are four, and else window by window.
  const int64_t sizes[][8] = {
      // batch, height, width, child types, parent types, kernel, stride, iterations
      {3, 5, 7, 3, 5, 3, 2, 3},
      {1, 6, 6, 1, 1, 2, 1, 2},
      {2, 4, 4, 7, 9, 1, 1, 1},
      {4, 5, 4, 2, 6, 2, 1, 3},
      {5, 7, 6, 2, 17, 3, 3, 4},
      {1, 9, 8, 3, 16, 5, 2, 2},
      {1, 4, 4, 63, 9, 3, 1, 3},
      {1, 6, 5, 6, 35, 5, 1, 2},
      {1, 5, 6, 43, 5, 5, 1, 2},
  };
  for (const auto& size : sizes)
    for (int setting = 0; setting < 48; ++setting) {
      matcaps_problem p{};
      p.batch = size[0], p.height = size[1], p.width = size[2], p.child_types = size[3], p.parent_types = size[4];
      p.kernel_size = size[5], p.stride = size[6], p.iterations = size[7];
      p.child_competition = setting & 1;
      p.double_precision = setting >> 1 & 1;
      p.one_window = setting >> 2 & 1;
      p.threads = setting >> 3 & 1 ? 4 : 1;
      p.activation_rule = setting >> 4;  // 0, 1, 2
      p.variance_floor = 5e-4, p.annealing = 1.0 / 16;
      act(p);
    }
}

void all_settings() {
  each_problem([](const matcaps_problem& p) {
    for (bool keep_state : {false, true})
      p.double_precision ? run_twice<double>(p, keep_state) : run_twice<float>(p, keep_state);
  });
}

// A result of one problem, as doubles.
struct Values {
  bool double_precision;
  std::vector<double> numbers;
  double least_scale;  // a thousandth of the problem's largest number: a gradient that is 0 but for rounding has none
};

template <class Real>
void collect(const matcaps_problem& problem, std::vector<Values>& to) {
  Routing<Real> routing(problem, true);
  routing.run();
  double largest = 0;
  for (const auto* result : routing.results())
    for (Real x : *result) largest = std::max(largest, std::fabs(double(x)));
  for (const auto* result : routing.results())
    to.push_back(
        {problem.double_precision != 0, std::vector<double>(result->begin(), result->end()), 1e-3 * largest});
}

// Of every size and setting; on one thread, for the sums of several are in another order.
std::vector<Values> all_values() {
  std::vector<Values> all;
  each_problem([&](const matcaps_problem& p) {
    if (p.threads == 1) p.double_precision ? collect<double>(p, all) : collect<float>(p, all);
  });
  return all;
}

void write_values(std::FILE* file) {
  for (const Values& values : all_values())
    check(std::fwrite(values.numbers.data(), sizeof(double), values.numbers.size(), file) == values.numbers.size(),
          "the values cannot be written");
}

// The largest difference of a result beside its largest number, against bounds that are far above rounding and far
// below what a wrong lane or a lost term makes.
void compare_values(std::FILE* file) {
  double largest[2] = {0, 0};
  int64_t count = 0;
  for (const Values& values : all_values()) {
    std::vector<double> expected(values.numbers.size());
    if (std::fread(expected.data(), sizeof(double), expected.size(), file) != expected.size()) {
      check(false, "the file holds fewer values");
      return;
    }
    double difference = 0, scale = values.least_scale;
    for (size_t i = 0; i < expected.size(); ++i) {
      difference = std::max(difference, std::fabs(values.numbers[i] - expected[i]));
      scale = std::max(scale, std::fabs(expected[i]));
    }
    count += int64_t(expected.size());
    if (scale > 0) difference /= scale;
    largest[values.double_precision] = std::max(largest[values.double_precision], difference);
    check(difference < (values.double_precision ? 1e-12 : 2e-4), "a result is another");
  }
  check(std::fgetc(file) == EOF, "the file holds more values");
  std::printf("%lld values, the largest difference %.1e in float32 and %.1e in float64 of a result's largest number: ",
              static_cast<long long>(count), largest[0], largest[1]);
}

}  // namespace

int main(int count, char** names) {
  if (count == 4 && names[1][0] == '-') {
    const bool writes = std::strcmp(names[1], "--write") == 0;
    std::FILE* file = std::fopen(names[2], writes ? "wb" : "rb");
    check(file != nullptr, "the file cannot be opened");
    check(matcaps_set_target(names[3]), "this machine or this build lacks the instruction set");
    if (failures == 0) writes ? write_values(file) : compare_values(file);
    if (file) check(std::fclose(file) == 0, "the file cannot be closed");
    std::printf("%s, %d failures\n", names[3], failures);
    return failures != 0;
  }
  std::vector<const char*> targets(names + 1, names + count);
  const bool asked = !targets.empty();
  if (!asked) targets = {"baseline", "neon", "avx2", "avx512"};
  for (const char* target : targets) {
    if (matcaps_set_target(target)) {
      all_settings();
      std::printf("%s ", target);
      std::fflush(stdout);
    } else {
      check(!asked, "this machine or this build lacks an instruction set that was asked for");
    }
  }
  std::vector<std::thread> callers;  // two callers at once
  for (int i = 0; i < 2; ++i) callers.emplace_back([] {
    matcaps_problem p{};
    p.batch = 1, p.height = 6, p.width = 6, p.child_types = 3, p.parent_types = 9, p.kernel_size = 3, p.stride = 1;
    p.iterations = 3, p.child_competition = 1, p.threads = 3, p.variance_floor = 5e-4, p.annealing = 1;
    run_twice<float>(p, true);
  });
  for (std::thread& caller : callers) caller.join();
  char error[256] = "";
  check(matcaps_fail_in_task(4, error, sizeof error) != 0 && std::strcmp(error, "task 7 failed as asked") == 0,
        "a failing task is reported");
  std::printf("code, %d failures\n", failures);
  return failures != 0;
}
