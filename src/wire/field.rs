//! Network-order fields in a byte slice. Each call is one load or store once the slice's length is known.

/// Two bytes at `at`, in host order.
#[inline(always)]
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(get_array(bytes, at))
}

/// Four bytes at `at`, in host order.
#[inline(always)]
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(get_array(bytes, at))
}

/// Eight bytes at `at`, in host order.
#[inline(always)]
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(get_array(bytes, at))
}

/// `N` bytes at `at`, as they are.
#[inline(always)]
pub(crate) fn get_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..at + N].first_chunk().expect("the slice was cut to N bytes")
}

/// Writes a host-order value to two bytes at `at`.
#[inline(always)]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put_array(bytes, at, value.to_be_bytes());
}

/// Writes a host-order value to four bytes at `at`.
#[inline(always)]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put_array(bytes, at, value.to_be_bytes());
}

/// Writes a host-order value to eight bytes at `at`.
#[inline(always)]
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    put_array(bytes, at, value.to_be_bytes());
}

/// Writes `N` bytes at `at`, as they are.
#[inline(always)]
pub(crate) fn put_array<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
