//! One binary: daemon and tool.

fn main() -> std::process::ExitCode {
    clawgress::cli::main()
}
