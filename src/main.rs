//! The `postrider` program. Everything it does is in the library; this only starts it.

use std::{env, process::ExitCode};

use postrider::cli;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing has installed another one before main");
    cli::main(env::args_os()).into()
}
