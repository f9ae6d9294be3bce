// The coroutine type of the house: begins when it is awaited, is awaited once, and belongs to whoever holds the Task. What it throws comes
// out of the await. Neither threads nor executors are known to it: who resumes a coroutine (a World's queue, a completion of the
// kernel's) does so from the loop.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "io/frame_memory.hpp"

namespace luge::io {

/// Thrown out of every wait of a World that has been stopped; unwinds the coroutine. Never catch it to go on.
struct Stopped {};

template <class T = void>
class Task;

namespace task_detail {

struct PromiseBase {
  std::coroutine_handle<> awaiting;
  std::exception_ptr error;

  // At its end a coroutine hands over to the one that awaits it without growing the stack.
  struct Final {
    bool await_ready() const noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> ended) const noexcept { return ended.promise().awaiting; }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  Final final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { error = std::current_exception(); }
  static void* operator new(std::size_t bytes) { return frame_memory::take(bytes); }
  static void operator delete(void* frame, std::size_t bytes) noexcept { frame_memory::give(frame, bytes); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <class U>
  void return_value(U&& v) { value.emplace(std::forward<U>(v)); }
  T result() {
    if (error) std::rethrow_exception(std::move(error));
    return std::move(*value);
  }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void result() {
    if (error) std::rethrow_exception(std::move(error));
  }
};

}  // namespace task_detail

template <class T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;

  Task(Task&& o) noexcept : frame_(std::exchange(o.frame_, {})) {}
  Task& operator=(Task&& o) noexcept {
    std::swap(frame_, o.frame_);
    return *this;
  }
  /// Before the coroutine has begun, or after its end.
  ~Task() {
    if (frame_) frame_.destroy();
  }

  struct Awaiter {
    Task task;
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
      task.frame_.promise().awaiting = awaiting;
      return task.frame_;
    }
    T await_resume() { return task.frame_.promise().result(); }
  };
  /// Once, and of a Task that has not been moved from.
  Awaiter operator co_await() && noexcept { return {std::move(*this)}; }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
  std::coroutine_handle<promise_type> frame_;
};

namespace task_detail {

template <class T>
Task<T> Promise<T>::get_return_object() noexcept { return Task<T>(std::coroutine_handle<Promise>::from_promise(*this)); }
inline Task<void> Promise<void>::get_return_object() noexcept { return Task<void>(std::coroutine_handle<Promise>::from_promise(*this)); }

}  // namespace task_detail

/// Continues a coroutine that is suspended(), with a value. Copies stand for the same coroutine: one of them is called, once.
template <class T>
class Resume {
 public:
  Resume(std::optional<T>& value, std::coroutine_handle<> waiting) : value_(&value), waiting_(waiting) {}
  /// From the loop, and not within the call that was given this.
  void operator()(T value) const {
    value_->emplace(std::move(value));
    waiting_.resume();
  }

 private:
  std::optional<T>* value_;
  std::coroutine_handle<> waiting_;
};

/// What suspended() returns: `begin` runs once the coroutine is suspended.
template <class T, class Begin>
class [[nodiscard]] SuspensionOf {
 public:
  explicit SuspensionOf(Begin begin) : begin_(std::move(begin)) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) { begin_(Resume<T>(value_, waiting)); }
  T await_resume() { return std::move(*value_); }

 private:
  Begin begin_;
  std::optional<T> value_;
};

/// co_await suspended<int>([&](Resume<int> resume) { ... }): for what calls back with an int, in place of a coroutine.
template <class T, class Begin>
SuspensionOf<T, Begin> suspended(Begin begin) { return SuspensionOf<T, Begin>(std::move(begin)); }

}  // namespace luge::io
