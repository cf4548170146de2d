//! HTTP over a connection through an instance: one question after the other, small answers, and no task to drive it.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use fleeting::ByteStream;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

/// Largest answer. The documents that are asked for have a few hundred bytes.
const LARGEST: usize = 16 * 1024;
/// Most header lines of an answer, and the bytes that they and a piece of the body may take.
const HEADERS: usize = 32;
const BUFFER: usize = 8 * 1024;

/// A connection that is kept between questions.
pub(crate) struct Inquiry {
    sender: SendRequest<Empty<Bytes>>,
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// An answer in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer. What the other side said is not part of it: it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the connection was closed")]
    Closed,
    #[error("the answer is not HTTP")]
    NotHttp,
    #[error("the answer has more than {LARGEST} bytes, or is cut off")]
    BadBody,
}

// === impl Inquiry ===

impl Inquiry {
    pub(crate) async fn over(stream: Box<dyn ByteStream>) -> Result<Self, Unanswered> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADERS)
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Unanswered::Closed)?;
        let driver = async move {
            // What goes wrong is the question's to tell.
            let _ = connection.await;
        };
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Asks one question.
    pub(crate) async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Result<Answer, Unanswered> {
        let Self { sender, driver } = self;
        let asked = async {
            sender.ready().await.map_err(|_| Unanswered::Closed)?;
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| if error.is_parse() { Unanswered::NotHttp } else { Unanswered::Closed })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            Ok(Answer { status, body: body.map_err(|_| Unanswered::BadBody)?.to_bytes() })
        };
        tokio::pin!(asked);
        if let Some(driving) = driver {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                // The answer may have come with the end of the connection.
                () = driving => {}
            }
            *driver = None;
        }
        asked.await
    }
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").finish_non_exhaustive()
    }
}
