// The part of TensorFlow Lite's C interface that a delegate sees.
//
// These are interface facts (names, order and types of fields), declared here so that the library
// needs no header and no symbol of TensorFlow. The runtime calls this library through function
// pointers with these structs, so their layout must match: the checks at the end fail the build
// where it would not. The runtime only ever appends fields, so what is declared here stays valid.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

enum TfLiteStatus : int32_t { kTfLiteOk = 0, kTfLiteError = 1 };

enum TfLiteType : int32_t {
  kTfLiteNoType = 0,
  kTfLiteFloat32 = 1,
  kTfLiteInt32 = 2,
  kTfLiteBool = 6,
  kTfLiteInt8 = 9,
};

enum TfLiteAllocationType : int32_t {
  kTfLiteMemNone = 0,
  kTfLiteMmapRo,
  kTfLiteArenaRw,
  kTfLiteArenaRwPersistent,
  kTfLiteDynamic,
  kTfLitePersistentRo,
  kTfLiteCustom,
};

enum { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };

// Values of the flatbuffer schema's BuiltinOperator.
enum {
  kTfLiteBuiltinAdd = 0,
  kTfLiteBuiltinRelu = 19,
  kTfLiteBuiltinCustom = 32,
  kTfLiteBuiltinSub = 41,
  kTfLiteBuiltinPrelu = 54,
};

enum TfLiteFusedActivation : int32_t {
  kTfLiteActNone = 0,
  kTfLiteActRelu = 1,
  kTfLiteActReluN1To1 = 2,
  kTfLiteActRelu6 = 3,
};

enum TfLiteQuantizationType : int32_t { kTfLiteNoQuantization = 0, kTfLiteAffineQuantization = 1 };

struct TfLiteContext;
struct TfLiteDelegate;

// The runtime's arrays: `size` is followed by the elements.
struct TfLiteIntArray {
  int size;
#if defined(__clang__) || defined(__GNUC__)
  int data[];
#else
  int data[1];
#endif
};

struct TfLiteQuantizationParams {
  float scale;
  int32_t zero_point;
};

struct TfLiteQuantization {
  TfLiteQuantizationType type;
  void* params;
};

struct TfLiteTensor {
  TfLiteType type;
  void* data;
  TfLiteIntArray* dims;
  TfLiteQuantizationParams params;
  TfLiteAllocationType allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  TfLiteDelegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  TfLiteQuantization quantization;
  void* sparsity;
  const TfLiteIntArray* dims_signature;
};

struct TfLiteNode {
  TfLiteIntArray* inputs;
  TfLiteIntArray* outputs;
  TfLiteIntArray* intermediates;
  TfLiteIntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  TfLiteDelegate* delegate;
  bool might_have_side_effect;
};

// Options of the built-in operators that the library reads; a SUB has those of an ADD.
struct TfLiteAddParams {
  TfLiteFusedActivation activation;
  bool pot_scale_int16;
};

struct TfLiteDelegateParams {
  TfLiteDelegate* delegate;
  TfLiteIntArray* nodes_to_replace;
  TfLiteIntArray* input_tensors;
  TfLiteIntArray* output_tensors;
};

struct TfLiteRegistration {
  void* (*init)(TfLiteContext* context, const char* buffer, size_t length);
  void (*free)(TfLiteContext* context, void* buffer);
  TfLiteStatus (*prepare)(TfLiteContext* context, TfLiteNode* node);
  TfLiteStatus (*invoke)(TfLiteContext* context, TfLiteNode* node);
  const char* (*profiling_string)(const TfLiteContext* context, const TfLiteNode* node);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* (*async_kernel)(TfLiteContext* context, TfLiteNode* node);
  uint64_t inplace_operator;
};

struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext* context, TfLiteIntArray** execution_plan);
  TfLiteTensor* tensors;
  void* impl_;
  // Takes ownership of `new_size`, which it releases with `free`.
  TfLiteStatus (*ResizeTensor)(TfLiteContext*, TfLiteTensor* tensor, TfLiteIntArray* new_size);
  void (*ReportError)(TfLiteContext*, const char* format, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext*, int tensors_to_add, int* first_new_tensor_index);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext*, int node_index, TfLiteNode** node,
                                         TfLiteRegistration** registration);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext*,
                                                        TfLiteRegistration registration,
                                                        const TfLiteIntArray* nodes_to_replace,
                                                        TfLiteDelegate* delegate);
  int recommended_num_threads;
  // Fields that follow are not used.
};

struct TfLiteDelegate {
  void* data_;
  TfLiteStatus (*Prepare)(TfLiteContext* context, TfLiteDelegate* delegate);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext* context, TfLiteDelegate* delegate,
                                       int buffer_handle, TfLiteTensor* tensor);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext* context, TfLiteDelegate* delegate,
                                     int buffer_handle, TfLiteTensor* tensor);
  void (*FreeBufferHandle)(TfLiteContext* context, TfLiteDelegate* delegate, int* handle);
  int64_t flags;
  void* opaque_delegate_builder;
};

}  // extern "C"

#define LARQ_EXT_LAYOUT(type, field, offset64)                                  \
  static_assert(sizeof(void*) != 8 || offsetof(type, field) == (offset64), \
                #type "." #field " is not where TensorFlow Lite has it")

LARQ_EXT_LAYOUT(TfLiteTensor, data, 8);
LARQ_EXT_LAYOUT(TfLiteTensor, dims, 16);
LARQ_EXT_LAYOUT(TfLiteTensor, params, 24);
LARQ_EXT_LAYOUT(TfLiteTensor, allocation_type, 32);
LARQ_EXT_LAYOUT(TfLiteTensor, bytes, 40);
LARQ_EXT_LAYOUT(TfLiteTensor, name, 56);
LARQ_EXT_LAYOUT(TfLiteTensor, is_variable, 77);
LARQ_EXT_LAYOUT(TfLiteTensor, quantization, 80);
LARQ_EXT_LAYOUT(TfLiteTensor, dims_signature, 104);
static_assert(sizeof(void*) != 8 || sizeof(TfLiteTensor) == 112,
              "TensorFlow Lite's tensors lie 112 bytes apart");
LARQ_EXT_LAYOUT(TfLiteNode, user_data, 32);
LARQ_EXT_LAYOUT(TfLiteNode, builtin_data, 40);
LARQ_EXT_LAYOUT(TfLiteNode, custom_initial_data, 48);
LARQ_EXT_LAYOUT(TfLiteNode, custom_initial_data_size, 56);
LARQ_EXT_LAYOUT(TfLiteNode, delegate, 64);
LARQ_EXT_LAYOUT(TfLiteRegistration, builtin_code, 40);
LARQ_EXT_LAYOUT(TfLiteRegistration, custom_name, 48);
LARQ_EXT_LAYOUT(TfLiteRegistration, inplace_operator, 80);
static_assert(sizeof(void*) != 8 || sizeof(TfLiteRegistration) == 88,
              "a registration is passed by value, so its size is part of the interface");
LARQ_EXT_LAYOUT(TfLiteContext, tensors, 16);
LARQ_EXT_LAYOUT(TfLiteContext, ResizeTensor, 32);
LARQ_EXT_LAYOUT(TfLiteContext, ReportError, 40);
LARQ_EXT_LAYOUT(TfLiteContext, GetNodeAndRegistration, 56);
LARQ_EXT_LAYOUT(TfLiteContext, ReplaceNodeSubsetsWithDelegateKernels, 64);
LARQ_EXT_LAYOUT(TfLiteContext, recommended_num_threads, 72);
LARQ_EXT_LAYOUT(TfLiteDelegateParams, nodes_to_replace, 8);
LARQ_EXT_LAYOUT(TfLiteDelegateParams, output_tensors, 24);
LARQ_EXT_LAYOUT(TfLiteDelegate, flags, 40);
LARQ_EXT_LAYOUT(TfLiteDelegate, opaque_delegate_builder, 48);

#undef LARQ_EXT_LAYOUT
