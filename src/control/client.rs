//! A client of the control socket, for `fullnatctl` and for tests.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::view::Problem;

/// Where `fullnatd` listens unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/fullnat/control.sock";

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Why there is no answer, or not the one wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be reached.
    #[error("cannot reach the gateway at {path}: {advice}")]
    Unreachable {
        /// the socket
        path: PathBuf,
        /// what to check
        advice: String,
    },
    /// The gateway refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The answer makes no sense.
    #[error("the answer cannot be understood ({0}): are fullnatctl and fullnatd of the same version?")]
    Strange(String),
}

/// A body to send: its content type and its bytes.
pub type Content = (&'static str, Vec<u8>);

/// A connection to the control socket.
pub struct Client {
    path: PathBuf,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects. Must run in a tokio runtime.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let unreachable =
            |error: io::Error| ClientError::Unreachable { path: path.to_owned(), advice: advice(&error) };
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::Strange(error.to_string()))?;
        tokio::spawn(connection);
        Ok(Client { path: path.to_owned(), sender })
    }

    /// Sends a request and gives back the body of a good answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        content: Option<Content>,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "fullnat");
        let body = match content {
            Some((media_type, body)) => {
                request = request.header(header::CONTENT_TYPE, media_type);
                Full::from(body)
            }
            None => Full::default(),
        };
        let request = request.body(body).map_err(|error| ClientError::Strange(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER_TIME, self.exchange(request)).await;
        let (status, body) = answer.map_err(|_| ClientError::Unreachable {
            path: self.path.clone(),
            advice: format!("no answer within {} s; look at the log of fullnatd", ANSWER_TIME.as_secs()),
        })??;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => ClientError::Strange(format!("HTTP status {status}")),
        })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |error: hyper::Error| ClientError::Unreachable {
            path: self.path.clone(),
            advice: format!("the connection broke off ({error}); look at the log of fullnatd"),
        };
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        Ok((status, response.into_body().collect().await.map_err(broken)?.to_bytes()))
    }

    /// Asks for a view.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, path, None).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Strange(error.to_string()))
    }
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; is fullnatd running (systemctl status fullnatd), and with this socket path?"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody answers on it; fullnatd has ended without cleaning up, start it again".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as root or join the socket's group (ls -l shows it)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A text as one segment of a path: everything but unreserved characters (RFC 3986 §2.3) percent-encoded.
pub fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded() {
        assert_eq!(segment("[2001:db8::1]:80"), "%5B2001%3Adb8%3A%3A1%5D%3A80");
        assert_eq!(segment("a/b c\u{e4}"), "a%2Fb%20c%C3%A4");
    }
}
