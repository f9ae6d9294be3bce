// `luge control`: what an operator does to the control plane itself.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "cli/commands.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;

int rebuild(const Context& context, bool accept_loss, bool other_key) {
  auto done = context.request("POST", "/v1/rebuild", json::object{{"accept_loss", accept_loss}, {"other_key", other_key}}, 60);
  if (!done.ok()) return complain(done.status());
  if (context.json) return print_json(*done), static_cast<int>(kOk);
  std::cout << number_of(*done, "volumes") << " volumes, " << number_of(*done, "partitions") << " partitions taken up\n";
  if (std::uint64_t n = number_of(*done, "doubted"))
    std::cout << n << " of them are served as they are, and nobody is made primary, until all their heads have answered (`luge status` names them)\n";
  for (const json::value& why : array_of(*done, "left")) std::cout << std::string(why.as_string()) << "\n";
  return kOk;
}

}  // namespace

void add_control_commands(CLI::App& app, Context& context) {
  auto* control = app.add_subcommand("control", "The control plane itself: a store that was lost");
  control->require_subcommand(1);
  auto* sub = control->add_subcommand("rebuild", "Take up what heads and sleds hold and the control plane's store does not know: after the loss of the store");
  auto accept_loss = std::make_shared<bool>(), other_key = std::make_shared<bool>();
  sub->add_flag("--accept-loss", *accept_loss, "wait for no head that does not answer: what only it knows is lost");
  sub->add_flag("--other-key", *other_key, "take up also what another key of the unit has signed: the key was lost together with the store");
  sub->callback([&context, accept_loss, other_key] { context.run = [&context, accept_loss, other_key] { return rebuild(context, *accept_loss, *other_key); }; });
}

}  // namespace luge::cli
