//! Running the real program.
#![allow(dead_code, reason = "not every test file needs every part")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Exit status and no surprise on the other channel: success says nothing wrong, failure answers nothing.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self
    }

    /// Exit status 1, nothing on stdout, and on stderr a text that begins so.
    #[track_caller]
    pub fn refused(self, start: &str) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        assert!(self.stderr.starts_with(start), "{}", self.stderr);
        self
    }

    /// Exit status 2, and on stderr a text that has this part.
    #[track_caller]
    pub fn misused(self, part: &str) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        assert!(self.stderr.contains(part), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }
}

/// The program with its own settings and directories.
pub struct Program {
    pub dir: TempDir,
}

impl Program {
    pub fn new() -> Self {
        let program = Self { dir: tempfile::tempdir().unwrap() };
        let dir = program.dir.path().display();
        let settings =
            format!("policy = \"{dir}/policy.json\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}\"\n");
        program.write("clawgress.toml", settings);
        program
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and gives its path as an argument.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.env_remove("NO_COLOR").arg("--config").arg(self.path("clawgress.toml"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        run(command, input)
    }
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clawgress"))
}

pub fn run(mut command: Command, input: &[u8]) -> Ran {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that ends without reading all of it is free to do so.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), stdout: text(done.stdout), stderr: text(done.stderr) }
}
