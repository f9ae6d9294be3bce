// Coders on a card. Private to host/card.
#pragma once

#include <memory>

#include "card/link.hpp"
#include "coding/erasure_coder.hpp"

namespace luge::card {

std::shared_ptr<coding::ErasureCoder> make_link_coder(std::weak_ptr<Link> link, std::string name);
/// Codes on `link`. Free functions, so that the coder and what reopens it share them.
io::Task<Status> encode_on(std::shared_ptr<Link> link, Layout layout, std::span<const Bytes> data, std::span<const MutableBytes> parity,
                           coding::Authority who = {});
io::Task<Status> reconstruct_on(std::shared_ptr<Link> link, Layout layout, std::span<const Bytes> present, std::span<const std::uint32_t> wanted,
                                std::span<const MutableBytes> out);
/// Known answers; status and text as Card::self_test().
io::Task<Status> self_test_on(std::shared_ptr<Link> link);

}  // namespace luge::card
