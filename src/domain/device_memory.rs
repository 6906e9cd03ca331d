//! Memory of the devices that jobs compute on.

use std::{fmt, sync::Arc};

/// A device's memory at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMemory {
    /// What it is called: `cpu`, or a GPU's slot and name.
    pub device: String,
    /// What a new process can have, in bytes.
    pub free_bytes: u64,
    /// All of it, in bytes.
    pub all_bytes: u64,
}

/// The memory that jobs find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobMemory {
    /// All slots share one machine's.
    Shared(DeviceMemory),
    /// Each slot is a device with its own.
    OfSlots(Vec<DeviceMemory>),
}

/// Reads it.
#[derive(Clone)]
pub struct ReadMemory(Arc<dyn Fn() -> Option<JobMemory> + Send + Sync>);

impl ReadMemory {
    /// Reads it so; nothing where it cannot be known.
    pub fn new(read: impl Fn() -> Option<JobMemory> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Where it cannot be known.
    pub fn unknown() -> Self {
        Self::new(|| None)
    }

    /// What it is now.
    pub fn read(&self) -> Option<JobMemory> {
        (self.0)()
    }
}

impl fmt::Debug for ReadMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadMemory")
    }
}

impl JobMemory {
    /// The devices.
    pub fn devices(&self) -> &[DeviceMemory] {
        match self {
            Self::Shared(memory) => std::slice::from_ref(memory),
            Self::OfSlots(memory) => memory,
        }
    }

    /// The most that one job can have when nothing else runs, in bytes.
    pub fn most_bytes(&self) -> u64 {
        self.devices().iter().map(|memory| memory.all_bytes).max().unwrap_or(0)
    }

    /// Of these slots the one that a job gets, which is the one with the most free memory, and how much that is.
    pub fn best_of(&self, slots: &[u16]) -> Option<(u16, u64)> {
        match self {
            Self::Shared(memory) => slots.first().map(|slot| (*slot, memory.free_bytes)),
            Self::OfSlots(memory) => {
                let free = |slot: &u16| memory.get(usize::from(*slot)).map_or(0, |memory| memory.free_bytes);
                // The first of those alike: `max_by_key` would take the last.
                slots.iter().rev().max_by_key(|slot| free(slot)).map(|slot| (*slot, free(slot)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(free_bytes: u64) -> DeviceMemory {
        DeviceMemory { device: String::new(), free_bytes, all_bytes: 10 }
    }

    #[test]
    fn a_job_gets_the_slot_with_the_most_memory() {
        let slots = JobMemory::OfSlots([2, 7, 7, 9].map(memory).to_vec());
        assert_eq!(slots.best_of(&[0, 1, 2]), Some((1, 7)));
        assert_eq!(slots.best_of(&[0, 4]), Some((0, 2)));
        assert_eq!((slots.best_of(&[]), slots.most_bytes()), (None, 10));
        assert_eq!(JobMemory::Shared(memory(3)).best_of(&[1, 2]), Some((1, 3)));
    }
}
