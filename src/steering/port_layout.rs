//! The 65,536 L4 ports in an order in which those of one RETA class stand together.
//!
//! The class of a port is a linear function of its 16 bits (XOR), `class_bits` bits wide. Where that function reaches
//! every class, it can be completed to an invertible one: a port's *index* is its class followed by as many of the
//! port's own bits as are needed to tell the ports of a class apart. Both directions of an invertible linear function
//! are two table look-ups.
//!
//! Invariant: index and port are in one-to-one correspondence, and each class has exactly `65536 >> class_bits` ports.

/// The correspondence of L4 ports and indexes, `index = class << position_bits | position`.
#[derive(Clone)]
pub struct PortLayout {
    index_of: Linear,
    port_at: Linear,
    position_bits: u32,
}

impl PortLayout {
    /// The layout for classes of `class_bits` bits given by the linear function `class_of`; `None` if some class has
    /// no port.
    pub(super) fn new(class_bits: u32, class_of: impl Fn(u16) -> u16) -> Option<Self> {
        let position_bits = 16 - class_bits;
        let mut columns = std::array::from_fn(|bit| class_of(1 << bit) << position_bits);
        // The low port bits whose classes are independent decide the class; the others number the ports of a class.
        let mut independent = Vec::new();
        let mut position = 0;
        for column in &mut columns {
            let reduced = independent.iter().fold(*column, |rest: u16, &basis: &u16| rest.min(rest ^ basis));
            if reduced != 0 {
                independent.push(reduced);
            } else if position < position_bits {
                *column |= 1 << position;
                position += 1;
            }
        }
        let inverse = invert(columns)?;
        Some(PortLayout { index_of: Linear::new(columns), port_at: Linear::new(inverse), position_bits })
    }

    /// The index of a port.
    #[inline(always)]
    pub fn index_of(&self, port: u16) -> u16 {
        self.index_of.apply(port)
    }

    /// The port at an index.
    #[inline(always)]
    pub fn port_at(&self, index: u16) -> u16 {
        self.port_at.apply(index)
    }

    /// The class of a port.
    #[inline(always)]
    pub fn class_of(&self, port: u16) -> u16 {
        self.index_of(port) >> self.position_bits
    }

    /// How many bits of an index number the ports of one class; the bits above are the class.
    #[inline(always)]
    pub fn position_bits(&self) -> u32 {
        self.position_bits
    }
}

/// A linear function over 16 bits, by a table for each byte.
#[derive(Clone)]
struct Linear {
    low: [u16; 256],
    high: [u16; 256],
}

impl Linear {
    /// The function that maps bit `i` to `columns[i]`.
    fn new(columns: [u16; 16]) -> Self {
        let sum = |first: usize, byte: usize| {
            (0..8).filter(|bit| byte >> bit & 1 != 0).fold(0, |sum, bit| sum ^ columns[first + bit])
        };
        Linear {
            low: std::array::from_fn(|byte| sum(0, byte)),
            high: std::array::from_fn(|byte| sum(8, byte)),
        }
    }

    #[inline(always)]
    fn apply(&self, value: u16) -> u16 {
        self.low[usize::from(value as u8)] ^ self.high[usize::from(value >> 8)]
    }
}

/// The columns of the inverse function (Gauss-Jordan over two elements); `None` if there is none.
fn invert(mut columns: [u16; 16]) -> Option<[u16; 16]> {
    let mut inverse: [u16; 16] = std::array::from_fn(|bit| 1 << bit);
    for bit in 0..16 {
        let pivot = (bit..16).find(|&i| columns[i] >> bit & 1 != 0)?;
        columns.swap(bit, pivot);
        inverse.swap(bit, pivot);
        for i in 0..16 {
            if i != bit && columns[i] >> bit & 1 != 0 {
                columns[i] ^= columns[bit];
                inverse[i] ^= inverse[bit];
            }
        }
    }
    Some(inverse)
}
