// Graphs with their inputs and the outputs they must give, as dump_cases.py writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace replay {

using Bytes = std::vector<uint8_t>;

struct TensorSpec {
  int type = 0;
  std::vector<int> dims;
  bool quantized = false;
  float scale = 0;
  int zero_point = 0;
  bool constant = false;
  Bytes data;
};

struct NodeSpec {
  int builtin_code = 0;
  std::string custom_name;
  bool has_options = false;
  Bytes options;
  int activation = 0;
  std::vector<int> inputs, outputs;
};

struct Values {
  int tensor = 0;
  std::vector<int> dims;
  Bytes data;
};

struct Case {
  std::string name;
  std::vector<TensorSpec> tensors;
  std::vector<NodeSpec> nodes;
  std::vector<Values> inputs, outputs;
  float tolerance = 0;  // of floats, relative to the largest magnitude
};

// Reads a file of cases; ends the program if it is none.
std::vector<Case> ReadCases(const std::string& path);

}  // namespace replay
