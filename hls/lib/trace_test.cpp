// A bench's --trace: waveforms up to the end of the run, over all its resets.
//   trace_test BENCH
#include <gtkwave/fstapi.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

struct Seen {
  fstHandle reset = 0;
  int falls = 0;
};
void on_value(void *data, uint64_t, fstHandle signal, const unsigned char *value) {
  Seen &s = *static_cast<Seen *>(data);
  s.falls += signal == s.reset && value[0] == '0';
}

// Falls of ap_rst_n and the last time in a file; ends the process if it is none.
int falls_in(const std::string &path, uint64_t &end) {
  void *file = fstReaderOpen(path.c_str());
  if (!file) std::fprintf(stderr, "%s is no complete waveform file\n", path.c_str()), std::exit(1);
  end = fstReaderGetEndTime(file);
  Seen seen;
  while (fstHier *h = fstReaderIterateHier(file))
    if (h->htyp == FST_HT_VAR && std::string(h->u.var.name, h->u.var.name_length) == "ap_rst_n") seen.reset = h->u.var.handle;
  fstReaderSetFacProcessMaskAll(file);
  fstReaderIterBlocks(file, on_value, &seen, nullptr);
  fstReaderClose(file);
  return seen.falls;
}
void expect(bool good, const char *what) {
  if (!good) std::fprintf(stderr, "trace: %s\n", what), std::exit(1);
}

}  // namespace

int main(int argc, char **argv) {
  expect(argc == 2, "usage: trace_test BENCH");
  std::string folder = std::getenv("TMPDIR") ? std::getenv("TMPDIR") : "/tmp", path = folder + "/luge-trace-" + std::to_string(std::rand()) + ".fst";
  uint64_t end = 0;
  expect(std::system((std::string(argv[1]) + " --cycles 30000 --allow-holes --trace " + path + " >/dev/null").c_str()) == 0, "the bench fails");
  int falls = falls_in(path, end);
  std::remove(path.c_str());
  expect(falls >= 2, "the waveforms do not go over a reset");
  expect(end >= 10 * 30000, "the waveforms end before the run");
  std::printf("waveforms over %d resets and %llu cycles\n", falls, (unsigned long long)end / 10);
}
