#include "graph.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "flexbuffer.h"

namespace larq_ext {
namespace {

enum class Op { kQuantize, kDequantize, kConv, kPool, kAdd, kShift, kActivation };

Shape ShapeOf(const TfLiteTensor& tensor) {
  if (tensor.dims == nullptr) return {};
  return Shape(tensor.dims->data, tensor.dims->data + tensor.dims->size);
}

bool HasShape(const TfLiteTensor& tensor, const Shape& shape) {
  return tensor.dims != nullptr && static_cast<size_t>(tensor.dims->size) == shape.size() &&
         std::equal(shape.begin(), shape.end(), tensor.dims->data);
}

bool IsConstant(const TfLiteTensor& tensor) {
  return tensor.allocation_type == kTfLiteMmapRo && tensor.data != nullptr;
}

bool IsTensor(const TfLiteContext* context, int index) {
  return index >= 0 && static_cast<size_t>(index) < context->tensors_size;
}

const char* CustomName(const TfLiteRegistration* registration) {
  const bool is_custom =
      registration->builtin_code == kTfLiteBuiltinCustom && registration->custom_name != nullptr;
  return is_custom ? registration->custom_name : "";
}

bool IsBinaryOp(const TfLiteRegistration* registration) {
  const char* name = CustomName(registration);
  return std::strcmp(name, "LceQuantize") == 0 || std::strcmp(name, "LceDequantize") == 0 ||
         std::strcmp(name, "LceBconv2d") == 0 || std::strcmp(name, "LceBMaxPool2d") == 0;
}

// Whether a tensor is a constant with a number for each channel of numbers of shape `of`.
bool IsByChannel(const TfLiteTensor& tensor, const Shape& of) {
  if (tensor.type != kTfLiteFloat32 || !IsConstant(tensor)) return false;
  const Shape shape = ShapeOf(tensor);
  const int channels = of.back();
  return !shape.empty() && shape.size() <= of.size() && shape.back() == channels &&
         NumberOfElements(shape) == channels && tensor.bytes >= sizeof(float) * channels;
}

// Numbers by channel, padded for the kernels. y - x is y + (-x) to the last bit.
std::vector<float> ReadByChannel(const TfLiteTensor& tensor, bool negated) {
  const int channels = ShapeOf(tensor).back();
  const auto* from = static_cast<const float*>(tensor.data);
  std::vector<float> numbers(channels + kChannelPadding, 0.0f);
  std::transform(from, from + channels, numbers.begin(),
                 [=](float number) { return negated ? -number : number; });
  return numbers;
}

bool ReadFusedActivation(int64_t value, Activation* activation) {
  switch (value) {
    case kTfLiteActNone:
      *activation = Activation::kNone;
      return true;
    case kTfLiteActRelu:
      *activation = Activation::kRelu;
      return true;
    case kTfLiteActReluN1To1:
      *activation = Activation::kReluN1To1;
      return true;
    case kTfLiteActRelu6:
      *activation = Activation::kRelu6;
      return true;
  }
  return false;
}

Activation AddActivation(const TfLiteNode* node) {
  Activation activation = Activation::kNone;
  const auto* params = static_cast<const TfLiteAddParams*>(node->builtin_data);
  if (params != nullptr) ReadFusedActivation(params->activation, &activation);
  return activation;
}

size_t SizeOf(TfLiteType type) {
  return type == kTfLiteFloat32 || type == kTfLiteInt32 ? sizeof(float) : 1;
}

bool Holds(const TfLiteTensor& tensor, int64_t numbers) {
  return tensor.data != nullptr && tensor.bytes / 4 >= static_cast<size_t>(numbers);
}

}  // namespace

// An operator as the model has it.
struct Graph::Node {
  Op op = Op::kQuantize;
  std::vector<int> inputs;
  int output = -1;
  std::string name;
  Activation activation = Activation::kNone;  // fused into an ADD, or a RELU
  int by_channel = -1;                        // slopes of a PReLU, or what is added (SUB: taken)
  bool negated = false;                       // a SUB
  Step step;                                  // options of pooling and convolution
  bool done = false;                          // part of an earlier step
};

bool IsWanted(const TfLiteContext* context, const TfLiteNode* node,
              const TfLiteRegistration* registration, const std::set<int>& from_binary) {
  if (IsBinaryOp(registration)) return true;
  const int code = registration->builtin_code;
  if (code != kTfLiteBuiltinAdd && code != kTfLiteBuiltinSub && code != kTfLiteBuiltinRelu &&
      code != kTfLiteBuiltinPrelu) {
    return false;
  }
  const size_t inputs = code == kTfLiteBuiltinRelu ? 1 : 2;
  if (static_cast<size_t>(node->inputs->size) != inputs || node->outputs->size != 1) return false;
  bool follows = false;
  for (size_t i = 0; i < inputs; ++i) {
    const int index = node->inputs->data[i];
    if (!IsTensor(context, index)) return false;
    follows |= from_binary.count(index) != 0;
    if (context->tensors[index].type != kTfLiteFloat32) return false;
  }
  if (!IsTensor(context, node->outputs->data[0])) return false;
  const TfLiteTensor& x = context->tensors[node->inputs->data[0]];
  const TfLiteTensor& output = context->tensors[node->outputs->data[0]];
  const Shape shape = ShapeOf(x);
  if (!follows || output.type != kTfLiteFloat32 || shape.empty() || IsConstant(x) ||
      NumberOfElements(shape) < 1 || ShapeOf(output) != shape) {
    return false;
  }
  if (code == kTfLiteBuiltinRelu) return true;
  const TfLiteTensor& y = context->tensors[node->inputs->data[1]];
  if (code == kTfLiteBuiltinAdd && !IsConstant(y)) {
    return ShapeOf(y) == shape && node->inputs->data[0] != node->inputs->data[1];
  }
  return IsByChannel(y, shape);
}

std::string Graph::ReadConv(TfLiteContext* context, const TfLiteNode& raw, Node* node) const {
  const FlexMap map(raw.custom_initial_data, std::max(0, raw.custom_initial_data_size));
  const char* keys[] = {"stride_height", "stride_width", "dilation_height_factor",
                        "dilation_width_factor", "padding", "pad_values", "channels_in",
                        "fused_activation_function"};
  int64_t values[8];
  for (int i = 0; i < 8; ++i) {
    if (!map.GetInt(keys[i], &values[i]) || values[i] < 0 || values[i] > INT32_MAX) {
      return std::string("the option ") + keys[i] + " is missing or no number in range";
    }
  }
  BConv::Options options;
  options.stride_height = static_cast<int>(values[0]);
  options.stride_width = static_cast<int>(values[1]);
  options.dilation_height = static_cast<int>(values[2]);
  options.dilation_width = static_cast<int>(values[3]);
  options.channels_in = static_cast<int>(values[6]);
  if (values[4] > 1) return "padding must be 0 (SAME) or 1 (VALID)";
  if (values[5] > 1) return "pad_values must be 0 or 1";
  options.same = values[4] == 0;
  options.zero_padding = values[5] == 0;
  if (!ReadFusedActivation(values[7], &options.activation)) {
    return "fused_activation_function must be none, ReLU, ReLU6 or ReLU-1-to-1";
  }

  if (node->inputs.size() != 5) return "it must have 5 inputs";
  const TfLiteTensor& input = context->tensors[node->inputs[0]];
  const TfLiteTensor& output = context->tensors[node->output];
  if (input.type != kTfLiteInt32) return "its input must be bit-packed (int32)";
  if (!IsTensor(context, node->inputs[1])) return "it has no filter";
  const TfLiteTensor& filter = context->tensors[node->inputs[1]];
  if (filter.type != kTfLiteInt32 || !IsConstant(filter)) {
    return "its filter must be a constant of type int32";
  }
  BConv::Constants constants;
  constants.filter = static_cast<const uint32_t*>(filter.data);
  constants.filter_shape = ShapeOf(filter);
  const Shape& shape = constants.filter_shape;
  if (shape.size() != 4 || *std::min_element(shape.begin(), shape.end()) < 1) {
    return "its filter must have four dimensions of at least 1";
  }
  double words = 1;
  for (int size : shape) words *= size;
  if (words > static_cast<double>(filter.bytes / 4)) return "its filter is not complete";

  Step& step = node->step;
  const bool is_bits = output.type == kTfLiteInt32;
  if (!is_bits && output.type != kTfLiteInt8 && output.type != kTfLiteFloat32) {
    return "its output must be float32, int8 or bit-packed (int32)";
  }
  step.conv_output = is_bits                     ? Output::kBits
                     : output.type == kTfLiteInt8 ? Output::kInt8
                                                  : Output::kFloat;
  for (int i = is_bits ? 4 : 2; i < (is_bits ? 5 : 4); ++i) {
    if (!IsTensor(context, node->inputs[i])) return "it lacks multiplier, bias or thresholds";
    const TfLiteTensor& tensor = context->tensors[node->inputs[i]];
    if (tensor.type != (is_bits ? kTfLiteInt32 : kTfLiteFloat32) || !IsConstant(tensor) ||
        ShapeOf(tensor) != Shape{shape[0]} || !Holds(tensor, shape[0])) {
      return "multiplier, bias or thresholds do not have one number for each output channel";
    }
    if (i == 2) constants.multiplier = static_cast<const float*>(tensor.data);
    if (i == 3) constants.bias = static_cast<const float*>(tensor.data);
    if (i == 4) constants.thresholds = static_cast<const int32_t*>(tensor.data);
  }
  float scale = output.params.scale;
  if (step.conv_output == Output::kInt8 && !(scale > 0)) return "its int8 output has no scale";
  step.conv = std::make_unique<BConv>();
  return step.conv->Configure(kernel_, options, constants, step.conv_output, scale,
                              output.params.zero_point);
}

std::string Graph::ReadNode(TfLiteContext* context, int index, Node* node) const {
  TfLiteNode* raw;
  TfLiteRegistration* registration;
  if (context->GetNodeAndRegistration(context, index, &raw, &registration) != kTfLiteOk) {
    return "the runtime does not know a node of the partition";
  }
  node->inputs.assign(raw->inputs->data, raw->inputs->data + raw->inputs->size);
  const std::string name = CustomName(registration);
  const size_t inputs = name == "LceBconv2d" ? 5 : node->inputs.size();
  if (raw->outputs->size != 1 || node->inputs.empty() || inputs != node->inputs.size() ||
      !IsTensor(context, node->inputs[0]) || !IsTensor(context, raw->outputs->data[0])) {
    return name + ": wrong number of inputs or outputs";
  }
  node->output = raw->outputs->data[0];
  const TfLiteTensor& input = context->tensors[node->inputs[0]];
  const TfLiteTensor& output = context->tensors[node->output];
  Step& step = node->step;
  node->name = name;
  // The runtime would resize it without a word, and its memory may be that of the file.
  if (IsConstant(output)) return name + ": its output is a constant";

  const bool is_sub = registration->builtin_code == kTfLiteBuiltinSub;
  if (registration->builtin_code == kTfLiteBuiltinAdd || is_sub) {
    node->op = Op::kAdd;
    node->name = is_sub ? "SUB" : "ADD";
    node->activation = AddActivation(raw);
    if (IsConstant(context->tensors[node->inputs[1]])) {
      node->op = Op::kShift;
      node->negated = is_sub;
      node->by_channel = node->inputs[1];
      node->inputs.resize(1);
    }
    return "";
  }
  if (registration->builtin_code == kTfLiteBuiltinRelu) {
    node->op = Op::kActivation;
    node->name = "RELU";
    node->activation = Activation::kRelu;
    return "";
  }
  if (registration->builtin_code == kTfLiteBuiltinPrelu) {
    node->op = Op::kActivation;
    node->name = "PRELU";
    node->activation = Activation::kPrelu;
    node->by_channel = node->inputs[1];
    node->inputs.resize(1);
    return "";
  }
  if (name == "LceQuantize") {
    node->op = Op::kQuantize;
    if (node->inputs.size() != 1 || output.type != kTfLiteInt32 ||
        (input.type != kTfLiteFloat32 && input.type != kTfLiteInt8 && input.type != kTfLiteBool)) {
      return name + ": it takes float32, int8 or bool and gives int32";
    }
    // Of booleans (bytes of 0 and 1) false stands for -1.
    step.zero_point = input.type == kTfLiteBool ? 1 : input.params.zero_point;
    step.source_kind =
        input.type == kTfLiteFloat32 ? BConv::Source::kFloat : BConv::Source::kInt8;
    return "";
  }
  if (name == "LceDequantize") {
    node->op = Op::kDequantize;
    if (node->inputs.size() != 1 || input.type != kTfLiteInt32 ||
        (output.type != kTfLiteFloat32 && output.type != kTfLiteInt8 &&
         output.type != kTfLiteBool)) {
      return name + ": it takes int32 and gives float32, int8 or bool";
    }
    return "";
  }
  if (name == "LceBMaxPool2d") {
    node->op = Op::kPool;
    const FlexMap map(raw->custom_initial_data, std::max(0, raw->custom_initial_data_size));
    const char* keys[] = {"filter_height", "filter_width", "stride_height", "stride_width"};
    int* fields[] = {&step.filter_height, &step.filter_width, &step.stride_height,
                     &step.stride_width};
    int64_t value;
    for (int i = 0; i < 4; ++i) {
      if (!map.GetInt(keys[i], &value) || value < 1 || value > INT32_MAX / 4) {
        return name + ": the option " + keys[i] + " is missing or no number in range";
      }
      *fields[i] = static_cast<int>(value);
    }
    if (!map.GetInt("padding", &value) || value < 0 || value > 1) {
      return name + ": padding must be 0 (SAME) or 1 (VALID)";
    }
    step.same = value == 0;
    if (node->inputs.size() != 1 || input.type != kTfLiteInt32 || output.type != kTfLiteInt32) {
      return name + ": input and output must be bit-packed (int32)";
    }
    return "";
  }
  node->op = Op::kConv;
  const std::string error = ReadConv(context, *raw, node);
  return error.empty() ? "" : name + ": " + error;
}

bool Graph::Take(TfLiteContext* context, const Node& node, int source, Step* step,
                 Place* place) const {
  const auto numbers = [&] {
    if (node.by_channel < 0) return std::vector<float>();
    return ReadByChannel(context->tensors[node.by_channel], node.negated);
  };
  if (node.op == Op::kActivation) {
    if (*place > Place::kSecond) return false;
    const bool is_first = *place == Place::kFirst;
    (is_first ? step->first : step->second) = {node.activation, numbers()};
    *place = is_first ? Place::kResidual : Place::kBehind;
    return true;
  }
  const bool activates = node.activation != Activation::kNone;
  if (node.op == Op::kAdd && *place <= Place::kResidual) {
    step->residual = node.inputs[node.inputs[0] == source ? 1 : 0];
    *place = Place::kBefore;
  } else if (node.op == Op::kShift && *place <= Place::kBefore) {
    step->before = numbers();
    *place = Place::kSecond;
  } else if (node.op == Op::kShift && *place <= Place::kBehind && !activates) {
    step->behind = numbers();
    *place = Place::kFull;
  } else {
    return false;
  }
  if (activates) {
    step->second.activation = node.activation;
    *place = Place::kBehind;
  }
  return true;
}

// Follows the values of `step` as long as exactly one operator waits for them and has its place.
int Graph::Join(TfLiteContext* context, std::vector<Node>* nodes, int last, Place place,
                Step* step) const {
  while (true) {
    const auto users = users_.find(step->values);
    if (external_.count(step->values) != 0 || users == users_.end() || users->second.size() != 1) {
      return last;
    }
    const int index = users->second.front();
    Node& next = (*nodes)[index];
    if (index <= last || next.done || !Take(context, next, step->values, step, &place)) {
      return last;
    }
    next.done = true;
    step->name += "+" + next.name;
    step->values = next.output;
    last = index;
  }
}

// A packing of numbers is left to the step that makes the numbers, or else to the convolution that
// reads the bits.
void Graph::JoinPacking(std::vector<Node>* nodes) {
  for (Step& pack : steps_) {
    if (pack.kind != Kind::kPack || external_.count(pack.output) != 0) continue;
    Step* producer = nullptr;
    for (Step& step : steps_) {
      if (step.values == pack.source && step.values >= 0 && step.bits < 0) producer = &step;
    }
    const auto users = users_.find(pack.output);
    const size_t count = users == users_.end() ? 0 : users->second.size();
    if (producer != nullptr) {
      producer->bits = pack.output;
      producer->name += "+LceQuantize";
      pack.source = -1;
    } else if (count == 1 && (*nodes)[users->second.front()].op == Op::kConv) {
      for (Step& step : steps_) {
        if (step.kind != Kind::kConv || step.source != pack.output) continue;
        step.source = pack.source;
        step.source_kind = pack.source_kind;
        step.zero_point = pack.zero_point;
        step.name = "LceQuantize+" + step.name;
        pack.source = -1;
      }
    }
  }
}

// A step that only adds constants to numbers for the sake of their signs is left to the step that
// makes the numbers.
void Graph::JoinThresholds() {
  for (Step& step : steps_) {
    if (step.kind != Kind::kFinish || step.bits < 0 || step.values >= 0 || step.residual >= 0 ||
        step.first.activation != Activation::kNone || step.before.empty() ||
        step.second.activation != Activation::kNone || !step.behind.empty()) {
      continue;
    }
    for (Step& producer : steps_) {
      if (producer.values != step.source || producer.bits >= 0) continue;
      producer.bits = step.bits;
      producer.threshold = std::move(step.before);
      producer.name += "+" + step.name;
      step.source = -1;
      break;
    }
  }
}

void Graph::Sweep() {
  steps_.erase(std::remove_if(steps_.begin(), steps_.end(),
                              [](const Step& step) { return step.source < 0; }),
               steps_.end());
  std::set<int> read(external_.begin(), external_.end());
  for (const Step& step : steps_) {
    for (int tensor : Inputs(step)) read.insert(tensor);
  }
  for (Step& step : steps_) {
    if (step.bits >= 0 && read.count(step.values) == 0) step.values = -1;
  }
}

std::string Graph::Build(TfLiteContext* context, const TfLiteIntArray* indices,
                         const TfLiteIntArray* outputs) {
  external_.insert(outputs->data, outputs->data + outputs->size);
  std::vector<Node> nodes(indices->size);
  std::set<int> written, read;
  for (int i = 0; i < indices->size; ++i) {
    const std::string error = ReadNode(context, indices->data[i], &nodes[i]);
    if (!error.empty()) return error;
    for (int tensor : nodes[i].inputs) users_[tensor].push_back(i);
    // Everything that follows takes for granted that a tensor has one value.
    read.insert(nodes[i].inputs.begin(), nodes[i].inputs.end());
    if (read.count(nodes[i].output) != 0 || !written.insert(nodes[i].output).second) {
      return nodes[i].name + ": its output is also written or read before it";
    }
  }
  // A step runs where its last operator stood, because only there all its inputs are known.
  std::vector<std::vector<Step>> ending(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    Node& node = nodes[i];
    if (!node.done) {
      Step step = std::move(node.step);
      step.name = node.name;
      step.source = node.inputs[0];
      int last = static_cast<int>(i);
      Place place = Place::kFirst;
      switch (node.op) {
        case Op::kQuantize:
          step.kind = Kind::kPack;
          step.output = node.output;
          break;
        case Op::kDequantize:
          step.kind = Kind::kUnpack;
          step.output = node.output;
          break;
        case Op::kPool:
          step.kind = Kind::kPool;
          step.output = node.output;
          break;
        case Op::kConv:
          step.kind = Kind::kConv;
          if (step.conv_output == Output::kFloat) {
            step.values = node.output;
            last = Join(context, &nodes, last, place, &step);
          } else {
            step.output = node.output;
          }
          break;
        case Op::kAdd:
        case Op::kShift:
        case Op::kActivation:
          step.kind = Kind::kFinish;
          Take(context, node, step.source, &step, &place);
          step.values = node.output;
          last = Join(context, &nodes, last, place, &step);
          break;
      }
      ending[last].push_back(std::move(step));
    }
    for (Step& step : ending[i]) steps_.push_back(std::move(step));
  }
  JoinPacking(&nodes);
  Sweep();
  JoinThresholds();
  Sweep();
  for (const Step& step : steps_) {
    for (int tensor : Inputs(step)) types_[tensor] = context->tensors[tensor].type;
    for (int tensor : Outputs(step)) types_[tensor] = context->tensors[tensor].type;
  }
  return "";
}

std::vector<int> Graph::Inputs(const Step& step) const {
  std::vector<int> tensors = {step.source};
  if (step.residual >= 0) tensors.push_back(step.residual);
  return tensors;
}

std::vector<int> Graph::Outputs(const Step& step) const {
  std::vector<int> tensors;
  for (int tensor : {step.output, step.values, step.bits}) {
    if (tensor >= 0) tensors.push_back(tensor);
  }
  return tensors;
}

std::string Graph::InferShapes(TfLiteContext* context) {
  shapes_.clear();
  input_shapes_.clear();
  const auto shape_of = [&](int tensor) {
    const auto found = shapes_.find(tensor);
    if (found != shapes_.end()) return found->second;
    return input_shapes_[tensor] = ShapeOf(context->tensors[tensor]);
  };
  const auto packed = [](Shape shape) {
    shape.back() = (shape.back() + 31) / 32;
    return shape;
  };
  for (Step& step : steps_) {
    const Shape input = shape_of(step.source);
    if (input.empty() || *std::min_element(input.begin(), input.end()) < 1) {
      return step.name + ": the input has no elements";
    }
    double elements = 1;
    for (int size : input) elements *= size;
    if (elements > static_cast<double>(INT32_MAX)) return step.name + ": the input is too large";
    Shape numbers;
    switch (step.kind) {
      case Kind::kPack:
        shapes_[step.output] = packed(input);
        break;
      case Kind::kUnpack: {
        Shape shape = ShapeOf(context->tensors[step.output]);
        if (shape.size() != input.size() || shape.back() < 1 ||
            (shape.back() + 31) / 32 != input.back()) {
          return step.name + ": the channels of input and output do not fit";
        }
        std::copy(input.begin(), input.end() - 1, shape.begin());
        shapes_[step.output] = shape;
        break;
      }
      case Kind::kPool: {
        if (input.size() != 4) return step.name + ": the input must have four dimensions";
        const Window rows =
            SlideWindow(input[1], step.filter_height, step.stride_height, 1, step.same);
        const Window columns =
            SlideWindow(input[2], step.filter_width, step.stride_width, 1, step.same);
        if (rows.output == 0 || columns.output == 0) {
          return step.name + ": filter or stride do not fit the input";
        }
        shapes_[step.output] = {input[0], rows.output, columns.output, input[3]};
        break;
      }
      case Kind::kConv: {
        Shape bits = input;
        if (step.source_kind != BConv::Source::kBits) {
          if (input.back() != step.conv->channels_in()) {
            return step.name + ": the input has " + std::to_string(input.back()) +
                   " channels, but channels_in is " + std::to_string(step.conv->channels_in());
          }
          bits = packed(input);
        }
        const std::string error = step.conv->Reshape(bits, &scratch_);
        if (!error.empty()) return step.name + ": " + error;
        numbers = step.conv->output_shape();
        break;
      }
      case Kind::kFinish:
        numbers = input;
        break;
    }
    if (numbers.empty()) continue;
    if (step.residual >= 0 && shape_of(step.residual) != numbers) {
      return step.name + ": the shapes of a sum differ";
    }
    for (const std::vector<float>* by_channel :
         {&step.first.slope, &step.before, &step.second.slope, &step.behind, &step.threshold}) {
      if (!by_channel->empty() &&
          by_channel->size() != static_cast<size_t>(numbers.back()) + kChannelPadding) {
        return step.name + ": a PRELU or ADD does not have one number for each channel";
      }
    }
    if (step.values >= 0) shapes_[step.values] = numbers;
    if (step.bits >= 0) shapes_[step.bits] = packed(numbers);
    if (step.output >= 0) {
      shapes_[step.output] = step.conv_output == Output::kBits ? packed(numbers) : numbers;
    }
  }
  return "";
}

// Places the tensors between steps in one piece of memory, where those that are not needed at the
// same time share their place: what was just written is then read from the cache.
void Graph::PlaceBuffers(TfLiteContext* context) {
  constexpr size_t kAlignment = 64;
  buffers_.clear();
  std::vector<int> order;
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (int tensor : Inputs(steps_[i])) {
      const auto found = buffers_.find(tensor);
      if (found != buffers_.end()) found->second.last_step = static_cast<int>(i);
    }
    for (int tensor : Outputs(steps_[i])) {
      if (external_.count(tensor) != 0) continue;
      const TfLiteType type = context->tensors[tensor].type;
      const size_t size = type == kTfLiteInt8 || type == kTfLiteBool ? 1 : 4;
      Buffer buffer;
      buffer.bytes =
          (NumberOfElements(shapes_[tensor]) * size + kAlignment - 1) / kAlignment * kAlignment;
      buffer.first_step = buffer.last_step = static_cast<int>(i);
      buffers_[tensor] = buffer;
      order.push_back(tensor);
    }
  }
  size_t total = 0;
  std::vector<const Buffer*> placed;
  for (int tensor : order) {
    Buffer& buffer = buffers_[tensor];
    // Each value of a sum is written where its summand was read, by the same thread, just after.
    const Step& producer = steps_[buffer.first_step];
    if (producer.values == tensor && producer.residual >= 0) {
      const auto residual = buffers_.find(producer.residual);
      if (residual != buffers_.end() && residual->second.last_step == buffer.first_step &&
          residual->second.bytes == buffer.bytes) {
        buffer.offset = residual->second.offset;
        placed.push_back(&buffer);
        continue;
      }
    }
    bool moved = true;
    while (moved) {
      moved = false;
      for (const Buffer* other : placed) {
        const bool together =
            other->last_step >= buffer.first_step && other->first_step <= buffer.last_step;
        const bool overlap = other->offset < buffer.offset + buffer.bytes &&
                             buffer.offset < other->offset + other->bytes;
        if (together && overlap) {
          buffer.offset = other->offset + other->bytes;
          moved = true;
        }
      }
    }
    placed.push_back(&buffer);
    total = std::max(total, buffer.offset + buffer.bytes);
  }
  for (const Buffer* buffer : placed) total = std::max(total, buffer->offset + buffer->bytes);
  arena_.resize(total + kAlignment);
}

std::string Graph::Prepare(TfLiteContext* context) {
  const std::string error = InferShapes(context);
  if (!error.empty()) return error;
  for (int tensor : external_) {
    const auto found = shapes_.find(tensor);
    if (found == shapes_.end()) return "an output of the partition is never written";
    const Shape& shape = found->second;
    // The runtime takes the array over and releases it with free().
    auto* dims = static_cast<TfLiteIntArray*>(
        std::malloc(sizeof(TfLiteIntArray) + shape.size() * sizeof(int)));
    if (dims == nullptr) return "out of memory";
    dims->size = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), dims->data);
    if (context->ResizeTensor(context, &context->tensors[tensor], dims) != kTfLiteOk) {
      return "the runtime cannot resize an output";
    }
  }
  PlaceBuffers(context);
  return "";
}

void* Graph::Data(TfLiteContext* context, int tensor) {
  if (tensor < 0) return nullptr;
  const auto found = buffers_.find(tensor);
  if (found == buffers_.end()) return context->tensors[tensor].data;
  constexpr uintptr_t kAlignment = 64;
  const uintptr_t start = reinterpret_cast<uintptr_t>(arena_.data());
  return reinterpret_cast<uint8_t*>((start + kAlignment - 1) / kAlignment * kAlignment) +
         found->second.offset;
}

Finish Graph::FinishOf(TfLiteContext* context, const Step& step) {
  Finish finish;
  finish.first = step.first.activation;
  finish.first_slope = step.first.slope.data();
  finish.second = step.second.activation;
  finish.second_slope = step.second.slope.data();
  if (!step.before.empty()) finish.before = step.before.data();
  if (!step.behind.empty()) finish.behind = step.behind.data();
  if (!step.threshold.empty()) finish.threshold = step.threshold.data();
  finish.residual = static_cast<const float*>(Data(context, step.residual));
  finish.values = static_cast<float*>(Data(context, step.values));
  finish.bits = static_cast<uint32_t*>(Data(context, step.bits));
  return finish;
}

namespace {

// Rows of a tensor, in pieces that are worth a thread's attention.
template <class Function>
void ForRows(ThreadPool* pool, int64_t rows, int64_t bytes_of_row, const Function& function) {
  const int64_t piece = std::max<int64_t>(1, (32 << 10) / std::max<int64_t>(1, bytes_of_row));
  if (pool->threads() == 1) return function(0, rows);
  pool->ForEach((rows + piece - 1) / piece, [&](int64_t item) {
    function(item * piece, std::min(rows, (item + 1) * piece));
  });
}

template <class Number>
void Unpack(const uint32_t* bits, int64_t rows, int channels, Number zero, Number one,
            Number* to) {
  for (int64_t row = 0; row < rows; ++row, bits += (channels + 31) / 32) {
    for (int channel = 0; channel < channels; ++channel) {
      *to++ = bits[channel / 32] >> (channel % 32) & 1 ? one : zero;
    }
  }
}

// The largest of numbers that are -1 (bit set) or +1: +1 unless all bits are set.
void MaxPool(const uint32_t* input, const Shape& in, const Shape& out, const Window& rows,
             const Window& columns, int filter_height, int filter_width, int stride_height,
             int stride_width, uint32_t* output) {
  const int words = in[3];
  for (int64_t i = 0; i < int64_t{out[0]} * out[1] * out[2]; ++i, output += words) {
    const int x = static_cast<int>(i % out[2]) * stride_width - columns.before;
    const int y = static_cast<int>(i / out[2] % out[1]) * stride_height - rows.before;
    const int64_t image = i / out[2] / out[1];
    std::fill_n(output, words, ~uint32_t{0});
    for (int row = std::max(0, y); row < std::min(in[1], y + filter_height); ++row) {
      for (int column = std::max(0, x); column < std::min(in[2], x + filter_width); ++column) {
        const uint32_t* from = input + ((image * in[1] + row) * in[2] + column) * words;
        for (int word = 0; word < words; ++word) output[word] &= from[word];
      }
    }
  }
}

}  // namespace

void Graph::RunStep(TfLiteContext* context, Step* step) {
  const void* source = Data(context, step->source);
  void* output = Data(context, step->output);
  const auto known = shapes_.find(step->source);
  const Shape& input = known != shapes_.end() ? known->second : input_shapes_[step->source];
  const int channels = input.back();
  const int64_t rows = NumberOfElements(input) / channels;
  switch (step->kind) {
    case Kind::kPack: {
      auto* bits = static_cast<uint32_t*>(output);
      const int words = (channels + 31) / 32;
      ForRows(pool_, rows, channels * int64_t{4}, [&](int64_t begin, int64_t end) {
        if (step->source_kind == BConv::Source::kFloat) {
          kernel_->pack_float(static_cast<const float*>(source) + begin * channels, end - begin,
                              channels, bits + begin * words);
        } else {
          kernel_->pack_int8(static_cast<const int8_t*>(source) + begin * channels, end - begin,
                             channels, step->zero_point, bits + begin * words);
        }
      });
      break;
    }
    case Kind::kUnpack: {
      const auto* bits = static_cast<const uint32_t*>(source);
      const int unpacked = shapes_[step->output].back();
      const TfLiteTensor& tensor = context->tensors[step->output];
      if (tensor.type == kTfLiteFloat32) {
        Unpack(bits, rows, unpacked, 1.0f, -1.0f, static_cast<float*>(output));
      } else if (tensor.type == kTfLiteBool) {
        Unpack<uint8_t>(bits, rows, unpacked, 1, 0, static_cast<uint8_t*>(output));
      } else {
        const float steps = 1.0f / tensor.params.scale;
        const int zero_point = tensor.params.zero_point;
        const int one = steps < 256.0f ? static_cast<int>(std::round(steps)) : 256;
        Unpack(bits, rows, unpacked, static_cast<int8_t>(std::clamp(zero_point + one, -128, 127)),
               static_cast<int8_t>(std::clamp(zero_point - one, -128, 127)),
               static_cast<int8_t*>(output));
      }
      break;
    }
    case Kind::kPool:
      MaxPool(static_cast<const uint32_t*>(source), input, shapes_[step->output],
              SlideWindow(input[1], step->filter_height, step->stride_height, 1, step->same),
              SlideWindow(input[2], step->filter_width, step->stride_width, 1, step->same),
              step->filter_height, step->filter_width, step->stride_height, step->stride_width,
              static_cast<uint32_t*>(output));
      break;
    case Kind::kConv: {
      OutputTransform outputs;
      outputs.finish = FinishOf(context, *step);
      outputs.int8 = step->conv_output == Output::kInt8 ? static_cast<int8_t*>(output) : nullptr;
      outputs.bits = step->conv_output == Output::kBits ? static_cast<uint32_t*>(output) : nullptr;
      step->conv->Run(source, step->source_kind, step->zero_point, outputs, &scratch_, pool_);
      break;
    }
    case Kind::kFinish: {
      const Finish all = FinishOf(context, *step);
      const int words = (channels + 31) / 32;
      ForRows(pool_, rows, channels * int64_t{4}, [&](int64_t begin, int64_t end) {
        Finish finish = all;
        if (finish.residual != nullptr) finish.residual += begin * channels;
        if (finish.values != nullptr) finish.values += begin * channels;
        if (finish.bits != nullptr) finish.bits += begin * words;
        kernel_->finish(static_cast<const float*>(source) + begin * channels, end - begin,
                        channels, finish);
      });
      break;
    }
  }
}

// Other operators of the model may write the same tensors and resize them, or change their types:
// the runtime allows it, and allocates what the last one asked for.
bool Graph::IsAsPrepared(const TfLiteContext* context, int index, const Shape& shape) const {
  const TfLiteTensor& tensor = context->tensors[index];
  return tensor.data != nullptr && HasShape(tensor, shape) && tensor.type == types_.at(index) &&
         tensor.bytes / SizeOf(tensor.type) >= static_cast<size_t>(NumberOfElements(shape));
}

std::string Graph::Invoke(TfLiteContext* context, std::vector<int64_t>* nanoseconds) {
  using Clock = std::chrono::steady_clock;
  for (const auto& input : input_shapes_) {
    if (!IsAsPrepared(context, input.first, input.second)) {
      return "an input has no data, or another shape or type than when tensors were allocated";
    }
  }
  for (int tensor : external_) {
    if (!IsAsPrepared(context, tensor, shapes_.at(tensor))) {
      return "an output has no memory, or another shape or type than when tensors were allocated";
    }
  }
  Clock::time_point start = nanoseconds == nullptr ? Clock::time_point() : Clock::now();
  for (size_t i = 0; i < steps_.size(); ++i) {
    RunStep(context, &steps_[i]);
    if (nanoseconds == nullptr) continue;
    const Clock::time_point now = Clock::now();
    (*nanoseconds)[i] +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(now - start).count();
    start = now;
  }
  return "";
}

std::vector<Graph::StepInfo> Graph::steps() const {
  std::vector<StepInfo> infos;
  for (const Step& step : steps_) {
    const int tensor = Outputs(step).empty() ? -1 : Outputs(step).front();
    const auto shape = shapes_.find(tensor);
    infos.push_back({step.name, std::to_string(tensor),
                     shape == shapes_.end() ? Shape{} : shape->second,
                     step.conv ? step.conv->multiply_adds() : 0});
  }
  return infos;
}

}  // namespace larq_ext
