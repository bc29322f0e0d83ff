// A minimal TensorFlow Lite: enough to run a delegate, and stricter than the real one.
//
// Every tensor has a buffer of its own of exactly its size, so that a sanitizer sees each access
// beyond it. Tensors that only nodes inside of a delegate's partition use have no buffer at all.
// Buffers hold garbage before each run.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "case_file.h"
#include "tflite_abi.h"

namespace replay {

class MockRuntime {
 public:
  explicit MockRuntime(const Case& graph);
  ~MockRuntime();
  MockRuntime(const MockRuntime&) = delete;
  MockRuntime& operator=(const MockRuntime&) = delete;

  // Lets the delegate take nodes; it must outlive this object.
  bool Delegate(TfLiteDelegate* delegate);
  void ResizeInput(int tensor, const std::vector<int>& dims);
  bool Allocate();
  bool Invoke();

  TfLiteTensor& tensor(int index) { return tensors_[index]; }
  // How many nodes of the graph the delegate left to the runtime.
  int nodes_left() const;
  const std::string& errors() const { return errors_; }

 private:
  struct Node {
    TfLiteNode node{};
    TfLiteRegistration registration{};
    std::string custom_name;
    std::unique_ptr<uint8_t[]> options;
    ~Node();
  };
  // Nodes that run together: all by the delegate, or all by the runtime.
  struct Subset {
    bool delegated = false;
    std::vector<int> nodes, inputs, outputs;
  };

  static MockRuntime* Of(TfLiteContext* context);
  static TfLiteStatus GetExecutionPlan(TfLiteContext* context, TfLiteIntArray** plan);
  static TfLiteStatus ResizeTensor(TfLiteContext* context, TfLiteTensor* tensor,
                                   TfLiteIntArray* dims);
  static void ReportError(TfLiteContext* context, const char* format, ...);
  static TfLiteStatus AddTensors(TfLiteContext* context, int count, int* first);
  static TfLiteStatus GetNode(TfLiteContext* context, int index, TfLiteNode** node,
                              TfLiteRegistration** registration);
  static TfLiteStatus Replace(TfLiteContext* context, TfLiteRegistration registration,
                              const TfLiteIntArray* nodes, TfLiteDelegate* delegate);
  // What kernels must not call.
  static TfLiteStatus NoPlan(TfLiteContext* context, TfLiteIntArray** plan);
  static TfLiteStatus NoNode(TfLiteContext* context, int index, TfLiteNode** node,
                             TfLiteRegistration** registration);
  static TfLiteStatus NoReplace(TfLiteContext* context, TfLiteRegistration registration,
                                const TfLiteIntArray* nodes, TfLiteDelegate* delegate);

  void AddTensor(const TensorSpec& spec);
  void AddNode(const NodeSpec& spec);
  std::vector<Subset> Partition(const std::vector<bool>& delegated) const;
  void AddDelegateNode(const Subset& subset, const TfLiteRegistration& registration,
                       TfLiteDelegate* delegate);
  void SwitchContext(bool for_delegate);
  bool IsGraphOutput(int tensor) const;
  bool IsGraphInput(int tensor) const;
  bool PrepareNode(Node& node);
  bool InvokeNode(Node& node);

  const Case& graph_;
  TfLiteContext context_{};
  std::vector<TfLiteTensor> tensors_;
  std::vector<void*> buffers_;  // by tensor, what it owns
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<int> plan_;
  TfLiteIntArray* plan_copy_ = nullptr;
  std::string errors_;
};

TfLiteIntArray* MakeIntArray(const std::vector<int>& values);

// The runtime's own kernels, as far as graphs of cases need them: false if `code` is not known.
bool PrepareBuiltin(int code, TfLiteContext* context, TfLiteNode* node);
bool InvokeBuiltin(int code, TfLiteContext* context, TfLiteNode* node);

}  // namespace replay
