//! The `tandem` program: see [`tandem::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    // One cryptography provider for the whole process, chosen before anything speaks TLS: with two in the
    // dependency tree rustls would panic when asked to guess. It fails only when one is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tandem::cli::main()
}
