//! The command line of a node. Everything is in [`alliance_node::cli`].

use alliance_node::exit::Exit;

fn main() -> Exit {
    alliance_node::cli::main(std::env::args_os())
}
