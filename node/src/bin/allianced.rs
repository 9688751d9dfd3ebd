//! The daemon: runs one node of an alliance on its home directory.

use alliance_node::{daemon, exit::Exit};

fn main() -> Exit {
    daemon::command()
}
