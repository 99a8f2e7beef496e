//! The `postrider` program. Everything it does is in the library; this only starts it.

use std::{env, process::ExitCode};

use mimalloc::MiMalloc;
use postrider::cli;

/// Jobs live for milliseconds, in many small pieces that one task makes and another drops: the system's allocator was some
/// 19 % of the daemon's CPU time in a profile of `cargo bench --bench dispatch` (x86-64, two cores, glibc). This one keeps more
/// memory: some 300 MB instead of 220 there.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing has installed another one before main");
    cli::main(env::args_os()).into()
}
