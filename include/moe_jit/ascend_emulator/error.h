// What a refused kernel raises.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace moe_jit::emulator {

// Place of a call. As a default argument `Site::here()` it is the place of the outermost caller's call.
struct Site {
    const char* file = "";
    int line = 0;

    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return Site{file, line};
    }
    std::string text() const { return line ? std::string(file) + ":" + std::to_string(line) : "host"; }
};

// `core` is such as "AIV 3", `tensor` says which buffer, where it was created and where in memory it lies.
class EmulatorError : public std::runtime_error {
  public:
    EmulatorError(Site site, std::string core, const std::string& call, const std::string& problem,
                  std::string tensor = {})
        : std::runtime_error(site.text() + ": " + core + ": " + call + ": " + problem +
                             (tensor.empty() ? "" : " [" + tensor + "]")),
          file(site.file),
          line(site.line),
          core(std::move(core)),
          problem(problem),
          tensor(std::move(tensor)) {}

    std::string file;
    int line;
    std::string core;
    std::string problem;
    std::string tensor;
};

[[gnu::format(printf, 1, 2)]] inline std::string format(const char* text, ...) {
    va_list arguments;
    va_start(arguments, text);
    char buffer[640];
    std::vsnprintf(buffer, sizeof(buffer), text, arguments);
    va_end(arguments);
    return buffer;
}

}  // namespace moe_jit::emulator
