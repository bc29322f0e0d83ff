// ADD, SUB, NEG, RELU, PRELU, QUANTIZE and DEQUANTIZE, plainly.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mock_runtime.h"

namespace replay {
namespace {

constexpr int kBuiltinDequantize = 6;
constexpr int kBuiltinNeg = 59;
constexpr int kBuiltinQuantize = 114;

std::vector<int> Dims(const TfLiteTensor& tensor) {
  return std::vector<int>(tensor.dims->data, tensor.dims->data + tensor.dims->size);
}

// Whether both shapes broadcast; the result in `dims`.
bool Broadcast(std::vector<int> one, std::vector<int> two, std::vector<int>* dims) {
  if (one.size() < two.size()) one.swap(two);
  two.insert(two.begin(), one.size() - two.size(), 1);
  for (size_t i = 0; i < one.size(); ++i) {
    if (one[i] != two[i] && one[i] != 1 && two[i] != 1) return false;
    dims->push_back(one[i] == 1 ? two[i] : one[i]);
  }
  return true;
}

// The element of `tensor` that belongs to element `flat` of a result with these dimensions.
float Element(const TfLiteTensor& tensor, const std::vector<int>& dims, int64_t flat) {
  int64_t index = 0, step = 1;
  for (int i = static_cast<int>(dims.size()) - 1; i >= 0; --i) {
    const int own = i - static_cast<int>(dims.size()) + tensor.dims->size;
    const int64_t position = flat % dims[i];
    flat /= dims[i];
    if (own < 0) continue;
    if (tensor.dims->data[own] != 1) index += position * step;
    step *= tensor.dims->data[own];
  }
  return static_cast<const float*>(tensor.data)[index];
}

float Activate(float value, int activation) {
  switch (activation) {
    case kTfLiteActRelu: return std::max(0.0f, value);
    case kTfLiteActReluN1To1: return std::min(1.0f, std::max(-1.0f, value));
    case kTfLiteActRelu6: return std::min(6.0f, std::max(0.0f, value));
    default: return value;
  }
}

void Quantize(const TfLiteTensor& x, TfLiteTensor& y) {
  for (size_t i = 0; i < y.bytes; ++i) {
    const float scaled = static_cast<const float*>(x.data)[i] / y.params.scale;
    const float value = std::round(scaled) + static_cast<float>(y.params.zero_point);
    static_cast<int8_t*>(y.data)[i] =
        static_cast<int8_t>(std::min(127.0f, std::max(-128.0f, value)));
  }
}

void Dequantize(const TfLiteTensor& x, TfLiteTensor& y) {
  for (size_t i = 0; i < x.bytes; ++i) {
    const int value = static_cast<const int8_t*>(x.data)[i];
    static_cast<float*>(y.data)[i] =
        static_cast<float>(value - x.params.zero_point) * x.params.scale;
  }
}

}  // namespace

bool PrepareBuiltin(int code, TfLiteContext* context, TfLiteNode* node) {
  if (node->inputs->size < 1 || node->outputs->size != 1) return false;
  const TfLiteTensor& x = context->tensors[node->inputs->data[0]];
  std::vector<int> dims;
  if (code == kTfLiteBuiltinAdd || code == kTfLiteBuiltinSub || code == kTfLiteBuiltinPrelu) {
    if (node->inputs->size != 2) return false;
    if (!Broadcast(Dims(x), Dims(context->tensors[node->inputs->data[1]]), &dims)) return false;
  } else if (code == kTfLiteBuiltinRelu || code == kBuiltinNeg || code == kBuiltinQuantize ||
             code == kBuiltinDequantize) {
    dims = Dims(x);
  } else {
    return false;
  }
  TfLiteTensor* y = &context->tensors[node->outputs->data[0]];
  return context->ResizeTensor(context, y, MakeIntArray(dims)) == kTfLiteOk;
}

bool InvokeBuiltin(int code, TfLiteContext* context, TfLiteNode* node) {
  const TfLiteTensor& x = context->tensors[node->inputs->data[0]];
  TfLiteTensor& y = context->tensors[node->outputs->data[0]];
  if (code == kBuiltinQuantize) {
    Quantize(x, y);
    return true;
  }
  if (code == kBuiltinDequantize) {
    Dequantize(x, y);
    return true;
  }
  const std::vector<int> dims = Dims(y);
  const auto count = static_cast<int64_t>(y.bytes / sizeof(float));
  auto* results = static_cast<float*>(y.data);
  for (int64_t i = 0; i < count; ++i) {
    const float value = Element(x, dims, i);
    if (code == kTfLiteBuiltinRelu || code == kBuiltinNeg) {
      results[i] = code == kBuiltinNeg ? -value : std::max(0.0f, value);
      continue;
    }
    const float other = Element(context->tensors[node->inputs->data[1]], dims, i);
    if (code == kTfLiteBuiltinPrelu) {
      results[i] = value >= 0 ? value : value * other;
    } else {
      const auto* params = static_cast<const TfLiteAddParams*>(node->builtin_data);
      const bool adds = code == kTfLiteBuiltinAdd;
      results[i] = Activate(adds ? value + other : value - other, params->activation);
    }
  }
  return true;
}

}  // namespace replay
