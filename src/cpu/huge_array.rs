//! Arrays of cache lines on huge pages: what the large tables of a worker live in.
//!
//! A random access to a table of a gigabyte misses the TLB as well as the caches; 2 MiB pages take a quarter
//! to a third off its cost. An array is mapped once, begins as zeros, never grows or moves, and is unmapped
//! when dropped. The kernel gives a page only when it is first touched, so a table sized for the worst case
//! costs what is used of it; only reserved huge pages ([`Pages::Reserved`]) are set aside at once.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use zerocopy::FromZeros;

const HUGE_PAGE: usize = 2 << 20;

/// What kind of pages to ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// Huge pages reserved by the operator (hugetlb, `vm.nr_hugepages`); transparent ones where too few are
    /// left.
    Reserved,
    /// Huge pages as the kernel has them (`madvise`), else small ones.
    Transparent,
    /// Pages of the size the kernel gives unasked: for what is sparsely used.
    Small,
}

/// What kind of pages an array got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// hugetlb, 2 MiB each: never swapped, never split, present from the start
    Reserved,
    /// the kernel was advised to use huge pages and does so as far as it has them
    Transparent,
    /// the kernel was built without transparent huge pages, or was not asked for them
    Small,
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageKind::Reserved => "reserved huge pages",
            PageKind::Transparent => "transparent huge pages",
            PageKind::Small => "small pages",
        })
    }
}

/// Why an array could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel refused the memory.
    #[error(
        "cannot map {mebibytes} MiB ({errno}): ask for fewer elements, or raise the memory limit (cgroup memory.max, ulimit -v)"
    )]
    Refused {
        /// how much was asked for
        mebibytes: usize,
        /// the kernel's answer
        errno: Errno,
    },
    /// The size does not fit an address space.
    #[error("an array of {len} elements exceeds the address space: ask for fewer")]
    TooLarge {
        /// elements asked for
        len: usize,
    },
}

/// A fixed array of `T` in its own mapping, all bytes zero at first.
pub struct HugeArray<T> {
    elements: NonNull<T>,
    len: usize,
    /// unmaps when dropped
    _mapping: Mapping,
    kind: PageKind,
    owned: PhantomData<T>,
}

// SAFETY: the array owns its mapping alone and hands out references only by the borrow rules, like a
// `Box<[T]>`.
unsafe impl<T: Send> Send for HugeArray<T> {}
// SAFETY: as above; a shared array gives only shared references.
unsafe impl<T: Sync> Sync for HugeArray<T> {}

impl<T: FromZeros> HugeArray<T> {
    /// Maps `len` elements.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses the memory.
    pub fn new(len: usize, pages: Pages) -> Result<Self, MapError> {
        const {
            assert!(!std::mem::needs_drop::<T>(), "elements are never dropped");
            assert!(align_of::<T>() <= 4096, "a mapping begins at a page");
        }
        let bytes = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.max(1).checked_next_multiple_of(HUGE_PAGE))
            .filter(|&bytes| bytes <= isize::MAX as usize - HUGE_PAGE)
            .ok_or(MapError::TooLarge { len })?;
        let reserved = if pages == Pages::Reserved { Mapping::reserved(bytes) } else { None };
        let (mapping, start, kind) = match reserved {
            Some((mapping, start)) => (mapping, start, PageKind::Reserved),
            None => {
                let (mapping, start) = Mapping::lazy(bytes)
                    .map_err(|errno| MapError::Refused { mebibytes: bytes.div_ceil(1 << 20), errno })?;
                let advised = pages != Pages::Small && {
                    // SAFETY: `start` and `bytes` lie inside the mapping made above; the advice changes no
                    // contents.
                    unsafe { madvise(start.cast(), bytes, MmapAdvise::MADV_HUGEPAGE) }.is_ok()
                };
                (mapping, start, if advised { PageKind::Transparent } else { PageKind::Small })
            }
        };
        Ok(HugeArray { elements: start.cast(), len, _mapping: mapping, kind, owned: PhantomData })
    }
}

impl<T> HugeArray<T> {
    /// What kind of pages it lies on.
    pub fn kind(&self) -> PageKind {
        self.kind
    }

    /// Bytes of address space, rounded up to pages; resident are those that were touched.
    pub fn bytes(&self) -> usize {
        (self.len * size_of::<T>()).next_multiple_of(HUGE_PAGE)
    }

    /// Has the kernel give every page now, so that no first touch stalls the packet path later. What the
    /// kernel does not give (before Linux 5.14, or short of memory) is given at the first touch as ever.
    pub fn populate(&mut self) {
        // SAFETY: the range is the array itself, which lies inside its mapping; populating changes no
        // contents.
        let _ = unsafe {
            madvise(self.elements.cast(), self.len * size_of::<T>(), MmapAdvise::MADV_POPULATE_WRITE)
        };
    }
}

impl<T> Deref for HugeArray<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `elements` is aligned and followed by `len` elements of mapped, readable memory that lives
        // as long as self. They are initialised: the kernel gives zeros and `new` asked for `T: FromZeros`.
        unsafe { std::slice::from_raw_parts(self.elements.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeArray<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the reference the only one.
        unsafe { std::slice::from_raw_parts_mut(self.elements.as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for HugeArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeArray").field("len", &self.len).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A range of address space that is given back when dropped.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Reserved huge pages, if the operator has left enough of them.
    fn reserved(bytes: usize) -> Option<(Mapping, NonNull<u8>)> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        let mapping = Mapping::map(bytes, flags).ok()?;
        let start = mapping.start;
        Some((mapping, start))
    }

    /// Ordinary pages, given at the first touch; the start returned is aligned to a huge page, or the first
    /// and the last of them could not be huge.
    fn lazy(bytes: usize) -> Result<(Mapping, NonNull<u8>), Errno> {
        let mapping = Mapping::map(bytes + HUGE_PAGE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)?;
        let skip = mapping.start.align_offset(HUGE_PAGE);
        // SAFETY: `skip` is below HUGE_PAGE, by which the mapping is larger than what is used of it.
        let start = unsafe { mapping.start.add(skip) };
        Ok((mapping, start))
    }

    fn map(bytes: usize, flags: MapFlags) -> Result<Mapping, Errno> {
        let length = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let start =
            unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)? };
        Ok(Mapping { start: start.cast(), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and nobody else knows it; the array that lent it is gone.
        // Unmapping a range of our own cannot fail in a way we could act upon.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_as_zeros_and_keeps_what_is_written() {
        for pages in [Pages::Reserved, Pages::Transparent, Pages::Small] {
            let mut array = HugeArray::<[u64; 8]>::new(100_000, pages).unwrap();
            assert_eq!(array.len(), 100_000);
            assert_eq!(array.as_ptr().align_offset(HUGE_PAGE), 0);
            assert!(array.iter().all(|line| *line == [0; 8]));
            array[99_999] = [7; 8];
            array.populate();
            assert_eq!(array[99_999], [7; 8]);
            assert_eq!(array[99_998], [0; 8]);
        }
    }

    #[test]
    fn an_empty_array_is_an_empty_slice() {
        let mut array = HugeArray::<u32>::new(0, Pages::Transparent).unwrap();
        assert!(array.is_empty());
        array.populate();
    }

    #[test]
    fn an_impossible_size_is_an_error_that_says_what_to_do() {
        let error = HugeArray::<[u8; 64]>::new(usize::MAX / 2, Pages::Transparent).unwrap_err();
        assert_eq!(error, MapError::TooLarge { len: usize::MAX / 2 });
        let error = HugeArray::<[u8; 64]>::new(1 << 50, Pages::Transparent).unwrap_err();
        assert!(error.to_string().contains("fewer elements"), "{error}");
    }

    #[test]
    fn untouched_elements_cost_no_memory() {
        let resident_kib = || -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let before = resident_kib();
        let mut array = HugeArray::<[u8; 64]>::new(64 << 20, Pages::Transparent).unwrap();
        array[0][0] = 1;
        assert!(array.bytes() == 4 << 30);
        assert!(resident_kib() < before + (1 << 20), "4 GiB mapped, less than 1 GiB resident");
    }
}
