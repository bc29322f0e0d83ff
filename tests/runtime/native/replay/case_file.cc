#include "case_file.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace replay {
namespace {

class Reader {
 public:
  explicit Reader(Bytes content) : content_(std::move(content)) {}

  template <class T>
  T Get() {
    T value;
    std::memcpy(&value, Take(sizeof value), sizeof value);
    return value;
  }
  int Int() { return Get<int32_t>(); }
  Bytes Blob() {
    const auto size = static_cast<size_t>(Get<int64_t>());
    const uint8_t* start = Take(size);
    return Bytes(start, start + size);
  }
  std::string Text() {
    const Bytes blob = Blob();
    return std::string(blob.begin(), blob.end());
  }
  std::vector<int> Ints() {
    std::vector<int> values(Int());
    for (int& value : values) value = Int();
    return values;
  }
  std::vector<Values> AllValues() {
    std::vector<Values> all(Int());
    for (Values& values : all) {
      values.tensor = Int();
      values.dims = Ints();
      values.data = Blob();
    }
    return all;
  }

 private:
  const uint8_t* Take(size_t size) {
    if (size > content_.size() - position_) {
      std::fprintf(stderr, "the file of cases is damaged\n");
      std::exit(2);
    }
    position_ += size;
    return content_.data() + position_ - size;
  }

  Bytes content_;
  size_t position_ = 0;
};

Case ReadCase(Reader& reader) {
  Case result;
  result.name = reader.Text();
  result.tensors.resize(reader.Int());
  for (TensorSpec& tensor : result.tensors) {
    tensor.type = reader.Int();
    tensor.dims = reader.Ints();
    tensor.quantized = reader.Int() != 0;
    tensor.scale = reader.Get<float>();
    tensor.zero_point = reader.Int();
    tensor.constant = reader.Int() != 0;
    tensor.data = reader.Blob();
  }
  result.nodes.resize(reader.Int());
  for (NodeSpec& node : result.nodes) {
    node.builtin_code = reader.Int();
    node.custom_name = reader.Text();
    node.has_options = reader.Int() != 0;
    node.options = reader.Blob();
    node.activation = reader.Int();
    node.inputs = reader.Ints();
    node.outputs = reader.Ints();
  }
  result.inputs = reader.AllValues();
  result.outputs = reader.AllValues();
  result.tolerance = reader.Get<float>();
  return result;
}

}  // namespace

std::vector<Case> ReadCases(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  Reader reader(Bytes(std::istreambuf_iterator<char>(file), {}));
  if (reader.Int() != 0x5258514c) {  // "LQXR"
    std::fprintf(stderr, "%s is no file of cases\n", path.c_str());
    std::exit(2);
  }
  std::vector<Case> cases(reader.Int());
  for (Case& one : cases) one = ReadCase(reader);
  return cases;
}

}  // namespace replay
