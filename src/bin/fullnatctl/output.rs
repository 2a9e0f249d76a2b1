//! What goes to the terminal: JSON or text, and never a control character that came from elsewhere.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use fullnat::control::client::ClientError;
use serde::Serialize;

use crate::Failure;

/// How results are printed.
#[derive(Clone, Copy)]
pub struct Output {
    /// for programs
    pub json: bool,
}

impl Output {
    /// A view as JSON, or as text made by `table`.
    pub fn view<T: Serialize>(self, view: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string_pretty(view).map_err(|error| Failure::Output(error.into()))?;
            self.text(&(text + "\n"))
        } else {
            self.text(&table(view))
        }
    }

    /// Text as it is; it ends with a line feed.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
    }
}

/// A text from outside without anything a terminal could obey: control characters appear as `\u{1b}`.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        // Besides control characters: marks that turn the direction of writing (Unicode TR 36).
        if character.is_control()
            || matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(cleaned, "{}", character.escape_unicode());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// Says on standard error what went wrong; a refusal with every place at fault.
pub fn complain(failure: &Failure, json: bool) {
    let mut text = String::new();
    match failure {
        Failure::Client(ClientError::Refused(problem)) if json => {
            text = serde_json::to_string_pretty(problem).unwrap_or_default();
        }
        Failure::Client(ClientError::Refused(problem)) => {
            text = format!("fullnatctl: refused: {}: {}", clean(&problem.title), clean(&problem.detail));
            for fault in &problem.errors {
                let path = if fault.path.is_empty() { "(whole)" } else { &fault.path };
                let _ = write!(text, "\n  {}: {}", clean(path), clean(&fault.message));
            }
        }
        other => {
            let _ = write!(text, "fullnatctl: {}", clean(&other.to_string()));
        }
    }
    // Nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance_n9_terminals_are_not_commanded() {
        assert_eq!(clean("web\n\u{1b}[2J\u{202e}x\u{e4}"), "web\\u{a}\\u{1b}[2J\\u{202e}x\u{e4}");
    }
}
