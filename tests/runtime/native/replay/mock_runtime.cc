#include "mock_runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>

namespace replay {
namespace {

constexpr int kBuiltinDelegate = 51;
constexpr size_t kArenaAlignment = 64;
constexpr size_t kFileAlignment = 4;  // all that a model file promises for its constants
constexpr uint8_t kGarbage = 0xcd;

// The runtime's description of a quantized tensor.
struct AffineQuantization {
  void* scale;
  TfLiteIntArray* zero_point;
  int32_t quantized_dimension;
};

size_t ElementSize(int type) { return type == kTfLiteFloat32 || type == kTfLiteInt32 ? 4 : 1; }

size_t BytesOf(const TfLiteTensor& tensor) {
  size_t bytes = ElementSize(tensor.type);
  for (int i = 0; i < tensor.dims->size; ++i) bytes *= tensor.dims->data[i];
  return bytes;
}

void* AllocateExactly(size_t alignment, size_t bytes) {
  void* buffer = nullptr;
  if (posix_memalign(&buffer, alignment, bytes) != 0) throw std::bad_alloc();
  std::memset(buffer, kGarbage, bytes);
  return buffer;
}

// A copy aligned to 4 bytes, but not to 8; `owner` is what must be freed.
void* CopyOfConstant(const Bytes& data, void** owner) {
  *owner = AllocateExactly(kArenaAlignment, kFileAlignment + data.size());
  void* copy = static_cast<uint8_t*>(*owner) + kFileAlignment;
  if (!data.empty()) std::memcpy(copy, data.data(), data.size());
  return copy;
}

}  // namespace

TfLiteIntArray* MakeIntArray(const std::vector<int>& values) {
  const size_t size = sizeof(TfLiteIntArray) + values.size() * sizeof(int);
  auto* array = static_cast<TfLiteIntArray*>(std::malloc(size));
  array->size = static_cast<int>(values.size());
  std::copy(values.begin(), values.end(), array->data);
  return array;
}

MockRuntime::Node::~Node() {
  for (TfLiteIntArray* array : {node.inputs, node.outputs, node.intermediates, node.temporaries}) {
    std::free(array);
  }
  std::free(node.builtin_data);
}

MockRuntime::MockRuntime(const Case& graph) : graph_(graph) {
  context_.impl_ = this;
  context_.ResizeTensor = ResizeTensor;
  context_.ReportError = ReportError;
  context_.AddTensors = AddTensors;
  context_.recommended_num_threads = 1;
  SwitchContext(false);
  for (const TensorSpec& tensor : graph.tensors) AddTensor(tensor);
  for (const NodeSpec& node : graph.nodes) AddNode(node);
}

MockRuntime::~MockRuntime() {
  for (const auto& node : nodes_) {
    if (node->registration.free != nullptr) {
      node->registration.free(&context_, node->node.user_data);
    }
  }
  for (TfLiteTensor& tensor : tensors_) {
    std::free(tensor.dims);
    if (auto* quantization = static_cast<AffineQuantization*>(tensor.quantization.params)) {
      std::free(quantization->scale);
      std::free(quantization->zero_point);
      std::free(quantization);
    }
  }
  for (void* buffer : buffers_) std::free(buffer);
  std::free(plan_copy_);
}

MockRuntime* MockRuntime::Of(TfLiteContext* context) {
  return static_cast<MockRuntime*>(context->impl_);
}

void MockRuntime::AddTensor(const TensorSpec& spec) {
  TfLiteTensor tensor{};
  tensor.type = static_cast<TfLiteType>(spec.type);
  tensor.dims = MakeIntArray(spec.dims);
  tensor.bytes = BytesOf(tensor);
  tensor.name = "tensor";
  tensor.buffer_handle = -1;
  tensor.allocation_type = kTfLiteArenaRw;
  if (spec.quantized) {
    tensor.params = {spec.scale, spec.zero_point};
    auto* quantization =
        static_cast<AffineQuantization*>(std::malloc(sizeof(AffineQuantization)));
    TfLiteIntArray* scales = MakeIntArray({0});  // an array of floats has the same layout
    std::memcpy(scales->data, &spec.scale, sizeof(float));
    *quantization = {scales, MakeIntArray({spec.zero_point}), 0};
    tensor.quantization = {kTfLiteAffineQuantization, quantization};
  }
  buffers_.push_back(nullptr);
  if (spec.constant) {
    tensor.allocation_type = kTfLiteMmapRo;
    tensor.data = CopyOfConstant(spec.data, &buffers_.back());
  }
  tensors_.push_back(tensor);
  context_.tensors = tensors_.data();
  context_.tensors_size = tensors_.size();
}

void MockRuntime::AddNode(const NodeSpec& spec) {
  auto node = std::make_unique<Node>();
  node->custom_name = spec.custom_name;
  node->registration.builtin_code = spec.builtin_code;
  node->registration.version = 1;
  if (!spec.custom_name.empty()) node->registration.custom_name = node->custom_name.c_str();
  node->node.inputs = MakeIntArray(spec.inputs);
  node->node.outputs = MakeIntArray(spec.outputs);
  node->node.intermediates = MakeIntArray({});
  node->node.temporaries = MakeIntArray({});
  if (spec.has_options) {
    node->options = std::make_unique<uint8_t[]>(spec.options.size());
    std::copy(spec.options.begin(), spec.options.end(), node->options.get());
    node->node.custom_initial_data = node->options.get();
    node->node.custom_initial_data_size = static_cast<int>(spec.options.size());
  }
  if (spec.builtin_code == kTfLiteBuiltinAdd || spec.builtin_code == kTfLiteBuiltinSub) {
    auto* params = static_cast<TfLiteAddParams*>(std::malloc(sizeof(TfLiteAddParams)));
    *params = {static_cast<TfLiteFusedActivation>(spec.activation), false};
    node->node.builtin_data = params;
  }
  plan_.push_back(static_cast<int>(nodes_.size()));
  nodes_.push_back(std::move(node));
}

void MockRuntime::SwitchContext(bool for_delegate) {
  context_.GetExecutionPlan = for_delegate ? GetExecutionPlan : NoPlan;
  context_.GetNodeAndRegistration = for_delegate ? GetNode : NoNode;
  context_.ReplaceNodeSubsetsWithDelegateKernels = for_delegate ? Replace : NoReplace;
}

TfLiteStatus MockRuntime::NoPlan(TfLiteContext* context, TfLiteIntArray**) {
  ReportError(context, "a kernel asked for the execution plan");
  return kTfLiteError;
}

TfLiteStatus MockRuntime::NoNode(TfLiteContext* context, int, TfLiteNode**,
                                 TfLiteRegistration**) {
  ReportError(context, "a kernel asked for a node");
  return kTfLiteError;
}

TfLiteStatus MockRuntime::NoReplace(TfLiteContext* context, TfLiteRegistration,
                                    const TfLiteIntArray*, TfLiteDelegate*) {
  ReportError(context, "a kernel replaced nodes");
  return kTfLiteError;
}

TfLiteStatus MockRuntime::GetExecutionPlan(TfLiteContext* context, TfLiteIntArray** plan) {
  MockRuntime* self = Of(context);
  std::free(self->plan_copy_);
  *plan = self->plan_copy_ = MakeIntArray(self->plan_);
  return kTfLiteOk;
}

void MockRuntime::ReportError(TfLiteContext* context, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  Of(context)->errors_ += std::string(text) + "\n";
}

TfLiteStatus MockRuntime::ResizeTensor(TfLiteContext* context, TfLiteTensor* tensor,
                                       TfLiteIntArray* dims) {
  MockRuntime* self = Of(context);
  for (int i = 0; i < dims->size; ++i) {
    if (dims->data[i] < 0) {
      ReportError(context, "a tensor has a negative size");
      std::free(dims);
      return kTfLiteError;
    }
  }
  if (tensor->allocation_type == kTfLiteMmapRo) {
    ReportError(context, "a constant was resized");
    std::free(dims);
    return kTfLiteError;
  }
  std::free(tensor->dims);
  tensor->dims = dims;
  tensor->bytes = BytesOf(*tensor);
  const size_t index = tensor - self->tensors_.data();
  std::free(self->buffers_[index]);
  self->buffers_[index] = nullptr;
  if (tensor->allocation_type == kTfLiteDynamic) {
    self->buffers_[index] = AllocateExactly(kArenaAlignment, tensor->bytes);
  }
  tensor->data = self->buffers_[index];
  return kTfLiteOk;
}

TfLiteStatus MockRuntime::AddTensors(TfLiteContext* context, int count, int* first) {
  MockRuntime* self = Of(context);
  *first = static_cast<int>(self->tensors_.size());
  // All tensors move, as they may in the real runtime.
  std::vector<TfLiteTensor>(self->tensors_).swap(self->tensors_);
  for (int i = 0; i < count; ++i) self->AddTensor(TensorSpec());
  return kTfLiteOk;
}

TfLiteStatus MockRuntime::GetNode(TfLiteContext* context, int index, TfLiteNode** node,
                                  TfLiteRegistration** registration) {
  MockRuntime* self = Of(context);
  if (index < 0 || index >= static_cast<int>(self->nodes_.size())) return kTfLiteError;
  *node = &self->nodes_[index]->node;
  *registration = &self->nodes_[index]->registration;
  return kTfLiteOk;
}

bool MockRuntime::IsGraphOutput(int tensor) const {
  return std::any_of(graph_.outputs.begin(), graph_.outputs.end(),
                     [&](const Values& output) { return output.tensor == tensor; });
}

bool MockRuntime::IsGraphInput(int tensor) const {
  return std::any_of(graph_.inputs.begin(), graph_.inputs.end(),
                     [&](const Values& input) { return input.tensor == tensor; });
}

// As the runtime does it: as many nodes of one kind as are ready, then as many of the other.
std::vector<MockRuntime::Subset> MockRuntime::Partition(
    const std::vector<bool>& delegated) const {
  std::set<int> unready;
  for (int index : plan_) {
    const TfLiteIntArray* outputs = nodes_[index]->node.outputs;
    unready.insert(outputs->data, outputs->data + outputs->size);
  }
  std::vector<int> waiting = plan_;
  std::vector<Subset> subsets;
  while (!waiting.empty()) {
    Subset subset;
    for (bool progress = true; progress;) {
      progress = false;
      std::vector<int> later;
      for (int index : waiting) {
        const TfLiteNode& node = nodes_[index]->node;
        bool ready = subset.nodes.empty() || delegated[index] == subset.delegated;
        for (int i = 0; i < node.inputs->size; ++i) {
          ready = ready && unready.count(node.inputs->data[i]) == 0;
        }
        if (!ready) {
          later.push_back(index);
          continue;
        }
        subset.delegated = delegated[index];
        subset.nodes.push_back(index);
        for (int i = 0; i < node.outputs->size; ++i) unready.erase(node.outputs->data[i]);
        progress = true;
      }
      waiting.swap(later);
    }
    if (subset.nodes.empty()) throw std::runtime_error("the graph has a cycle");
    subsets.push_back(std::move(subset));
  }
  for (Subset& subset : subsets) {
    std::set<int> made, used, used_elsewhere;
    for (int index : subset.nodes) {
      const TfLiteNode& node = nodes_[index]->node;
      made.insert(node.outputs->data, node.outputs->data + node.outputs->size);
      used.insert(node.inputs->data, node.inputs->data + node.inputs->size);
    }
    for (int index : plan_) {
      if (std::count(subset.nodes.begin(), subset.nodes.end(), index) != 0) continue;
      const TfLiteIntArray* inputs = nodes_[index]->node.inputs;
      used_elsewhere.insert(inputs->data, inputs->data + inputs->size);
    }
    for (int tensor : used) {
      if (tensor >= 0 && made.count(tensor) == 0) subset.inputs.push_back(tensor);
    }
    for (int tensor : made) {
      if (used_elsewhere.count(tensor) != 0 || IsGraphOutput(tensor)) {
        subset.outputs.push_back(tensor);
      }
    }
  }
  return subsets;
}

TfLiteStatus MockRuntime::Replace(TfLiteContext* context, TfLiteRegistration registration,
                                  const TfLiteIntArray* nodes, TfLiteDelegate* delegate) {
  MockRuntime* self = Of(context);
  std::vector<bool> delegated(self->nodes_.size());
  for (int i = 0; i < nodes->size; ++i) delegated.at(nodes->data[i]) = true;
  const std::vector<Subset> subsets = self->Partition(delegated);
  self->plan_.clear();
  for (const Subset& subset : subsets) {
    if (subset.delegated) {
      self->AddDelegateNode(subset, registration, delegate);
    } else {
      self->plan_.insert(self->plan_.end(), subset.nodes.begin(), subset.nodes.end());
    }
  }
  return kTfLiteOk;
}

void MockRuntime::AddDelegateNode(const Subset& subset, const TfLiteRegistration& registration,
                                  TfLiteDelegate* delegate) {
  auto node = std::make_unique<Node>();
  node->registration = registration;
  node->registration.builtin_code = kBuiltinDelegate;
  node->node.inputs = MakeIntArray(subset.inputs);
  node->node.outputs = MakeIntArray(subset.outputs);
  node->node.intermediates = MakeIntArray({});
  node->node.temporaries = MakeIntArray({});
  node->node.delegate = delegate;
  // The runtime keeps these only until `init` returns, for all that a kernel may know.
  TfLiteDelegateParams params{delegate, MakeIntArray(subset.nodes), MakeIntArray(subset.inputs),
                              MakeIntArray(subset.outputs)};
  node->node.user_data =
      registration.init(&context_, reinterpret_cast<const char*>(&params), 0);
  std::free(params.nodes_to_replace);
  std::free(params.input_tensors);
  std::free(params.output_tensors);
  for (int tensor : subset.outputs) tensors_[tensor].delegate = delegate;
  plan_.push_back(static_cast<int>(nodes_.size()));
  nodes_.push_back(std::move(node));
}

bool MockRuntime::Delegate(TfLiteDelegate* delegate) {
  if ((delegate->flags & kTfLiteDelegateFlagsAllowDynamicTensors) == 0) {
    errors_ += "without this flag the runtime prepares unknown operators first\n";
    return false;
  }
  SwitchContext(true);
  const TfLiteStatus status = delegate->Prepare(&context_, delegate);
  SwitchContext(false);
  return status == kTfLiteOk;
}

int MockRuntime::nodes_left() const {
  int left = 0;
  for (int index : plan_) left += nodes_[index]->registration.builtin_code != kBuiltinDelegate;
  return left;
}

void MockRuntime::ResizeInput(int tensor, const std::vector<int>& dims) {
  ResizeTensor(&context_, &tensors_[tensor], MakeIntArray(dims));
}

bool MockRuntime::PrepareNode(Node& node) {
  if (node.registration.builtin_code == kBuiltinDelegate) {
    return node.registration.prepare(&context_, &node.node) == kTfLiteOk;
  }
  if (node.registration.builtin_code == kTfLiteBuiltinCustom) {
    errors_ += "unresolved custom operator " + node.custom_name + "\n";
    return false;
  }
  return PrepareBuiltin(node.registration.builtin_code, &context_, &node.node);
}

bool MockRuntime::Allocate() {
  for (int index : plan_) {
    if (!PrepareNode(*nodes_[index])) return false;
  }
  std::set<int> needed;
  for (const Values& input : graph_.inputs) needed.insert(input.tensor);
  for (int index : plan_) {
    const TfLiteNode& node = nodes_[index]->node;
    for (const TfLiteIntArray* used : {node.inputs, node.outputs, node.temporaries}) {
      needed.insert(used->data, used->data + used->size);
    }
  }
  for (int index : needed) {
    if (index < 0 || tensors_[index].allocation_type != kTfLiteArenaRw) continue;
    std::free(buffers_[index]);
    buffers_[index] = AllocateExactly(kArenaAlignment, tensors_[index].bytes);
    tensors_[index].data = buffers_[index];
  }
  return true;
}

bool MockRuntime::InvokeNode(Node& node) {
  if (node.registration.builtin_code == kBuiltinDelegate) {
    return node.registration.invoke(&context_, &node.node) == kTfLiteOk;
  }
  return InvokeBuiltin(node.registration.builtin_code, &context_, &node.node);
}

bool MockRuntime::Invoke() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const bool computed = tensors_[i].allocation_type == kTfLiteArenaRw;
    if (computed && buffers_[i] != nullptr && !IsGraphInput(static_cast<int>(i))) {
      std::memset(buffers_[i], kGarbage, tensors_[i].bytes);
    }
  }
  return std::all_of(plan_.begin(), plan_.end(),
                     [&](int index) { return InvokeNode(*nodes_[index]); });
}

}  // namespace replay
