//! Virtual services, real servers, schedulers, routes: the immutable snapshot that workers see.
//!
//! Control builds all of it (`config::Slots`) and publishes it; workers read it without locks and never change it.
//! The one thing here that a worker owns and changes is [`scheduler::SchedulerState`], one per worker and service.

mod listeners;
pub mod route;
pub mod scheduler;
pub mod snapshot;

pub use listeners::{Listeners, Overlap};
