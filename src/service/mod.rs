//! Virtual services, real servers, schedulers, routes: the immutable snapshot that workers see.

pub mod snapshot;
pub mod route {
    //! Longest prefix match.
    /// Connected and static routes.
    #[derive(Default)]
    pub struct RouteTable {}
}
pub mod scheduler {
    //! Schedulers.
    /// A scheduler's immutable half.
    #[derive(Clone, Debug)]
    pub struct Scheduler {}
}
/// Which service listens where.
#[derive(Default)]
pub struct Listeners {}
