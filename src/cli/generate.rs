//! `clawgress generate`: artefacts made from the program itself.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Context, Outcome};
use crate::store::words;

const EXAMPLES: &str = "\
Examples:
  clawgress generate schema > policy.schema.json
  clawgress generate openapi > openapi.json
  clawgress generate man --dir /usr/local/share/man/man1
  clawgress generate completions bash > /etc/bash_completion.d/clawgress";

/// Print the policy's JSON Schema, the REST API's OpenAPI document, manual pages or shell completions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The JSON Schema of the policy
    Schema,
    /// The OpenAPI document of the REST API
    Openapi,
    /// The manual pages
    Man {
        /// Write one file for each page into this directory, instead of all to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

pub(super) fn generate(arguments: &Arguments, context: &mut Context) -> anyhow::Result<Outcome> {
    match &arguments.what {
        What::Schema => context.out.json(&crate::policy::schema())?,
        What::Openapi => context.out.json(&crate::api::document())?,
        What::Man { dir: None } => {
            for (_, page) in pages()? {
                context.out.bytes(&page)?;
            }
        }
        What::Man { dir: Some(dir) } => {
            let failed = |path: &Path, e| anyhow::anyhow!("cannot write {}: {}", path.display(), words(&e));
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
            for (name, page) in pages()? {
                let path = dir.join(name);
                std::fs::write(&path, page).map_err(|e| failed(&path, e))?;
            }
        }
        What::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "clawgress", &mut script);
            context.out.bytes(&script)?;
        }
    }
    Ok(Outcome::Done)
}

fn command() -> clap::Command {
    Cli::command()
}

/// File name and text of every manual page: the program's, then the commands' in their order.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, "clawgress", &mut pages)?;
    Ok(pages)
}

fn collect(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    // clap keeps names for ever (`&'static str`); there are a dozen and the program is about to end.
    let page_name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let man = Man::new(command.clone().name(page_name)).date("").manual("Clawgress");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        page.extend(examples(&text.to_string()).into_bytes());
    }
    pages.push((format!("{name}.1"), page));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        collect(subcommand, &format!("{name}-{}", subcommand.get_name()), pages)?;
    }
    Ok(())
}

/// The text behind the options as a section whose lines stay as they are.
fn examples(text: &str) -> String {
    let mut page = String::from(".SH EXAMPLES\n.nf\n");
    for line in text.strip_prefix("Examples:\n").unwrap_or(text).lines() {
        // roff: a line that starts with a dot or quote is a request, a backslash escapes, a bare hyphen may break.
        let line = line.trim_start_matches("  ").replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) {
            page.push_str("\\&");
        }
        page.push_str(&line);
        page.push('\n');
    }
    page + ".fi\n"
}
