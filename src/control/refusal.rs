//! Why control does not do what it was asked: one enum, each variant with its HTTP status and title.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::view::{Fault, Problem};

/// A request that was not carried out. The message of each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself is not well-formed.
    #[error("{detail}")]
    BadRequest {
        /// what is wrong with it
        detail: String,
        /// where
        errors: Vec<Fault>,
    },
    /// The configuration asked for is not a valid one; nothing was changed.
    #[error("The configuration is not valid; nothing was changed. Correct what is listed and send it again.")]
    Invalid(Vec<Fault>),
    /// The configuration asked for differs in what is fixed at start; nothing was changed.
    #[error(
        "The change concerns what is fixed at start; nothing was changed. Save it in the file and restart fullnatd."
    )]
    NeedsRestart(Vec<Fault>),
    /// Something that is named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request contradicts the present state.
    #[error("{0}")]
    Conflict(String),
    /// The peer may not do things here.
    #[error(
        "User {0} may not use this socket: be root, the daemon's user or a member of the socket's group."
    )]
    Forbidden(u32),
    /// The path exists, but not with this method.
    #[error("This path does not know the method {0}; GET /v1/openapi.json lists what there is.")]
    Method(String),
    /// The body is larger than allowed.
    #[error("The body is larger than {limit} bytes.")]
    TooLarge {
        /// bytes allowed
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("The body did not arrive within {0} s.")]
    BodyTimeout(u64),
    /// The body's type is not one that is understood.
    #[error("The content type {0:?} is not understood: send application/json or application/toml.")]
    MediaType(String),
    /// A file could not be read or written.
    #[error("{0}")]
    File(String),
    /// Workers did not answer in time.
    #[error("{0}")]
    Workers(String),
}

impl Refusal {
    /// A malformed request.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Refusal::BadRequest { detail: detail.into(), errors: Vec::new() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NeedsRestart(_) | Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Refusal::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::File(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::Workers(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Refusal::BadRequest { .. } => "malformed request",
            Refusal::Invalid(_) => "invalid configuration",
            Refusal::NeedsRestart(_) => "needs a restart",
            Refusal::NotFound(_) => "not found",
            Refusal::Forbidden(_) => "not allowed",
            Refusal::Conflict(_) => "conflict",
            Refusal::Method(_) => "method not allowed",
            Refusal::TooLarge { .. } => "body too large",
            Refusal::BodyTimeout(_) => "body too slow",
            Refusal::MediaType(_) => "unknown content type",
            Refusal::File(_) => "file not accessible",
            Refusal::Workers(_) => "workers do not answer",
        }
    }

    /// The body that tells of it.
    pub fn into_problem(self) -> Problem {
        let (title, status, detail) = (self.title().to_owned(), self.status().as_u16(), self.to_string());
        let errors = match self {
            Refusal::BadRequest { errors, .. } | Refusal::Invalid(errors) | Refusal::NeedsRestart(errors) => {
                errors
            }
            _ => Vec::new(),
        };
        Problem { title, status, detail, errors }
    }
}

/// What the audit log says of a refused request; travels with the response, not to the client.
#[derive(Clone, Debug)]
pub(super) struct AuditDetail(pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let detail = AuditDetail(self.to_string());
        let mut response = (status, Json(self.into_problem())).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        response.extensions_mut().insert(detail);
        response
    }
}
