// The coroutine type of the house. Only this header of Asio is seen by head, sled, control and client; what
// is expensive to instantiate (co_spawn, io_context, sockets) is compiled once, behind world.hpp.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

namespace luge::io {

template <class T = void>
using Task = boost::asio::awaitable<T>;

using Executor = boost::asio::any_io_executor;

/// Thrown out of every wait of a World that has been stopped; unwinds the coroutine. Never catch it to go on.
struct Stopped {};

}  // namespace luge::io
