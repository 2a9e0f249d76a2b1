//! A mistake in a configuration: where, what, and what to write instead.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

/// Something in a configuration that cannot be, or (as a warning) that is probably not meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Mistake {
    /// where in the document, such as `service[2].real_server[0].address`; numbers count from 0
    pub path: String,
    /// what is wrong, without a full stop
    pub problem: String,
    /// what to write instead, or what to do
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { path, problem, hint } = self;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{problem}; {hint}")
    }
}

/// The mistakes and warnings found so far.
#[derive(Default, Debug)]
pub(super) struct Findings {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

impl Findings {
    /// Notes a mistake: the configuration will be refused.
    pub fn mistake(&mut self, path: impl fmt::Display, problem: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake { path: path.to_string(), problem: problem.into(), hint: hint.into() });
    }

    /// Notes a warning: the configuration is accepted.
    pub fn warning(&mut self, path: impl fmt::Display, problem: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Mistake { path: path.to_string(), problem: problem.into(), hint: hint.into() });
    }

    /// Notes a mistake about a value, or hands the value on.
    pub fn take<T>(&mut self, path: impl fmt::Display, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.mistake(path, fault.problem, fault.hint)).ok()
    }

    /// A number that must lie in a range, as the type it will have.
    pub fn number<T>(
        &mut self,
        path: impl fmt::Display,
        value: i64,
        range: std::ops::RangeInclusive<i64>,
        hint: &str,
    ) -> Option<T>
    where
        T: TryFrom<i64>,
    {
        let checked = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        if checked.is_none() {
            let (first, last) = range.into_inner();
            let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
            self.mistake(path, format!("{value} is out of range"), format!("write {first} to {last}{hint}"));
        }
        checked
    }
}

/// A mistake whose place the caller knows.
#[derive(Debug)]
pub(super) struct Fault {
    pub problem: String,
    pub hint: String,
}

impl Fault {
    pub fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Fault { problem: problem.into(), hint: hint.into() }
    }
}
