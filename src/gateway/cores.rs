//! Which CPU does what.

use crate::config::Dataplane;

/// CPUs of the workers and of control.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cores {
    /// one per worker, in their order
    pub workers: Vec<usize>,
    /// control's
    pub control: usize,
    /// whether one CPU has two of them, which only an adaptive idle policy makes bearable
    pub crowded: bool,
}

impl Cores {
    /// Takes the configured CPUs; without, control gets the first that is allowed and the workers the last ones.
    pub fn choose(dataplane: &Dataplane, allowed: &[usize]) -> Cores {
        let first = allowed.first().copied().unwrap_or(0);
        let control = dataplane.control_core.map_or(first, usize::from);
        let workers: Vec<usize> = if dataplane.worker_cores.is_empty() {
            let free = allowed.iter().copied().filter(|&core| core != control);
            let mut order: Vec<usize> = free.collect();
            order.push(control);
            (0..usize::from(dataplane.workers)).map(|worker| order[worker % order.len()]).collect()
        } else {
            dataplane.worker_cores.iter().map(|&core| usize::from(core)).collect()
        };
        let mut taken: Vec<usize> = workers.iter().copied().chain([control]).collect();
        taken.sort_unstable();
        let crowded = taken.windows(2).any(|pair| pair[0] == pair[1]);
        Cores { workers, control, crowded }
    }
}
