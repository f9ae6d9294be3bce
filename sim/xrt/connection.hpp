// The simulator's end of the socket to XRT's emulation shim. A call is a header of 14 bytes (09, u64 length of the body, 15, u32
// number of the call) and the body; its reply a header of 9 bytes (09, u64 length) and the body. One call at a time.
#pragma once
#include <cstdint>
#include <string>

namespace luge::xrt_sim {

class Connection {
 public:
  /// Connects to $EMULATION_SOCKETID under /tmp/$USER, as the shim listens there; tries for `seconds`. False: nobody there.
  bool open(int seconds);
  ~Connection();

  struct Call { std::uint32_t number = 0; std::string body; };
  enum class Got { call, nothing, closed };
  /// `wait_ms`: 0 looks only, -1 waits for ever. Throws BadMessage on a header that is none.
  Got receive(Call& call, int wait_ms);
  /// False: the other side has gone.
  bool reply(const std::string& body);
  /// The shim has a second socket, on which a simulator may ask for host memory, and waits for a connection to it when it closes.
  /// Nothing here asks; but somebody has to connect, and to say in the end that nothing more comes. Tries to connect; call now and then.
  void try_back_channel();
  void dismiss_back_channel();

 private:
  bool read_all(char* to, std::size_t n);
  int fd_ = -1, back_ = -1;
};

}  // namespace luge::xrt_sim
