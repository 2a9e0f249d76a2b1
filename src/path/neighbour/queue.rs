//! Packets that wait for their next hop: many first-in-first-out queues in one bounded arena.
//!
//! A [`Queue`] is two links and a length; moving all its packets to another queue costs nothing.

/// No slot.
const NONE: u16 = u16::MAX;

/// One queue; its packets lie in a [`Waiting`], and only there does it make sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    head: u16,
    tail: u16,
    len: u16,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { head: NONE, tail: NONE, len: 0 }
    }
}

impl Queue {
    /// How many packets wait in it.
    pub(super) fn len(&self) -> u16 {
        self.len
    }
}

/// The arena of all queues of one table.
pub(super) struct Waiting<P> {
    slots: Vec<Slot<P>>,
    free: u16,
    len: usize,
}

struct Slot<P> {
    packet: Option<P>,
    next: u16,
}

impl<P> Waiting<P> {
    /// Room for `total` packets in all queues together, 65535 at most.
    pub(super) fn new(total: u16) -> Self {
        let next_of = |slot: u16| if slot + 1 < total { slot + 1 } else { NONE };
        let slots = (0..total).map(|slot| Slot { packet: None, next: next_of(slot) }).collect();
        Waiting { slots, free: if total > 0 { 0 } else { NONE }, len: 0 }
    }

    /// How many packets wait in all queues.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a packet; back if the arena is full.
    pub(super) fn push(&mut self, queue: &mut Queue, packet: P) -> Result<(), P> {
        let slot = self.free;
        if slot == NONE {
            return Err(packet);
        }
        self.free = self.slots[usize::from(slot)].next;
        self.slots[usize::from(slot)] = Slot { packet: Some(packet), next: NONE };
        self.link(queue, slot, slot, 1);
        self.len += 1;
        Ok(())
    }

    /// Takes the packet that has waited longest.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<P> {
        let slot = queue.head;
        if slot == NONE {
            return None;
        }
        let Slot { packet, next } = &mut self.slots[usize::from(slot)];
        let packet = packet.take();
        queue.head = std::mem::replace(next, self.free);
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.len -= 1;
        self.free = slot;
        self.len -= 1;
        packet
    }

    /// Appends all of `from` to `to`.
    pub(super) fn append(&mut self, to: &mut Queue, from: &mut Queue) {
        if from.head != NONE {
            self.link(to, from.head, from.tail, from.len);
            *from = Queue::default();
        }
    }

    fn link(&mut self, queue: &mut Queue, head: u16, tail: u16, len: u16) {
        if queue.tail == NONE {
            queue.head = head;
        } else {
            self.slots[usize::from(queue.tail)].next = head;
        }
        queue.tail = tail;
        queue.len += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Pop(usize),
        Append(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize).prop_map(Step::Push),
            3 => (0..3usize).prop_map(Step::Pop),
            1 => (0..3usize, 1..3usize).prop_map(|(to, off)| Step::Append(to, (to + off) % 3)),
        ]
    }

    proptest! {
        #[test]
        fn queues_in_one_arena_behave_like_queues_of_their_own(steps in proptest::collection::vec(step(), 0..200)) {
            let mut waiting = Waiting::new(8);
            let mut queues = [Queue::default(); 3];
            let mut model: [VecDeque<usize>; 3] = Default::default();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(at) => {
                        let room = model.iter().map(VecDeque::len).sum::<usize>() < 8;
                        prop_assert_eq!(waiting.push(&mut queues[at], number).is_ok(), room);
                        if room {
                            model[at].push_back(number);
                        }
                    }
                    Step::Pop(at) => prop_assert_eq!(waiting.pop(&mut queues[at]), model[at].pop_front()),
                    Step::Append(to, from) => {
                        let mut moved = std::mem::take(&mut queues[from]);
                        waiting.append(&mut queues[to], &mut moved);
                        let moved = std::mem::take(&mut model[from]);
                        model[to].extend(moved);
                    }
                }
                prop_assert_eq!(waiting.len(), model.iter().map(VecDeque::len).sum::<usize>());
                for (queue, model) in queues.iter().zip(&model) {
                    prop_assert_eq!(usize::from(queue.len()), model.len());
                }
            }
        }
    }
}
