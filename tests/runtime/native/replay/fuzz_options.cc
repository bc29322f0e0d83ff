// A libFuzzer target: options of a convolution, first for the reader alone, then in a graph that
// is prepared and run.
#include <cstring>

#include "entry_points.h"
#include "flexbuffer.h"
#include "mock_runtime.h"

namespace {

using replay::Bytes;

constexpr int kOut = 8;
const char* const kKeys[] = {"channels_in", "dilation_height_factor", "dilation_width_factor",
                             "fused_activation_function", "pad_values", "padding",
                             "stride_height", "stride_width", "filter_height", "filter_width"};

void Ignore(const char*) {}

replay::TensorSpec Tensor(int type, std::vector<int> dims, size_t constant_bytes = 0) {
  replay::TensorSpec spec;
  spec.type = type;
  spec.dims = std::move(dims);
  spec.constant = constant_bytes != 0;
  spec.data.assign(constant_bytes, 0);
  return spec;
}

// A convolution 3x2 of two words a pixel, or a pooling of the same bits.
replay::Case MakeGraph(bool pooling, const Bytes& options) {
  replay::Case graph;
  graph.tensors.push_back(Tensor(kTfLiteInt32, {2, 4, 5, 2}));
  replay::NodeSpec node;
  node.builtin_code = kTfLiteBuiltinCustom;
  node.has_options = true;
  node.options = options;
  if (pooling) {
    graph.tensors.push_back(Tensor(kTfLiteInt32, {2, 4, 5, 2}));
    node.custom_name = "LceBMaxPool2d";
    node.inputs = {0};
    node.outputs = {1};
  } else {
    graph.tensors.push_back(Tensor(kTfLiteInt32, {kOut, 3, 2, 2}, kOut * 3 * 2 * 2 * 4));
    graph.tensors.push_back(Tensor(kTfLiteFloat32, {kOut}, kOut * 4));
    graph.tensors.push_back(Tensor(kTfLiteFloat32, {kOut}, kOut * 4));
    graph.tensors.push_back(Tensor(kTfLiteFloat32, {2, 4, 5, kOut}));
    node.custom_name = "LceBconv2d";
    node.inputs = {0, 1, 2, 3, -1};
    node.outputs = {4};
  }
  graph.nodes.push_back(node);
  graph.inputs.push_back({0, graph.tensors[0].dims, Bytes(2 * 4 * 5 * 2 * 4)});
  graph.outputs.push_back({node.outputs[0], {}, {}});
  return graph;
}

void RunGraph(const replay::Case& graph) {
  static TfLiteDelegate* const delegate =
      tflite_plugin_create_delegate(nullptr, nullptr, 0, Ignore);
  replay::MockRuntime runtime(graph);
  if (!runtime.Delegate(delegate) || !runtime.Allocate()) return;
  std::memset(runtime.tensor(0).data, 0, runtime.tensor(0).bytes);
  runtime.Invoke();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes options(data + 1, data + size);
  const larq_ext::FlexMap map(options.data(), options.size());
  for (const char* key : kKeys) {
    int64_t value;
    map.GetInt(key, &value);
  }
  RunGraph(MakeGraph(data[0] % 2 != 0, options));
  return 0;
}
