#include "thread_pool.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace larq_ext {
namespace {

// The layers of a network follow each other within microseconds; a worker that slept between them
// would wake too late to help. So it looks for work this often before it sleeps (about 100 us).
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::TakeItems(const Job& job) {
  for (int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < job.items;) {
    job.function(job.argument, item);
  }
}

void ThreadPool::Work() {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && generation_.load() == seen && !stop_.load(); ++spin) {
      Pause();
    }
    if (generation_.load() == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen || stop_.load(); });
      asleep_.fetch_sub(1);
    }
    if (stop_.load()) return;
    seen = generation_.load();
    active_.fetch_add(1);
    if (open_.load() == seen) TakeItems(job_);
    active_.fetch_sub(1);
  }
}

void ThreadPool::Wake() {
  if (asleep_.load() == 0) return;
  // Taking the lock makes sure that no worker is between its last look and its sleep.
  { std::lock_guard<std::mutex> lock(mutex_); }
  wake_.notify_all();
}

void ThreadPool::Run(int64_t items, void (*function)(void*, int64_t), void* argument) {
  std::unique_lock<std::mutex> alone(caller_, std::defer_lock);
  if (workers_.empty() || items < 2 || !alone.try_lock()) {
    for (int64_t item = 0; item < items; ++item) function(argument, item);
    return;
  }
  job_ = {function, argument, items};
  next_.store(0);
  const uint64_t job = generation_.load() + 1;
  open_.store(job);
  generation_.store(job);
  Wake();
  TakeItems(job_);
  // A worker that was not in time need not come: on a busy machine it may take milliseconds. The
  // job is closed before the count is read, and workers count themselves before they look.
  open_.store(0);
  for (int spin = 0; active_.load() != 0; ++spin) {
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace larq_ext
