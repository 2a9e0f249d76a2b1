//! The configuration: from the text of a file to checked types, and from those to the snapshot that workers see.
//!
//! ```text
//! text --shape--> model::Document --validate--> Config --Slots::apply--> Snapshot
//!  ^                    |   ^                     |
//!  `------ to_toml -----'   `-- JSON, edits       `-- diff, Requirements
//! ```
//!
//! Parse, don't validate: whoever holds a [`Config`] need not check again. The [`model::Document`] it was made of stays
//! with it, so that a running configuration can be shown, edited and written back with the file's own key names.
//! Nothing here runs on the packet path.

pub mod buffers;
mod checked;
mod diff;
pub mod limits;
mod mistake;
pub mod model;
mod requirements;
mod shape;
mod slots;
mod text;
mod validate;

pub use checked::{
    Config, Control, Dataplane, Device, Neighbours, Pool, Port, RSS_KEY_LEN, RealServer, Service,
};
pub use diff::{Changes, Diff, RestartNeeded, diff};
pub use mistake::Mistake;
pub use model::{HugePages, Idle, Steering};
pub use requirements::Requirements;
pub use slots::{BuildError, PortFacts, Slots};

use std::fmt;
use std::path::{Path, PathBuf};

use model::Document;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; give --config a file that exists and may be read", path.display())]
    Read {
        /// the file
        path: PathBuf,
        /// why not
        source: std::io::Error,
    },
    /// The configuration has mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// At least one mistake; shown with one line for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// The mistakes; none if the file could not be read.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            ConfigError::Read { .. } => &[],
            ConfigError::Mistakes(mistakes) => &mistakes.0,
        }
    }
}

impl From<Vec<Mistake>> for ConfigError {
    fn from(mistakes: Vec<Mistake>) -> Self {
        ConfigError::Mistakes(Mistakes(mistakes))
    }
}

/// Reads and checks a file.
///
/// # Errors
/// The file cannot be read, or what it says has mistakes: then all of them.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text)
}

/// Checks the text of a file.
///
/// # Errors
/// All mistakes of the configuration.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    check(shape::from_toml(text)?)
}

/// Checks the same configuration written as JSON.
///
/// # Errors
/// All mistakes of the configuration.
pub fn parse_json(bytes: &[u8]) -> Result<Config, ConfigError> {
    check(shape::from_json(bytes)?)
}

/// Checks a configuration that is a JSON value already.
///
/// # Errors
/// All mistakes of the configuration.
pub fn parse_value(value: serde_json::Value) -> Result<Config, ConfigError> {
    check(shape::from_value(value)?)
}

/// Checks a document.
///
/// # Errors
/// All mistakes of the configuration.
pub fn check(document: Document) -> Result<Config, ConfigError> {
    Ok(validate::validate(document)?)
}

/// A document as the text of a file.
///
/// # Errors
/// A number that TOML cannot hold; no checked configuration has one.
pub fn to_toml(document: &Document) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every documented example is sound, without a warning, and survives being written back.
    #[test]
    fn every_example_is_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let mut examples = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let config = load(&path).unwrap_or_else(|error| panic!("{}:\n{error}", path.display()));
            assert_eq!(config.warnings, [], "{}", path.display());
            assert_eq!(parse(&to_toml(&config.document).unwrap()).unwrap(), config, "{}", path.display());
            assert!(Requirements::of(&config).bytes > 0);
            examples += 1;
        }
        assert!(examples >= 7);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load("/nonexistent/gateway.toml").unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nonexistent/gateway.toml: "));
        assert!(error.mistakes().is_empty());
    }
}
