// Names the classes of an image: runs a converted model in TensorFlow Lite, through its C API, with
// larq-ext's delegate for the binary operators.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tflite_c.h"

namespace {

constexpr const char* kUsage =
    "usage: classify MODEL.tflite IMAGE [options]\n"
    "  IMAGE            a binary PGM (grey) or PPM (RGB) file of the model's size\n"
    "  --scale S        what a value of the model is: (S * pixel - mean) / std,\n"
    "  --mean M[,M...]  with pixels of 0 to 255; mean and std for all channels\n"
    "  --std D[,D...]   or for each. By default 1, 0 and 1\n"
    "  --top N          how many classes to print; by default 5\n"
    "  --threads N      for binary and other operators; by default 1\n"
    "  --kernel NAME    a kernel of the delegate; by default the best of this CPU\n"
    "  --delegate PATH  by default the one beside the program, or where it was built\n"
    "  --runs N         also print the median latency of N runs\n";

// What the user can put right; ends the program with its message.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Called in a wrong way.
struct Misuse : Failure {
  using Failure::Failure;
};

struct Arguments {
  std::string model, image;
  std::string delegate = "liblarq_ext_delegate.so";  // looked for as other libraries of a program
  std::string kernel = "auto";
  double scale = 1;
  std::vector<double> mean = {0}, std = {1};
  int top = 5, threads = 1, runs = 0;
};

double ReadNumber(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(number)) {
    throw Misuse(option + " takes a number, not '" + text + "'");
  }
  return number;
}

std::vector<double> ReadNumbers(const std::string& option, const std::string& text) {
  std::vector<double> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    numbers.push_back(ReadNumber(option, part));
  }
  if (numbers.empty()) throw Misuse(option + " takes numbers, with commas");
  return numbers;
}

int ReadCount(const std::string& option, const std::string& text) {
  const double number = ReadNumber(option, text);
  if (number < 1 || number > 1e6 || number != std::floor(number)) {
    throw Misuse(option + " takes a whole number of at least 1, not '" + text + "'");
  }
  return static_cast<int>(number);
}

Arguments ReadArguments(int count, char** values) {
  Arguments arguments;
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    const std::string option = values[i];
    if (option == "--help") {
      std::cout << kUsage;
      std::exit(0);
    }
    if (option.rfind("--", 0) != 0) {
      files.push_back(option);
      continue;
    }
    if (++i == count) throw Misuse(option + " needs a value, or is no option");
    const std::string value = values[i];
    if (option == "--scale") {
      arguments.scale = ReadNumber(option, value);
    } else if (option == "--mean") {
      arguments.mean = ReadNumbers(option, value);
    } else if (option == "--std") {
      arguments.std = ReadNumbers(option, value);
    } else if (option == "--top") {
      arguments.top = ReadCount(option, value);
    } else if (option == "--threads") {
      arguments.threads = ReadCount(option, value);
    } else if (option == "--kernel") {
      arguments.kernel = value;
    } else if (option == "--delegate") {
      arguments.delegate = value;
    } else if (option == "--runs") {
      arguments.runs = ReadCount(option, value);
    } else {
      throw Misuse(option + " is no option");
    }
  }
  if (files.size() != 2) throw Misuse("a model and an image are needed");
  arguments.model = files[0];
  arguments.image = files[1];
  return arguments;
}

std::ifstream Open(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() == std::ifstream::traits_type::eof()) {
    throw Failure("cannot read '" + path + "': there is no such file, or it is empty");
  }
  return file;
}

struct Image {
  int height, width, channels;
  std::vector<uint8_t> pixels;  // in rows, channels of a pixel side by side, as the model has them

  std::string Size() const {
    return std::to_string(height) + " x " + std::to_string(width) + " x " +
           std::to_string(channels);
  }
};

// The next number of a PGM or PPM file's header, in which lines may be comments; 0 if there is none.
int HeaderNumber(std::istream& file) {
  while ((file >> std::ws).peek() == '#') {
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  int number = 0;
  file >> number;
  return number;
}

Image ReadImage(const std::string& path) {
  std::ifstream file = Open(path);
  std::string kind(2, ' ');
  file.read(&kind[0], 2);
  if (kind != "P5" && kind != "P6") {
    throw Failure("'" + path + "' is no binary PGM or PPM file: make one, for instance with " +
                  "ImageMagick: convert photo.png image.ppm");
  }
  Image image = {};
  image.width = HeaderNumber(file);
  image.height = HeaderNumber(file);
  image.channels = kind == "P5" ? 1 : 3;
  const int largest = HeaderNumber(file);
  file.get();  // one space ends the header
  constexpr int kLimit = 1 << 14;
  if (!file || image.width < 1 || image.width > kLimit || image.height < 1 ||
      image.height > kLimit) {
    throw Failure("'" + path + "' has a damaged header");
  }
  if (largest != 255) throw Failure("'" + path + "' has pixels of other than 8 bits");
  image.pixels.resize(size_t{1} * image.height * image.width * image.channels);
  file.read(reinterpret_cast<char*>(image.pixels.data()),
            static_cast<std::streamsize>(image.pixels.size()));
  if (!file) throw Failure("'" + path + "' ends before its last pixel");
  return image;
}

// Pixels as the model was trained with: (scale * pixel - mean) / std.
std::vector<float> Prepare(const Image& image, const Arguments& arguments) {
  const size_t channels = image.channels;
  for (const auto* numbers : {&arguments.mean, &arguments.std}) {
    if (numbers->size() != 1 && numbers->size() != channels) {
      throw Misuse("--mean and --std take one number, or one for each of " +
                   std::to_string(channels) + " channels");
    }
  }
  if (std::count(arguments.std.begin(), arguments.std.end(), 0) > 0) {
    throw Misuse("--std must not be 0");
  }
  std::vector<float> values(image.pixels.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t channel = i % channels;
    const double mean = arguments.mean[arguments.mean.size() == 1 ? 0 : channel];
    const double std = arguments.std[arguments.std.size() == 1 ? 0 : channel];
    values[i] = static_cast<float>((arguments.scale * image.pixels[i] - mean) / std);
  }
  return values;
}

// larq-ext's delegate. It has to outlive the interpreter that it is given to.
class Delegate {
 public:
  Delegate(const std::string& path, int threads, const std::string& kernel)
      : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL), CloseLibrary) {
    if (library_ == nullptr) {
      throw Failure(std::string("cannot load the delegate (") + dlerror() +
                    "): name the file with --delegate. This prints where pip put it: "
                    "python -c \"from larq_ext.runtime import library_path; "
                    "print(library_path())\"");
    }
    const auto create = Find<TfLiteDelegate*(const char**, const char**, size_t,
                                             void (*)(const char*))>("tflite_plugin_create_delegate");
    const auto destroy = Find<void(TfLiteDelegate*)>("tflite_plugin_destroy_delegate");
    const std::string number = std::to_string(threads);
    const char* keys[] = {"num_threads", "kernel"};
    const char* values[] = {number.c_str(), kernel.c_str()};
    delegate_ = {create(keys, values, 2, KeepMessage), destroy};
    if (delegate_ == nullptr) throw Misuse(message_);
  }

  TfLiteDelegate* get() const { return delegate_.get(); }

 private:
  template <class Function>
  Function* Find(const char* name) {
    void* found = dlsym(library_.get(), name);
    if (found == nullptr) throw Failure(std::string("the delegate has no function ") + name);
    return reinterpret_cast<Function*>(found);
  }
  static void CloseLibrary(void* library) { dlclose(library); }
  static void KeepMessage(const char* text) { message_ = text; }

  static std::string message_;  // the plugin reports errors through a plain function
  std::unique_ptr<void, void (*)(void*)> library_;
  std::unique_ptr<TfLiteDelegate, void (*)(TfLiteDelegate*)> delegate_{nullptr, nullptr};
};

std::string Delegate::message_;

// A model in an interpreter, with one float image as its input and one row of numbers as its output.
class Classifier {
 public:
  Classifier(const std::string& path, int threads, TfLiteDelegate* delegate)
      : model_(Load(path), TfLiteModelDelete),
        options_(TfLiteInterpreterOptionsCreate(), TfLiteInterpreterOptionsDelete) {
    TfLiteInterpreterOptionsSetNumThreads(options_.get(), threads);
    TfLiteInterpreterOptionsAddDelegate(options_.get(), delegate);
    interpreter_.reset(TfLiteInterpreterCreate(model_.get(), options_.get()));
    if (interpreter_ == nullptr ||
        TfLiteInterpreterAllocateTensors(interpreter_.get()) != kTfLiteOk) {
      throw Failure("TensorFlow Lite " + std::string(TfLiteVersion()) + " cannot load '" + path +
                    "'; the lines above say why");
    }
    if (TfLiteInterpreterGetInputTensorCount(interpreter_.get()) != 1 ||
        TfLiteInterpreterGetOutputTensorCount(interpreter_.get()) != 1 ||
        TfLiteTensorType(input()) != kTfLiteFloat32 ||
        TfLiteTensorType(output()) != kTfLiteFloat32 || TfLiteTensorNumDims(input()) != 4 ||
        TfLiteTensorDim(input(), 0) != 1) {
      throw Failure("'" + path + "' is no model with one float32 image as its input and one " +
                    "float32 output, which is all that this example runs");
    }
  }

  // The size of the images that the model takes.
  Image Expected() const {
    return {TfLiteTensorDim(input(), 1), TfLiteTensorDim(input(), 2), TfLiteTensorDim(input(), 3),
            {}};
  }

  std::vector<float> Run(const std::vector<float>& values) {
    std::vector<float> outputs(TfLiteTensorByteSize(output()) / sizeof(float));
    if (TfLiteTensorCopyFromBuffer(input(), values.data(), values.size() * sizeof(float)) !=
            kTfLiteOk ||
        TfLiteInterpreterInvoke(interpreter_.get()) != kTfLiteOk ||
        TfLiteTensorCopyToBuffer(output(), outputs.data(), outputs.size() * sizeof(float)) !=
            kTfLiteOk) {
      throw Failure("TensorFlow Lite cannot run the model; the lines above say why");
    }
    return outputs;
  }

 private:
  static TfLiteModel* Load(const std::string& path) {
    Open(path);
    TfLiteModel* model = TfLiteModelCreateFromFile(path.c_str());
    if (model == nullptr) {
      throw Failure("'" + path + "' is no TensorFlow Lite model: larq-ext convert writes them");
    }
    return model;
  }
  TfLiteTensor* input() const { return TfLiteInterpreterGetInputTensor(interpreter_.get(), 0); }
  const TfLiteTensor* output() const {
    return TfLiteInterpreterGetOutputTensor(interpreter_.get(), 0);
  }

  std::unique_ptr<TfLiteModel, void (*)(TfLiteModel*)> model_;
  std::unique_ptr<TfLiteInterpreterOptions, void (*)(TfLiteInterpreterOptions*)> options_;
  std::unique_ptr<TfLiteInterpreter, void (*)(TfLiteInterpreter*)> interpreter_{
      nullptr, TfLiteInterpreterDelete};
};

void PrintClasses(const std::vector<float>& outputs, int top) {
  std::vector<size_t> order(outputs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t left, size_t right) { return outputs[left] > outputs[right]; });
  order.resize(std::min<size_t>(order.size(), top));
  // Nine digits name a float exactly.
  for (size_t i : order) std::printf("%zu %.9g\n", i, outputs[i]);
}

double MedianMilliseconds(Classifier* classifier, const std::vector<float>& values, int runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const Clock::time_point start = Clock::now();
    classifier->Run(values);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[runs / 2];
}

void Run(const Arguments& arguments) {
  const Image image = ReadImage(arguments.image);
  const std::vector<float> values = Prepare(image, arguments);
  const Delegate delegate(arguments.delegate, arguments.threads, arguments.kernel);
  Classifier classifier(arguments.model, arguments.threads, delegate.get());
  const Image expected = classifier.Expected();
  if (image.Size() != expected.Size()) {
    const std::string size =
        std::to_string(expected.width) + "x" + std::to_string(expected.height);
    throw Failure("'" + arguments.image + "' is " + image.Size() +
                  " (height, width, channels), the model takes " + expected.Size() +
                  ": resize it, for instance with ImageMagick: convert photo.png -resize " + size +
                  "^ -gravity center -extent " + size +
                  (expected.channels == 1 ? " image.pgm" : " image.ppm"));
  }
  PrintClasses(classifier.Run(values), arguments.top);
  // The run above was the warm-up.
  if (arguments.runs > 0) {
    std::printf("median of %d runs: %.3f ms\n", arguments.runs,
                MedianMilliseconds(&classifier, values, arguments.runs));
  }
}

}  // namespace

int main(int count, char** values) {
  try {
    Run(ReadArguments(count, values));
    return 0;
  } catch (const Misuse& misuse) {
    std::cerr << "classify: " << misuse.what() << " (`classify --help` shows how it is used)\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << "\n";
    return 1;
  }
}
