// Threads that share the items of one job.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace larq_ext {

// Runs jobs on `threads` threads, the caller being one of them. With one thread nothing is started
// and a job is a plain loop.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

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
  struct Job {
    void (*function)(void*, int64_t) = nullptr;
    void* argument = nullptr;
    int64_t items = 0;
  };

  void Work();
  void TakeItems(const Job& job);
  void Wake();

  std::vector<std::thread> workers_;
  std::mutex caller_;  // one job at a time; a second caller works alone
  std::mutex mutex_;
  std::condition_variable wake_;
  Job job_;
  std::atomic<uint64_t> generation_{0};  // counts jobs
  std::atomic<uint64_t> open_{0};        // the job that workers may still join, or 0
  std::atomic<int64_t> next_{0};
  std::atomic<int> active_{0};  // workers that joined, or are just looking whether they may
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace larq_ext
