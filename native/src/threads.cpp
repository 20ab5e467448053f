#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace matcaps {
namespace {

// Sets flush-to-zero and denormals-are-zero for one task, and puts the thread's own mode back.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | (uint64_t(1) << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

struct Region {
  const Task* task;
  int64_t tasks;
  std::atomic<int64_t> next{0}, workers{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr error;

  void work() {
    FlushDenormals flush;
    const int64_t worker = workers.fetch_add(1);
    for (int64_t i; !failed.load(std::memory_order_relaxed) && (i = next.fetch_add(1)) < tasks;) {
      try {
        (*task)(i, worker);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

void enter(void* region) { static_cast<Region*>(region)->work(); }

// Our own threads, where there is no OpenMP runtime to share. They spin for a moment after each region, for the next
// one often follows at once, and then sleep.
class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      ++epoch_;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(Region& region, int threads) {
    std::lock_guard<std::mutex> one_caller(caller_);
    while (int(threads_.size()) < threads - 1) {
      const int index = int(threads_.size());
      threads_.emplace_back([this, index, seen = epoch_.load()]() mutable { loop(index, seen); });
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      region_ = &region;
      wanted_ = threads - 1;
      busy_ = int(threads_.size());
      ++epoch_;
    }
    wake_.notify_all();
    region.work();
    for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; ++spins)
      if (spins > 1000) std::this_thread::yield();
  }

 private:
  void loop(int index, uint64_t seen) {
    for (;;) {
      for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen && spins < 20000; ++spins) pause();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return epoch_.load() != seen; });
        seen = epoch_.load();
        if (stop_) return;
      }
      if (index < wanted_) region_->work();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  std::mutex caller_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> busy_{0};
  int wanted_ = 0;
  bool stop_ = false;
  Region* region_ = nullptr;
};

// A forked process has none of its parent's threads: it gets a pool of its own, and leaves the other alone.
Pool& pool() {
  static std::mutex mutex;
  static pid_t owner = 0;
  static Pool* current = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (!current || owner != getpid()) {
    current = new Pool;
    owner = getpid();
  }
  return *current;
}

std::atomic<matcaps_fork> the_fork{nullptr};
std::atomic<pid_t> fork_owner{0};
thread_local bool inside = false;

struct Inside {
  Inside() { inside = true; }
  ~Inside() { inside = false; }
};

}  // namespace

void set_fork(matcaps_fork fork) {
  fork_owner = getpid();
  the_fork = fork;
}

void parallel(int threads, int64_t tasks, const Task& task) {
  Region region;
  region.task = &task;
  region.tasks = tasks;
  if (threads > tasks) threads = int(tasks);
  if (threads <= 1 || inside) {
    region.work();
  } else {
    Inside guard;
    matcaps_fork fork = the_fork.load();
    if (fork && fork_owner.load() == getpid())  // OpenMP's threads, too, are lost in a forked process
      fork(enter, &region, unsigned(threads), 0);
    else
      pool().run(region, threads);
  }
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace matcaps
