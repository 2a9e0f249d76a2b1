//! Asking workers by letter and waiting for the answer without a thread or a wake-up of its own.
//!
//! Workers never call the kernel for control, so there is nothing to wait on: whoever asked looks again while, and only
//! while, a letter is under way. A worker in traffic answers within microseconds, so for a moment without a pause; one that
//! sleeps or stalls takes longer, so every millisecond after that.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::refusal::Refusal;
use crate::id::{PortId, WorkerId};
use crate::worker::mailbox::{Answer, ControlEnd, Page, Request, Ticket};
use crate::worker::records::{
    ConflictRecord, LeaseRecord, LocalAddressRecord, NeighbourRecord, RealServerRecord, SessionFilter,
    SessionRecord,
};

/// How long a worker may take for an answer before it counts as stuck.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long is looked without a pause.
const LOOK_CLOSELY: Duration = Duration::from_micros(200);

/// Time between two looks after that.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Sends letters to one worker.
pub struct Post {
    /// whom
    pub worker: WorkerId,
    end: ControlEnd,
}

/// A letter under way; its answer is dropped on arrival if nobody waits any more.
pub(super) struct Pending<'a> {
    post: &'a Post,
    ticket: Option<Ticket>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.post.end.abandon(ticket);
        }
    }
}

impl Pending<'_> {
    /// Waits for the answer.
    pub(super) async fn answer(mut self, deadline: Instant) -> Result<Answer, Refusal> {
        let began = Instant::now();
        while let Some(ticket) = self.ticket {
            if let Some(answer) = self.post.end.take(ticket) {
                self.ticket = None;
                return Ok(answer);
            }
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            if now - began < LOOK_CLOSELY {
                yield_now().await;
            } else {
                sleep(LOOK_AGAIN).await;
            }
        }
        Err(self.post.stuck())
    }
}

impl Post {
    /// To the worker at the other end.
    pub fn new(worker: WorkerId, end: ControlEnd) -> Self {
        Post { worker, end }
    }

    fn stuck(&self) -> Refusal {
        Refusal::Workers(format!(
            "Worker {} has not answered within {} s: look at its `turns` in GET /v1/workers and at the log; if they \
             stand still, restart fullnatd.",
            self.worker.0,
            ANSWER_TIMEOUT.as_secs()
        ))
    }

    /// Sends a letter at once or says that too many are under way.
    pub(super) fn send(&self, request: Request) -> Result<Pending<'_>, Request> {
        let ticket = self.end.send(request)?;
        Ok(Pending { post: self, ticket: Some(ticket) })
    }

    /// Whether a new snapshot can be sent right now.
    pub(super) fn takes_snapshot(&self) -> bool {
        self.end.has_room_for_snapshot()
    }

    async fn ask(&self, mut request: Request) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.send(request) {
                Ok(pending) => return pending.answer(deadline).await,
                Err(_) if Instant::now() >= deadline => return Err(self.stuck()),
                Err(back) => request = back,
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn confused(&self) -> Refusal {
        Refusal::Workers(format!("Worker {} answered something else than it was asked.", self.worker.0))
    }

    /// A page of sessions.
    pub async fn sessions(
        &self,
        filter: SessionFilter,
        page: Page<SessionRecord>,
    ) -> Result<Page<SessionRecord>, Refusal> {
        match self.ask(Request::Sessions(filter, page)).await? {
            Answer::Sessions(page) => Ok(page),
            _ => Err(self.confused()),
        }
    }

    /// All neighbours.
    pub async fn neighbours(&self) -> Result<Vec<NeighbourRecord>, Refusal> {
        self.whole_table(Request::Neighbours, |answer| match answer {
            Answer::Neighbours(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// All leases.
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, Refusal> {
        self.whole_table(Request::Leases, |answer| match answer {
            Answer::Leases(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// The use of all local addresses.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddressRecord>, Refusal> {
        self.whole_table(Request::LocalAddresses, |answer| match answer {
            Answer::LocalAddresses(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Says that a port's link came up.
    pub async fn link_up(&self, port: PortId) -> Result<(), Refusal> {
        self.ask(Request::LinkUp(port)).await.map(|_| ())
    }

    /// The counters of all real servers.
    pub async fn real_servers(&self) -> Result<Vec<RealServerRecord>, Refusal> {
        self.whole_table(Request::RealServers, |answer| match answer {
            Answer::RealServers(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Own addresses that other hosts claim.
    pub async fn conflicts(&self) -> Result<Vec<ConflictRecord>, Refusal> {
        self.whole_table(Request::Conflicts, |answer| match answer {
            Answer::Conflicts(page) => Some(page),
            _ => None,
        })
        .await
    }

    async fn whole_table<T>(
        &self,
        request: impl Fn(Page<T>) -> Request,
        page_of: impl Fn(Answer) -> Option<Page<T>>,
    ) -> Result<Vec<T>, Refusal> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let answer = self.ask(request(Page::new(from, PAGE_RECORDS))).await?;
            let page = page_of(answer).ok_or_else(|| self.confused())?;
            let next = page.next();
            all.extend(page.into_records());
            match next {
                Some(next) if next > from => from = next,
                _ => return Ok(all),
            }
        }
    }
}

/// Records a worker writes for one letter: some tens of microseconds of its time.
pub const PAGE_RECORDS: usize = 256;
