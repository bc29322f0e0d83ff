// Threads that share the items of one job.
#pragma once

#include <cstdint>
#include <type_traits>

namespace larq_ext {

// Runs jobs on `threads` threads, the caller being one of them. With one thread nothing is started
// and a job is a plain loop. Where the system grants fewer threads, it makes do with those.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls `function(argument, item)` for each item in [0, items); returns when all are done.
  // Items are handed out one at a time, so they should take some microseconds each.
  void Run(int64_t items, void (*function)(void* argument, int64_t item), void* argument);

  template <class Function>
  void ForEach(int64_t items, Function&& function) {
    using Plain = std::remove_reference_t<Function>;
    Run(items, [](void* f, int64_t item) { (*static_cast<Plain*>(f))(item); },
        const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  struct State;

  // Whether the workers exist: a forked child has a copy of this object, but not of them.
  bool HasWorkers() const;

  State* state_ = nullptr;
  int threads_ = 1;
  int process_ = 0;
};

}  // namespace larq_ext
