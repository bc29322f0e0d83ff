// The library's C functions: TensorFlow Lite's interface of external delegates, and three of ours.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "graph.h"
#include "kernel.h"
#include "tflite_abi.h"
#include "thread_pool.h"

#define LARQ_EXT_EXPORT extern "C" __attribute__((visibility("default")))

namespace larq_ext {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxThreads = 256;

struct Options {
  int num_threads = 1;
  const Kernel* kernel = nullptr;
  bool profile = false;
};

// What a partition did, if it is asked to tell.
struct Record {
  std::vector<Graph::StepInfo> steps;
  std::vector<int64_t> step_nanoseconds;
  int64_t nanoseconds = 0;
  int64_t gap = 0;  // from its end to the beginning of the next partition
  int64_t invokes = 0;
};

class Delegate {
 public:
  explicit Delegate(const Options& options) : options_(options), pool_(options.num_threads) {
    base_.data_ = this;
    base_.Prepare = PrepareDelegate;
    // The runtime otherwise prepares every operator before it asks the delegate, and stops at the
    // first one that it does not know.
    base_.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  }

  TfLiteDelegate* base() { return &base_; }
  static Delegate* From(const TfLiteDelegate* base) { return static_cast<Delegate*>(base->data_); }
  const Options& options() const { return options_; }
  ThreadPool* pool() { return &pool_; }

  int AddPartition() {
    std::lock_guard<std::mutex> lock(mutex_);
    records_.emplace_back();
    return static_cast<int>(records_.size()) - 1;
  }
  void DescribePartition(int partition, std::vector<Graph::StepInfo> steps) {
    std::lock_guard<std::mutex> lock(mutex_);
    Record& record = records_[partition];
    record.step_nanoseconds.assign(steps.size(), 0);
    record.steps = std::move(steps);
  }
  std::string RunPartition(int partition, Graph* graph, TfLiteContext* context) {
    if (!options_.profile) return graph->Invoke(context, nullptr);
    std::lock_guard<std::mutex> lock(mutex_);
    Record& record = records_[partition];
    const Clock::time_point start = Clock::now();
    if (last_partition_ >= 0 && last_partition_ == partition - 1) {
      records_[last_partition_].gap += Nanoseconds(start - last_end_);
    }
    const std::string error = graph->Invoke(context, &record.step_nanoseconds);
    last_end_ = Clock::now();
    last_partition_ = partition;
    record.nanoseconds += Nanoseconds(last_end_ - start);
    ++record.invokes;
    return error;
  }
  std::string Profile() const;

 private:
  static TfLiteStatus PrepareDelegate(TfLiteContext* context, TfLiteDelegate* base);
  static int64_t Nanoseconds(Clock::duration duration) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  }

  TfLiteDelegate base_ = {};
  const Options options_;
  ThreadPool pool_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<Record> records_;
  int last_partition_ = -1;
  Clock::time_point last_end_;
};

void Report(TfLiteContext* context, const std::string& message) {
  context->ReportError(context, "larq-ext: %s.", message.c_str());
}

// What the runtime calls a node: a partition and, if it could not be read, the reason.
struct Partition {
  Partition(Delegate* delegate)
      : delegate(delegate), graph(delegate->options().kernel, delegate->pool()) {}

  Delegate* delegate;
  Graph graph;
  int number = 0;
  std::string error;
};

// Calls `function` and turns what it returns or throws into the runtime's way of telling errors.
template <class Function>
TfLiteStatus Guard(TfLiteContext* context, Function function) {
  std::string error;
  try {
    error = function();
  } catch (const std::bad_alloc&) {
    error = "out of memory";
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  if (error.empty()) return kTfLiteOk;
  Report(context, error);
  return kTfLiteError;
}

void* InitPartition(TfLiteContext* context, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  Partition* partition = nullptr;
  Guard(context, [&]() -> std::string {
    auto made = std::make_unique<Partition>(Delegate::From(params->delegate));
    made->error =
        made->graph.Build(context, params->nodes_to_replace, params->output_tensors);
    made->number = made->delegate->AddPartition();
    partition = made.release();
    return "";
  });
  return partition;  // a reason to fail is told in Prepare, where the runtime listens
}

void FreePartition(TfLiteContext*, void* buffer) { delete static_cast<Partition*>(buffer); }

TfLiteStatus PreparePartition(TfLiteContext* context, TfLiteNode* node) {
  auto* partition = static_cast<Partition*>(node->user_data);
  return Guard(context, [&]() -> std::string {
    if (partition == nullptr) return "a part of the model could not be read";
    if (!partition->error.empty()) return partition->error;
    const std::string error = partition->graph.Prepare(context);
    if (error.empty()) {
      partition->delegate->DescribePartition(partition->number, partition->graph.steps());
    }
    return error;
  });
}

TfLiteStatus InvokePartition(TfLiteContext* context, TfLiteNode* node) {
  auto* partition = static_cast<Partition*>(node->user_data);
  return Guard(context, [&] {
    return partition->delegate->RunPartition(partition->number, &partition->graph, context);
  });
}

TfLiteStatus Delegate::PrepareDelegate(TfLiteContext* context, TfLiteDelegate* base) {
  return Guard(context, [&]() -> std::string {
    TfLiteIntArray* plan;
    if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return "there is no plan";
    // Copied, because the runtime may change it with the next call.
    const std::vector<int> indices(plan->data, plan->data + plan->size);
    std::vector<int> wanted;
    std::set<int> from_binary, read;
    for (int index : indices) {
      TfLiteNode* node;
      TfLiteRegistration* registration;
      if (context->GetNodeAndRegistration(context, index, &node, &registration) != kTfLiteOk) {
        return "the runtime does not know a node of its plan";
      }
      // The runtime takes the order for granted when it parts the graph, and crashes.
      read.insert(node->inputs->data, node->inputs->data + node->inputs->size);
      for (int i = 0; i < node->outputs->size; ++i) {
        const int output = node->outputs->data[i];
        if (output >= 0 && read.count(output) > 0) {
          return "operator " + std::to_string(index) +
                 " writes a tensor that it or an earlier one reads";
        }
      }
      if (!IsWanted(context, node, registration, from_binary)) continue;
      wanted.push_back(index);
      from_binary.insert(node->outputs->data, node->outputs->data + node->outputs->size);
    }
    if (wanted.empty()) return "";

    TfLiteRegistration registration = {};
    registration.init = InitPartition;
    registration.free = FreePartition;
    registration.prepare = PreparePartition;
    registration.invoke = InvokePartition;
    registration.builtin_code = 51;  // BuiltinOperator_DELEGATE
    registration.custom_name = "LarqExt";
    registration.version = 1;
    const std::unique_ptr<TfLiteIntArray, decltype(&std::free)> array(
        static_cast<TfLiteIntArray*>(
            std::malloc(sizeof(TfLiteIntArray) + wanted.size() * sizeof(int))),
        std::free);
    if (array == nullptr) return "out of memory";
    array->size = static_cast<int>(wanted.size());
    std::memcpy(array->data, wanted.data(), wanted.size() * sizeof(int));
    const TfLiteStatus status =
        context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, array.get(), base);
    return status == kTfLiteOk ? "" : "the runtime did not accept the delegate";
  });
}

std::string Delegate::Profile() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto number = [](int64_t value) { return std::to_string(value); };
  std::string nodes, partitions, gaps;
  int64_t invokes = 0;
  for (size_t i = 0; i < records_.size(); ++i) {
    const Record& record = records_[i];
    invokes = record.invokes > invokes ? record.invokes : invokes;
    for (size_t j = 0; j < record.steps.size(); ++j) {
      const Graph::StepInfo& step = record.steps[j];
      std::string shape;
      for (int size : step.shape) shape += (shape.empty() ? "" : ", ") + number(size);
      nodes += (nodes.empty() ? "" : ", ") + std::string("{\"partition\": ") + number(i) +
               ", \"name\": \"" + step.name + "\", \"output\": \"" + step.output +
               "\", \"shape\": [" + shape + "], \"macs\": " + number(step.multiply_adds) +
               ", \"nanoseconds\": " + number(record.step_nanoseconds[j]) + "}";
    }
    partitions += (i == 0 ? "" : ", ") + std::string("{\"nanoseconds\": ") +
                  number(record.nanoseconds) + "}";
    if (i + 1 < records_.size()) {
      gaps += (i == 0 ? "" : ", ") + std::string("{\"after\": ") + number(i) +
              ", \"nanoseconds\": " + number(record.gap) + "}";
    }
  }
  return "{\"kernel\": \"" + std::string(options_.kernel->name) +
         "\", \"threads\": " + number(pool_.threads()) +
         ", \"invokes\": " + number(invokes) + ", \"nodes\": [" + nodes +
         "], \"partitions\": [" + partitions + "], \"gaps\": [" + gaps + "]}";
}

std::string KernelNames() {
  std::string names;
  for (const Kernel* kernel : Kernels()) {
    names += (names.empty() ? "" : ",") + std::string(kernel->name);
  }
  return names;
}

// Reads a number of at least `low`; false if `text` is none.
bool ReadNumber(const char* text, long low, long high, long* number) {
  char* end;
  *number = std::strtol(text, &end, 10);
  return end != text && *end == '\0' && *number >= low && *number <= high;
}

// Returns what is wrong, or nothing.
std::string ReadOptions(char** keys, char** values, size_t count, Options* options) {
  std::string kernel = "auto";
  for (size_t i = 0; i < count; ++i) {
    const std::string key = keys[i], value = values[i];
    long number;
    if (key == "num_threads") {
      if (!ReadNumber(values[i], 1, kMaxThreads, &number)) {
        return "num_threads must be a number from 1 to " + std::to_string(kMaxThreads) +
               ", not '" + value + "'";
      }
      options->num_threads = static_cast<int>(number);
    } else if (key == "profile") {
      if (!ReadNumber(values[i], 0, 1, &number)) {
        return "profile must be 0 or 1, not '" + value + "'";
      }
      options->profile = number == 1;
    } else if (key == "kernel") {
      kernel = value;
    } else {
      return "unknown option '" + key + "'; the options are num_threads, kernel and profile";
    }
  }
  const char* forced = std::getenv("LARQ_EXT_KERNEL");
  const bool by_environment = kernel == "auto" && forced != nullptr && *forced != '\0';
  if (by_environment) kernel = forced;
  options->kernel = FindKernel(kernel.c_str());
  if (options->kernel == nullptr) {
    return std::string(by_environment ? "LARQ_EXT_KERNEL" : "kernel") + " must be auto or one of " +
           KernelNames() + " on this CPU, not '" + kernel + "'";
  }
  return "";
}

}  // namespace
}  // namespace larq_ext

// Makes a delegate; null, after a call of `report_error`, if an option is wrong.
LARQ_EXT_EXPORT TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values,
                                                              size_t count,
                                                              void (*report_error)(const char*)) {
  std::string error;
  try {
    larq_ext::Options options;
    error = larq_ext::ReadOptions(keys, values, count, &options);
    if (error.empty()) return (new larq_ext::Delegate(options))->base();
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  if (report_error != nullptr) report_error(("larq-ext: " + error + ".").c_str());
  return nullptr;
}

LARQ_EXT_EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate != nullptr) delete larq_ext::Delegate::From(delegate);
}

// The names of the kernels that this CPU can run, best first, separated by commas.
LARQ_EXT_EXPORT const char* larq_ext_kernels() {
  static const std::string names = larq_ext::KernelNames();
  return names.c_str();
}

// Writes what a delegate made with profile=1 has measured, as JSON, to `buffer` if it fits with
// its terminating zero; returns the number of bytes needed.
LARQ_EXT_EXPORT size_t larq_ext_profile(const TfLiteDelegate* delegate, char* buffer,
                                        size_t size) {
  const std::string text = larq_ext::Delegate::From(delegate)->Profile();
  if (buffer != nullptr && text.size() < size) std::memcpy(buffer, text.c_str(), text.size() + 1);
  return text.size() + 1;
}

// Binary multiply-adds a second of the kernel's inner instructions on registers alone, measured
// for `seconds`; 0 if the kernel has no such measure, -1 if there is no such kernel.
LARQ_EXT_EXPORT double larq_ext_peak(const char* kernel, double seconds) {
  const larq_ext::Kernel* found = larq_ext::FindKernel(kernel);
  return found == nullptr ? -1 : found->peak(seconds);
}
