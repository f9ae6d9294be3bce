// Where the programs and files of a card are, and the environment in which XRT finds one.
#pragma once

#include <map>
#include <string>

#include "base/status.hpp"
#include "card/card.hpp"

namespace luge::card {

/// CardOptions::tree, else $LUGE_XRT, else xrt beside the folder of the running program; absolute.
std::string card_tree(const CardOptions& options);
/// CardOptions::program, else luge-card beside the running program, else in bin/ beside its folder.
std::string card_program(const CardOptions& options);
/// The lines of TREE/KIND.env; empty for "hw". invalid, not_found: no such kind, or not built.
Result<std::map<std::string, std::string>> card_environment(const CardOptions& options);

}  // namespace luge::card
