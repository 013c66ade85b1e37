fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a == "--version") {
        println!("clawgress 0.1.0");
        return Ok(());
    }
    let cfg = args.iter().position(|a| a == "--config").map(|i| std::path::PathBuf::from(&args[i + 1]));
    let s = clawgress::settings::load(cfg.as_deref())?;
    clawgress::daemon::run(s)
}
