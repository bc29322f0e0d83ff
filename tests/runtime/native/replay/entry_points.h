// What the library exports to TensorFlow Lite.
#pragma once

#include <cstddef>

#include "tflite_abi.h"

extern "C" {
TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                              void (*report_error)(const char*));
void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate);
}
