// What every daemon is told of itself, whatever it is. The main of the daemons fills it (daemon.hpp), tests by hand.
#pragma once

#include <functional>
#include <string>

#include "base/ids.hpp"
#include "base/status.hpp"

namespace luge::io {

struct NodeOptions {
  NodeId id = 0;
  std::string name;
  std::uint64_t unit = 0;         ///< storage unit; 0: not known yet, the control plane will say
  std::string listen;             ///< where other daemons reach this one; empty: they do not
  std::string control;            ///< address of the control plane; empty: none
  std::uint64_t incarnation = 0;  ///< random, new at each start; 0: the daemon draws one
  std::uint32_t pid = 0;          ///< for status
  /// Durably keeps the unit that the control plane named. wrong_unit: it has another. May be empty.
  std::function<Status(std::uint64_t unit)> remember_unit;
  /// Ends the program with this text, for what cannot be served past. May be empty.
  std::function<void(Status)> fail;
};

}  // namespace luge::io
