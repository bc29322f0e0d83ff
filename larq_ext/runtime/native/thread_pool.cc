#include "thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

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

struct Job {
  void (*function)(void*, int64_t) = nullptr;
  void* argument = nullptr;
  int64_t items = 0;
};

struct ThreadPool::State {
  void Work();
  void TakeItems();
  void Wake();

  std::vector<std::thread> workers;
  std::mutex caller;  // one job at a time; a second caller works alone
  std::mutex mutex;
  std::condition_variable wake;
  Job job;
  std::atomic<uint64_t> generation{0};  // counts jobs
  std::atomic<uint64_t> open{0};        // the job that workers may still join, or 0
  std::atomic<int64_t> next{0};
  std::atomic<int> active{0};  // workers that joined, or are just looking whether they may
  std::atomic<int> asleep{0};
  std::atomic<bool> stop{false};
};

void ThreadPool::State::TakeItems() {
  for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < job.items;) {
    job.function(job.argument, item);
  }
}

void ThreadPool::State::Work() {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && generation.load() == seen && !stop.load(); ++spin) Pause();
    if (generation.load() == seen) {
      std::unique_lock<std::mutex> lock(mutex);
      asleep.fetch_add(1);
      wake.wait(lock, [&] { return generation.load() != seen || stop.load(); });
      asleep.fetch_sub(1);
    }
    if (stop.load()) return;
    seen = generation.load();
    active.fetch_add(1);
    if (open.load() == seen) TakeItems();
    active.fetch_sub(1);
  }
}

void ThreadPool::State::Wake() {
  if (asleep.load() == 0) return;
  // Taking the lock makes sure that no worker is between its last look and its sleep.
  { std::lock_guard<std::mutex> lock(mutex); }
  wake.notify_all();
}

ThreadPool::ThreadPool(int threads) : process_(getpid()) {
  if (threads < 2) return;
  state_ = new State;
  state_->workers.reserve(threads - 1);
  try {
    for (; threads_ < threads; ++threads_) {
      state_->workers.emplace_back([state = state_] { state->Work(); });
    }
  } catch (const std::system_error&) {
    // The system grants no more threads.
  }
}

bool ThreadPool::HasWorkers() const { return threads_ > 1 && process_ == getpid(); }

ThreadPool::~ThreadPool() {
  // In a forked child there is nobody to wait for, and locks may be held by nobody for ever.
  if (state_ == nullptr || process_ != getpid()) return;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
  delete state_;
}

void ThreadPool::Run(int64_t items, void (*function)(void*, int64_t), void* argument) {
  std::unique_lock<std::mutex> alone;
  if (items > 1 && HasWorkers()) alone = {state_->caller, std::try_to_lock};
  if (!alone.owns_lock()) {
    for (int64_t item = 0; item < items; ++item) function(argument, item);
    return;
  }
  State& state = *state_;
  state.job = {function, argument, items};
  state.next.store(0);
  const uint64_t number = state.generation.load() + 1;
  state.open.store(number);
  state.generation.store(number);
  state.Wake();
  state.TakeItems();
  // A worker that was not in time need not come: on a busy machine it may take milliseconds. The
  // job is closed before the count is read, and workers count themselves before they look.
  state.open.store(0);
  for (int spin = 0; state.active.load() != 0; ++spin) {
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace larq_ext
