//! Finding and reading the settings file.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::words;
use crate::settings::{DEFAULT_FILES, Mistake, Settings, Source, parse};

/// The longest settings file that is read, bytes: far above any real one, far below what would hurt.
const MAX_FILE: u64 = 1024 * 1024;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the settings {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not, in words.
        reason: String,
    },
    /// The file has mistakes; one line each.
    #[error("the settings {} have {}:{}", path.display(), count(mistakes.len()), Lines(mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

fn count(mistakes: usize) -> String {
    if mistakes == 1 { "a mistake".to_owned() } else { format!("{mistakes} mistakes") }
}

struct Lines<'m>(&'m [Mistake]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// The settings of the file that the user named, else of the first of [`DEFAULT_FILES`] that exists, else the
/// defaults. To read them again, pass [`Source::named`] of those in force.
///
/// # Errors
/// The file is named and not there, cannot be read, or has mistakes.
pub fn load_settings(named: Option<&Path>) -> Result<Settings, LoadError> {
    load_from(named, &DEFAULT_FILES.map(Path::new))
}

/// The same where the file has mistakes: what it still tells of where the files are. For what must not wait until
/// somebody has mended it.
pub fn salvage_settings(named: Option<&Path>) -> Settings {
    let defaults = DEFAULT_FILES.map(Path::new);
    let files = named.map_or_else(|| defaults.to_vec(), |named| vec![named]);
    let text = files.into_iter().find_map(|path| read(path).ok());
    Settings::salvaged(&String::from_utf8_lossy(&text.unwrap_or_default()))
}

fn load_from(named: Option<&Path>, defaults: &[&Path]) -> Result<Settings, LoadError> {
    if let Some(path) = named {
        let settings = read(path).map_err(|error| unreadable(path, &error))?;
        return understand(path, &settings, Source::Named(path.to_owned()));
    }
    for path in defaults {
        match read(path) {
            Ok(bytes) => return understand(path, &bytes, Source::Found((*path).to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok(Settings::default())
}

fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::Read { path: path.to_owned(), reason: words(error) }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn understand(path: &Path, bytes: &[u8], source: Source) -> Result<Settings, LoadError> {
    let refused = |reason: &str| LoadError::Read { path: path.to_owned(), reason: reason.to_owned() };
    if bytes.len() as u64 > MAX_FILE {
        return Err(refused("it is over 1 MiB long, so it is not a settings file"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| refused("it is not a text in UTF-8; save it as UTF-8"))?;
    let settings = parse(text).map_err(|mistakes| LoadError::Mistakes { path: path.to_owned(), mistakes })?;
    Ok(Settings { source, ..settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_be_there_and_a_default_one_need_not() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, first, second) = (dir.path().join("absent"), dir.path().join("first"), dir.path().join("second"));
        let error = load_from(Some(&absent), &[]).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the settings /") && error.ends_with("there is no such file"), "{error}");
        assert_eq!(load_from(None, &[&absent]).unwrap().source, Source::Defaults);
        std::fs::write(&second, "state_dir = \"/second\"").unwrap();
        let settings = load_from(None, &[&first, &second]).unwrap();
        assert_eq!(
            (settings.state_dir.as_path(), settings.source),
            (Path::new("/second"), Source::Found(second.clone()))
        );
        std::fs::write(&first, "state_dir = \"/first\"").unwrap();
        assert_eq!(load_from(None, &[&first, &second]).unwrap().state_dir, Path::new("/first"));
        std::fs::write(&first, "a = 1\nb = 2").unwrap();
        let error = load_from(None, &[&first, &second]).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 3, "a broken file is not passed over: {error}");
        std::fs::write(&first, b"a = \"\xff\"").unwrap();
        assert!(load_from(None, &[&first]).unwrap_err().to_string().ends_with("save it as UTF-8"));
        assert!(load_from(Some(dir.path()), &[]).unwrap_err().to_string().ends_with("it is a directory"));
    }

    #[test]
    fn settings_are_read_again_from_where_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "state_dir = \"/one\"").unwrap();
        let settings = load_settings(Some(&file)).unwrap();
        std::fs::write(&file, "state_dir = \"/two\"").unwrap();
        assert_eq!(load_settings(settings.source.named()).unwrap().state_dir, Path::new("/two"));
        std::fs::remove_file(&file).unwrap();
        load_settings(settings.source.named()).unwrap_err();
    }
}
